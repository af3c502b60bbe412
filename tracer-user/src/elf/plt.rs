//! Follows the stubs through which code reaches functions of other objects, or its own if they can be replaced.

use iced_x86::{Code, Decoder, DecoderOptions, Register};
use object::{
    ReadRef,
    elf::{self, Rela64},
    read::elf::{Rela, SectionHeader, Sym},
};

use super::object_file::{ENDIAN, ElfObject, ObjectFacts};

/// Bytes of a stub that are looked at: a marker, a prefix and an indirect jump.
const STUB_BYTES: u64 = 16;

impl<'data, R: ReadRef<'data>> ElfObject<'data, R> {
    /// The name of the function that the stub at an address jumps to; `None` when there is no stub.
    #[must_use]
    pub fn stub_target(&self, facts: &ObjectFacts, address: u64) -> Option<&'data str> {
        let code = self.bytes_at(facts.file_offset(address)?, STUB_BYTES);
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let mut jump = decoder.decode();
        if jump.code() == Code::Endbr64 {
            jump = decoder.decode();
        }
        if jump.code() != Code::Jmp_rm64 || jump.memory_base() != Register::RIP {
            return None;
        }
        self.relocated_symbol(jump.memory_displacement64())
    }

    /// The dynamic symbol whose address the loader stores at `slot`.
    fn relocated_symbol(&self, slot: u64) -> Option<&'data str> {
        let relocation = self
            .sections
            .iter()
            .filter(|section| section.sh_type(ENDIAN) == elf::SHT_RELA)
            .filter_map(|section| {
                section
                    .data_as_array::<Rela64<object::LittleEndian>, _>(ENDIAN, self.data)
                    .ok()
            })
            .flatten()
            .find(|relocation| relocation.r_offset(ENDIAN) == slot)?;
        let (symbols, strings) = self.table(elf::SHT_DYNSYM)?;
        let symbol = symbols.get(usize::try_from(relocation.r_sym(ENDIAN, false)).ok()?)?;
        let start = usize::try_from(symbol.st_name(ENDIAN)).ok()?;
        let name = strings.get(start..)?.split(|byte| *byte == 0).next()?;
        str::from_utf8(name).ok()
    }
}
