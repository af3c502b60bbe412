//! The files that a process runs code from, and how to open exactly those.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::{maps::Mapping, process::Process};
use crate::files::root::{Root, open_regular};

/// Which file an object is: two paths with equal identities are one file, even where a layered file system shows
/// made-up inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Time of the last change of the contents: seconds and nanoseconds.
    pub modified: (i64, i64),
}

/// A mapped file as the list of mappings names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MappedFile {
    device: (u32, u32),
    inode: u64,
    path: OsString,
}

impl MappedFile {
    /// The file of a mapping; `None` for memory without one.
    pub(super) fn of(mapping: &Mapping) -> Option<Self> {
        (mapping.inode != 0).then(|| Self {
            device: mapping.device,
            inode: mapping.inode,
            path: mapping.path.clone(),
        })
    }

    /// Its path in the process's root.
    pub(super) fn path(&self) -> &OsStr {
        &self.path
    }
}

/// A file that is mapped as code, with the first mapping of it.
#[derive(Clone, Debug)]
pub(super) struct CodeFile {
    pub(super) file: MappedFile,
    pub(super) mapping: Mapping,
}

/// The files that a process maps as code, each once, in the order of their addresses.
pub(super) fn code_files(mappings: &[Mapping]) -> Vec<CodeFile> {
    let mut seen = HashSet::new();
    mappings
        .iter()
        .filter(|mapping| mapping.executable)
        .filter_map(|mapping| {
            let file = MappedFile::of(mapping)?;
            seen.insert(file.clone()).then(|| CodeFile {
                file,
                mapping: mapping.clone(),
            })
        })
        .collect()
}

/// A mapped file, opened.
#[derive(Debug)]
pub struct OpenObject {
    /// The file, opened to read.
    pub file: File,
    /// A path through which the kernel reaches the same file.
    pub attach_path: PathBuf,
    /// Which file it is.
    pub identity: FileIdentity,
}

/// Opens the file of a mapping: through the mapping itself, or, where the kernel does not allow that, by its path
/// in the process's root.
///
/// # Errors
///
/// When neither way leads to a regular file.
pub fn open_mapped(process: &Process, mapping: &Mapping) -> io::Result<OpenObject> {
    let by_mapping = mapping.map_files_path(process.pid());
    if let Ok(file) = open_regular(&by_mapping) {
        return opened(file, by_mapping);
    }
    if mapping.deleted {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the file was deleted, and /proc/PID/map_files may not be opened",
        ));
    }
    let path = Path::new(&mapping.path);
    let relative = path
        .strip_prefix("/")
        .map_err(|_| io::ErrorKind::NotFound)?;
    let file = Root::open(&process.root())?.open_without_links(relative)?;
    opened(file, process.root().join(relative))
}

fn opened(file: File, attach_path: PathBuf) -> io::Result<OpenObject> {
    let metadata = file.metadata()?;
    Ok(OpenObject {
        file,
        attach_path,
        identity: FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        },
    })
}

/// The last part of a path.
pub(super) fn base_name(path: &OsStr) -> String {
    let bytes = path.as_bytes();
    let start = bytes
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}
