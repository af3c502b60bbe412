//! The facts of an ELF file that attaching to it and naming its code need: what it is, where its segments lie,
//! which libraries it needs, and how its debug file is found.

use object::{
    LittleEndian, ReadRef,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64},
    read::{
        SectionIndex,
        elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, SectionTable},
    },
};

use super::bounded::Bounded;

pub(super) const ENDIAN: LittleEndian = LittleEndian;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The file does not begin with ELF's magic number.
    #[error("not an ELF file")]
    NotElf,
    /// The file is for 32-bit processes.
    #[error("a 32-bit ELF file; memtrace reads 64-bit ones")]
    Class32,
    /// The file is for another processor.
    #[error("an ELF file for another processor (machine {0}); memtrace runs on x86-64")]
    Machine(u16),
    /// A header or table does not fit the file.
    #[error("malformed ELF file: {0}")]
    Malformed(String),
}

impl From<object::Error> for ElfError {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A part of the file that is mapped into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address before relocation.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes taken from the file.
    pub file_bytes: u64,
    /// Whether it holds code.
    pub executable: bool,
}

/// The name and checksum by which a stripped file names its debug file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugLink {
    /// File name, without a folder.
    pub name: Vec<u8>,
    /// CRC-32 of the whole debug file.
    pub crc: u32,
}

/// What an ELF file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Whether it is linked to a fixed address (`ET_EXEC`).
    pub fixed_address: bool,
    /// Virtual address at which execution begins.
    pub entry: u64,
    /// The loadable segments.
    pub segments: Vec<Segment>,
    /// The dynamic loader that it asks for.
    pub interpreter: Option<String>,
    /// The name under which libraries refer to it.
    pub soname: Option<String>,
    /// Names of the libraries that it needs.
    pub needed: Vec<String>,
    /// Virtual address of the dynamic section, before relocation; absent in a program for no loader.
    pub dynamic_address: Option<u64>,
    /// GNU build id.
    pub build_id: Option<Vec<u8>>,
    /// Where its debug file is.
    pub debug_link: Option<DebugLink>,
    /// Whether the Go tool chain made it.
    pub go: bool,
    /// Whether it has a full symbol table (`.symtab`).
    pub symtab: bool,
}

impl ObjectFacts {
    /// The offset in the file of the code at a virtual address before relocation.
    #[must_use]
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.executable)
            .find_map(|segment| {
                let within = address.checked_sub(segment.address)?;
                (within < segment.file_bytes)
                    .then(|| segment.offset.checked_add(within))
                    .flatten()
            })
    }
}

type Sections<'data, R> = SectionTable<'data, FileHeader64<LittleEndian>, Bounded<R>>;

/// A 64-bit x86 ELF file.
#[derive(Debug)]
pub struct ElfObject<'data, R: ReadRef<'data>> {
    pub(super) data: Bounded<R>,
    pub(super) sections: Sections<'data, R>,
    header: &'data FileHeader64<LittleEndian>,
    pub(super) segments: &'data [ProgramHeader64<LittleEndian>],
}

impl<'data, R: ReadRef<'data>> ElfObject<'data, R> {
    /// Reads the file's headers.
    ///
    /// # Errors
    ///
    /// When the file is not a well-formed 64-bit x86 ELF file.
    pub fn parse(data: R) -> Result<Self, ElfError> {
        let data = Bounded(data);
        let ident = data.read_bytes_at(0, 6).map_err(|()| ElfError::NotElf)?;
        let [0x7f, b'E', b'L', b'F', class, encoding] = *ident else {
            return Err(ElfError::NotElf);
        };
        if class == 1 {
            return Err(ElfError::Class32);
        }
        if encoding != 1 {
            return Err(ElfError::Malformed("not little-endian".to_owned()));
        }
        let header = FileHeader64::<LittleEndian>::parse(data)?;
        let machine = header.e_machine(ENDIAN);
        if machine != elf::EM_X86_64 {
            return Err(ElfError::Machine(machine.0));
        }
        Ok(Self {
            data,
            // A file can run without section headers, and with broken ones.
            sections: header.sections(ENDIAN, data).unwrap_or_default(),
            header,
            segments: header.program_headers(ENDIAN, data)?,
        })
    }

    /// Collects the facts.
    #[must_use]
    pub fn facts(&self) -> ObjectFacts {
        let mut facts = ObjectFacts {
            fixed_address: self.header.e_type(ENDIAN) == elf::ET_EXEC,
            entry: self.header.e_entry(ENDIAN),
            debug_link: self.debug_link(),
            go: self.section(b".go.buildinfo").is_some()
                || self.section(b".note.go.buildid").is_some(),
            symtab: self
                .sections
                .iter()
                .any(|section| section.sh_type(ENDIAN) == elf::SHT_SYMTAB),
            ..ObjectFacts::default()
        };
        for segment in self.segments {
            if segment.p_type(ENDIAN) == elf::PT_LOAD {
                facts.segments.push(Segment {
                    address: segment.p_vaddr(ENDIAN),
                    offset: segment.p_offset(ENDIAN),
                    file_bytes: segment.p_filesz(ENDIAN),
                    executable: segment.p_flags(ENDIAN).contains(elf::PF_X),
                });
            } else if let Ok(Some(path)) = segment.interpreter(ENDIAN, self.data) {
                facts.interpreter = Some(text(path));
            } else if let Ok(Some(mut notes)) = segment.notes(ENDIAN, self.data) {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == elf::ELF_NOTE_GNU
                        && note.n_type(ENDIAN) == elf::NT_GNU_BUILD_ID
                    {
                        facts.build_id = Some(note.desc().to_vec());
                    }
                }
            }
        }
        self.read_dynamic(&mut facts);
        facts
    }

    /// Reads the dynamic section through the segments, as the loader does.
    fn read_dynamic(&self, facts: &mut ObjectFacts) {
        let Some((address, entries)) = self.segments.iter().find_map(|segment| {
            let entries = segment.dynamic(ENDIAN, self.data).ok().flatten()?;
            Some((segment.p_vaddr(ENDIAN), entries))
        }) else {
            return;
        };
        facts.dynamic_address = Some(address);
        let value = |tag| {
            entries
                .iter()
                .take_while(|entry| entry.d_tag(ENDIAN) != elf::DT_NULL)
                .find(|entry| entry.d_tag(ENDIAN) == tag)
                .map(|entry| entry.d_val(ENDIAN))
        };
        let (Some(strings), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
            return;
        };
        let Some(offset) = facts.segments.iter().find_map(|segment| {
            let within = strings.checked_sub(segment.address)?;
            (within < segment.file_bytes)
                .then(|| segment.offset.checked_add(within))
                .flatten()
        }) else {
            return;
        };
        let Ok(strings) = self.data.read_bytes_at(offset, size) else {
            return;
        };
        for entry in entries {
            let tag = entry.d_tag(ENDIAN);
            if tag == elf::DT_NULL {
                break;
            }
            if tag != elf::DT_SONAME && tag != elf::DT_NEEDED {
                continue;
            }
            let Some(name) = usize::try_from(entry.d_val(ENDIAN))
                .ok()
                .and_then(|start| strings.get(start..))
                .and_then(|rest| rest.split(|byte| *byte == 0).next())
            else {
                continue;
            };
            if tag == elf::DT_SONAME {
                facts.soname = Some(text(name));
            } else {
                facts.needed.push(text(name));
            }
        }
    }

    fn debug_link(&self) -> Option<DebugLink> {
        let data = self
            .section(b".gnu_debuglink")?
            .data(ENDIAN, self.data)
            .ok()?;
        let end = data.iter().position(|byte| *byte == 0)?;
        let crc = (end + 1).next_multiple_of(4);
        Some(DebugLink {
            name: data.get(..end)?.to_vec(),
            crc: u32::from_le_bytes(data.get(crc..crc + 4)?.try_into().ok()?),
        })
    }

    pub(super) fn section(&self, name: &[u8]) -> Option<&'data SectionHeader64<LittleEndian>> {
        self.sections
            .section_by_name(ENDIAN, name)
            .map(|(_, section)| section)
    }

    /// The symbol table of a type, with its strings, each read at once.
    pub(super) fn table(
        &self,
        kind: elf::SectionType,
    ) -> Option<(&'data [elf::Sym64<LittleEndian>], &'data [u8])> {
        let table = self
            .sections
            .iter()
            .find(|section| section.sh_type(ENDIAN) == kind)?;
        let strings = self
            .sections
            .section(SectionIndex(usize::try_from(table.sh_link(ENDIAN)).ok()?))
            .ok()?;
        Some((
            table.data_as_array(ENDIAN, self.data).ok()?,
            strings.data(ENDIAN, self.data).ok()?,
        ))
    }

    /// At most `size` bytes of the file from `offset`; fewer where the file ends.
    #[must_use]
    pub fn bytes_at(&self, offset: u64, size: u64) -> &'data [u8] {
        let end = self.data.len().unwrap_or(0);
        let size = size.min(end.saturating_sub(offset));
        self.data.read_bytes_at(offset, size).unwrap_or_default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
