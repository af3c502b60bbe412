//! The functions that an ELF file defines, by name.

use object::{
    ReadRef,
    elf::{self, Sym64},
    read::elf::Sym,
};

use super::object_file::{ENDIAN, ElfObject};

/// A function that a file defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionSymbol<'data> {
    /// Name without a version suffix, mangled as the compiler wrote it.
    pub name: &'data str,
    /// Virtual address before relocation.
    pub address: u64,
    /// Bytes of code; 0 when the file does not say.
    pub size_bytes: u64,
    /// Whether the dynamic loader offers it to other objects.
    pub exported: bool,
}

impl<'data, R: ReadRef<'data>> ElfObject<'data, R> {
    /// Calls `visit` for each function that the file defines; twice for one that stands in both symbol tables,
    /// first as the exported one.
    ///
    /// Names that are not UTF-8, imports and `ifunc` resolvers are passed over.
    pub fn for_each_function(&self, mut visit: impl FnMut(FunctionSymbol<'data>)) {
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let Some((symbols, strings)) = self.table(kind) else {
                continue;
            };
            let dynamic = kind == elf::SHT_DYNSYM;
            symbols
                .iter()
                .filter_map(|symbol| function(symbol, strings, dynamic))
                .for_each(&mut visit);
        }
    }
}

fn function<'data>(
    symbol: &Sym64<object::LittleEndian>,
    strings: &'data [u8],
    dynamic: bool,
) -> Option<FunctionSymbol<'data>> {
    if symbol.st_type() != elf::STT_FUNC || symbol.is_undefined(ENDIAN) {
        return None;
    }
    let address = symbol.st_value(ENDIAN);
    let start = usize::try_from(symbol.st_name(ENDIAN)).ok()?;
    let name = strings.get(start..)?.split(|byte| *byte == 0).next()?;
    let name = std::str::from_utf8(name).ok()?;
    let name = name.split_once('@').map_or(name, |(name, _version)| name);
    if address == 0 || name.is_empty() {
        return None;
    }
    Some(FunctionSymbol {
        name,
        address,
        size_bytes: symbol.st_size(ENDIAN),
        exported: dynamic && symbol.st_bind() != elf::STB_LOCAL,
    })
}
