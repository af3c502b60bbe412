//! A file that holds code of the target, kept open from when it was first seen.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use object::{LittleEndian, ReadCache, elf::FileHeader64, read::elf::FileHeader};

use crate::{
    elf::object_file::{ElfError, ElfObject, ObjectFacts, Segment},
    files::{
        debug::identifying,
        root::{Root, open_regular},
    },
};

/// Sections that make blazesym open other files, by names that the file chooses.
const LINKS: [&[u8]; 3] = [b".gnu_debuglink", b".gnu_debugaltlink", b".debug_sup"];

/// What an ELF file says, as far as names for its code need it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) object: ObjectFacts,
    /// Whether it names other files that hold parts of its debug information.
    pub(super) links: bool,
    /// Whether it holds debug information itself.
    pub(super) debug_info: bool,
}

impl Facts {
    /// Reads the headers of an ELF file.
    pub(super) fn read(file: &File) -> Result<Self, ElfError> {
        let cache = ReadCache::new(file);
        let object = ElfObject::parse(&cache)?.facts();
        let header = FileHeader64::<LittleEndian>::parse(&cache)?;
        let sections = header.sections(LittleEndian, &cache)?;
        let has = |name: &&[u8]| sections.section_by_name(LittleEndian, name).is_some();
        Ok(Self {
            object,
            links: LINKS.iter().any(has),
            debug_info: has(&&b".debug_info"[..]),
        })
    }

    /// The build id, unless it is too short to identify anything.
    pub(super) fn build_id(&self) -> Option<&[u8]> {
        identifying(&self.object)
    }

    /// The virtual address, before relocation, of the byte at an offset in the file.
    pub(super) fn virtual_address(&self, file_offset: u64) -> Option<u64> {
        let segments = &self.object.segments;
        let address = |segment: &Segment| {
            let within = file_offset.checked_sub(segment.offset)?;
            (within < segment.file_bytes)
                .then(|| segment.address.checked_add(within))
                .flatten()
        };
        // Segments can overlap in the file by a page; the code is in the executable one.
        segments
            .iter()
            .filter(|segment| segment.executable)
            .find_map(address)
            .or_else(|| segments.iter().find_map(address))
    }
}

/// A file that code was mapped from.
#[derive(Debug)]
pub(super) struct ModuleFile {
    /// Its path as the target sees it, or a name in brackets.
    pub(super) name: Arc<str>,
    /// `None` for what is not a readable ELF file.
    pub(super) facts: Option<Facts>,
    kept: Option<File>,
    open_path: PathBuf,
}

impl ModuleFile {
    /// A module without a file.
    pub(super) fn nameless(name: &str) -> Self {
        Self {
            name: name.into(),
            facts: None,
            kept: None,
            open_path: PathBuf::new(),
        }
    }

    /// Reads a file's headers. It stays open if `keep`; otherwise it must be found again at `open_path` or by name.
    pub(super) fn new(name: &str, file: File, open_path: &Path, keep: bool) -> Self {
        let facts = Facts::read(&file).ok();
        Self {
            name: name.into(),
            kept: (keep && facts.is_some()).then_some(file),
            facts,
            open_path: open_path.to_owned(),
        }
    }

    /// Whether the file is kept open.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Reads bytes of the file, if it is kept open and has so many.
    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|file| file.read_exact_at(bytes, offset).is_ok())
    }

    /// The file as it was when it was first seen, or nothing.
    pub(super) fn open(&self, root: Option<&Root>) -> io::Result<File> {
        if let Some(file) = &self.kept {
            return file.try_clone();
        }
        let same = |file: &File| {
            let id = self.facts.as_ref().and_then(Facts::build_id);
            id.is_some() && Facts::read(file).is_ok_and(|facts| facts.build_id() == id)
        };
        let in_root = || root?.open_file(Path::new(&*self.name)).ok();
        open_regular(&self.open_path)
            .ok()
            .filter(same)
            .or_else(|| in_root().filter(same))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}
