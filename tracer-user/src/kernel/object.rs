//! The BPF object that build.rs embeds.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::KernelError;

/// The object's bytes, aligned for its parser.
pub(super) static BYTES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memtrace.bpf.o"));

/// Makes sure that the object was built with the wire types of this binary.
pub(super) fn check_abi() -> Result<(), KernelError> {
    let found = abi_version(BYTES);
    if found == Some(tracer_common::ABI_VERSION) {
        Ok(())
    } else {
        Err(KernelError::Abi {
            expected: tracer_common::ABI_VERSION,
            found,
        })
    }
}

fn abi_version(bytes: &[u8]) -> Option<u32> {
    let file = object::File::parse(bytes).ok()?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok("ABI_VERSION"))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let start = usize::try_from(symbol.address()).ok()?;
    let value = section.data().ok()?.get(start..start.checked_add(4)?)?;
    Some(u32::from_le_bytes(value.try_into().ok()?))
}
