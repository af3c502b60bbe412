//! Where an object keeps its unwind information: by section, or by program header where sections are stripped.

use gimli::{
    BaseAddresses, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Section as _,
};
use object::{
    ReadRef, elf,
    read::elf::{ProgramHeader, SectionHeader},
};
use sha2::{Digest as _, Sha256};

use crate::elf::object_file::{ENDIAN, ElfObject};

pub(super) type Bytes<'data> = EndianSlice<'data, LittleEndian>;

/// A terminator alone says nothing.
const TERMINATOR_BYTES: usize = 4;

/// The unwind information: one of the sections at least.
pub(super) struct Frames<'data> {
    /// `.eh_frame`, which is loaded with the code.
    pub(super) eh: Option<EhFrame<Bytes<'data>>>,
    /// `.debug_frame`, which is for debuggers; compilers emit it for code that is not in the other.
    pub(super) debug: Option<DebugFrame<Bytes<'data>>>,
    /// Where what the sections' addresses are relative to lies.
    pub(super) bases: BaseAddresses,
}

impl<'data> Frames<'data> {
    pub(super) fn locate<R: ReadRef<'data>>(object: &ElfObject<'data, R>) -> Option<Self> {
        let mut bases = BaseAddresses::default();
        // Only where they lie: the largest text has 250 MB.
        let address = |name| Some(object.section(name)?.sh_addr(ENDIAN));
        if let Some(address) = address(b".text") {
            bases = bases.set_text(address);
        }
        if let Some(address) = address(b".got") {
            bases = bases.set_got(address);
        }
        let useful = |(_, bytes): &(u64, &[u8])| bytes.len() > TERMINATOR_BYTES;
        let eh = section(object, b".eh_frame")
            .filter(useful)
            .or_else(|| through_header(object).filter(useful));
        if let Some((address, _)) = eh {
            bases = bases.set_eh_frame(address);
        }
        let debug = section(object, b".debug_frame").filter(useful);
        (eh.is_some() || debug.is_some()).then(|| Self {
            eh: eh.map(|(_, bytes)| EhFrame::new(bytes, LittleEndian)),
            debug: debug.map(|(_, bytes)| DebugFrame::new(bytes, LittleEndian)),
            bases,
        })
    }

    /// Adds everything that the rules depend on.
    pub(super) fn hash(&self, hasher: &mut Sha256) {
        let Self { eh, debug, bases } = self;
        let eh = eh.as_ref().map(|section| section.reader().slice());
        let debug = debug.as_ref().map(|section| section.reader().slice());
        let bases = [
            bases.eh_frame.section,
            bases.eh_frame.text,
            bases.eh_frame.data,
        ];
        for base in bases {
            hasher.update([u8::from(base.is_some())]);
            hasher.update(base.unwrap_or_default().to_le_bytes());
        }
        for section in [eh, debug] {
            let bytes = section.unwrap_or_default();
            hasher.update([u8::from(section.is_some())]);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
}

/// A section's virtual address and bytes. Compressed ones do not count: their bytes are not what they say.
fn section<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    name: &[u8],
) -> Option<(u64, &'data [u8])> {
    let section = object.section(name)?;
    if section.sh_flags(ENDIAN).contains(elf::SHF_COMPRESSED) {
        return None;
    }
    let bytes = section.data(ENDIAN, object.data).ok()?;
    Some((section.sh_addr(ENDIAN), bytes))
}

/// `.eh_frame` as the unwinder of a running process finds it: `.eh_frame_hdr` has a program header, and points to it.
/// Its end is not said; it lies before the end of its segment.
fn through_header<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
) -> Option<(u64, &'data [u8])> {
    let header = object
        .segments
        .iter()
        .find(|segment| segment.p_type(ENDIAN) == elf::PT_GNU_EH_FRAME)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.p_vaddr(ENDIAN));
    let bytes = header.data(ENDIAN, object.data).ok()?;
    let address = EhFrameHdr::new(bytes, LittleEndian)
        .parse(&bases, 8)
        .ok()?
        .eh_frame_ptr()
        .direct()
        .ok()?;
    object.segments.iter().find_map(|segment| {
        if segment.p_type(ENDIAN) != elf::PT_LOAD {
            return None;
        }
        let within = address.checked_sub(segment.p_vaddr(ENDIAN))?;
        let rest = segment.p_filesz(ENDIAN).checked_sub(within)?;
        let offset = segment.p_offset(ENDIAN).checked_add(within)?;
        Some((address, object.bytes_at(offset, rest)))
    })
}
