//! Finds the separate debug file of a stripped file, by build id or by the name that the file gives.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

use object::read::ReadCache;

use super::root::Root;
use crate::elf::object_file::{DebugLink, ElfObject, ObjectFacts};

/// Where distributions put debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";
/// Largest debug file whose checksum is computed, in bytes: about two seconds of reading.
const MAX_CHECKED_BYTES: u64 = 2 << 30;
/// Lengths of build ids that identify a file. Linkers make 8, 16 or 20 bytes.
const BUILD_ID_BYTES: std::ops::RangeInclusive<usize> = 8..=64;

/// Where debug files are searched, in this order.
#[derive(Clone, Copy, Debug)]
pub struct DebugSearch<'a> {
    /// Folders of the host that the user named, laid out like `/usr/lib/debug` or flat.
    pub folders: &'a [PathBuf],
    /// The root of the target.
    pub target: Option<&'a Root>,
    /// The root of the host.
    pub host: Option<&'a Root>,
}

/// A debug file that belongs to a file.
#[derive(Debug)]
pub struct DebugFile {
    /// The file, opened.
    pub file: File,
    /// Whether it may name other files to open: it comes from the host.
    pub trusted: bool,
}

impl DebugSearch<'_> {
    /// Finds the debug file of the file at `path`.
    ///
    /// A file counts when its build id is the same, or, where one of the two has none, when its checksum is the one
    /// that the debug link gives. Links are followed as a process with that root would follow them.
    #[must_use]
    pub fn find(&self, path: &Path, facts: &ObjectFacts) -> Option<DebugFile> {
        let usual = [PathBuf::from(DEBUG_FOLDER)];
        let by_link = facts.debug_link.as_ref().and_then(link_name);
        let beside: Vec<PathBuf> = path
            .parent()
            .zip(by_link)
            .map(|(folder, name)| vec![folder.join(name), folder.join(".debug").join(name)])
            .unwrap_or_default();
        let in_folders: Vec<PathBuf> = self
            .folders
            .iter()
            .flat_map(|folder| below(folder, path, facts))
            .collect();
        let usual: Vec<PathBuf> = usual
            .iter()
            .flat_map(|folder| below(folder, path, facts))
            .chain(beside)
            .collect();
        [
            (self.host, true, &in_folders),
            (self.target, false, &usual),
            (self.host, true, &usual),
        ]
        .into_iter()
        .filter_map(|(root, trusted, paths)| Some((root?, trusted, paths)))
        .find_map(|(root, trusted, paths)| {
            paths.iter().find_map(|candidate| {
                let file = root.open_file(candidate).ok()?;
                belongs(&file, facts).then_some(DebugFile { file, trusted })
            })
        })
    }
}

/// The build id, unless it is too short to identify anything.
#[must_use]
pub fn identifying(facts: &ObjectFacts) -> Option<&[u8]> {
    facts
        .build_id
        .as_deref()
        .filter(|id| BUILD_ID_BYTES.contains(&id.len()))
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a file is of the build that the facts are from.
#[must_use]
pub fn has_build_id(file: &File, build_id: &[u8]) -> bool {
    let cache = ReadCache::new(file);
    ElfObject::parse(&cache)
        .is_ok_and(|object| object.facts().build_id.as_deref() == Some(build_id))
}

/// Where the debug file may lie in a folder of debug files.
fn below(folder: &Path, path: &Path, facts: &ObjectFacts) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Some((first, rest)) = identifying(facts).and_then(<[u8]>::split_first) {
        let name = format!(".build-id/{first:02x}/{}.debug", hex(rest));
        paths.push(folder.join(name));
    }
    if let Some(name) = facts.debug_link.as_ref().and_then(link_name) {
        let mirrored = path
            .parent()
            .and_then(|parent| parent.strip_prefix("/").ok());
        paths.extend(mirrored.map(|parent| folder.join(parent).join(name)));
        paths.push(folder.join(name));
    }
    paths
}

/// The name in a debug link; one with a folder in it is not a debug link's.
fn link_name(link: &DebugLink) -> Option<&Path> {
    let name = Path::new(OsStr::from_bytes(&link.name));
    (name.file_name() == Some(name.as_os_str())).then_some(name)
}

/// Whether the debug file was made from the same build: by build id where there is one, else by checksum.
fn belongs(file: &File, facts: &ObjectFacts) -> bool {
    let cache = ReadCache::new(file);
    let Ok(object) = ElfObject::parse(&cache) else {
        return false;
    };
    let debug = object.facts();
    match (identifying(facts), identifying(&debug), &facts.debug_link) {
        (Some(id), Some(debug_id), _) => id == debug_id,
        (_, _, Some(link)) => crc32(file).is_ok_and(|crc| crc == link.crc),
        _ => false,
    }
}

/// The checksum of a whole file, wherever its position is.
fn crc32(file: &File) -> io::Result<u32> {
    if file.metadata()?.len() > MAX_CHECKED_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => return Ok(hasher.finalize()),
            bytes => {
                hasher.update(&buffer[..bytes]);
                offset += bytes as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn facts(build_id: Option<&[u8]>, link: Option<(&str, u32)>) -> ObjectFacts {
        ObjectFacts {
            build_id: build_id.map(<[u8]>::to_vec),
            debug_link: link.map(|(name, crc)| DebugLink {
                name: name.into(),
                crc,
            }),
            ..ObjectFacts::default()
        }
    }

    fn by_build_id(folder: &Path, id: &[u8]) -> PathBuf {
        below(folder, Path::new("/opt/x"), &facts(Some(id), None)).remove(0)
    }

    /// A folder with a debug file in it, whose build id and checksum are known.
    fn prepare(name: &str, place: &str) -> (PathBuf, Vec<u8>, u32) {
        let folder = std::env::temp_dir().join(format!("memtrace-{name}-{}", std::process::id()));
        let path = folder.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy("/bin/sh", &path).unwrap();
        let file = File::open(path).unwrap();
        let cache = ReadCache::new(&file);
        let id = ElfObject::parse(&cache).unwrap().facts().build_id.unwrap();
        (folder, id, crc32(&file).unwrap())
    }

    /// Make sure that a debug file is taken by its build id or its checksum, and never when they differ.
    #[test]
    fn candidates() {
        let (folder, id, crc) = prepare("debug", "opt/.debug/x.debug");
        let root = Root::open(&folder).unwrap();
        let search = DebugSearch {
            folders: &[],
            target: Some(&root),
            host: None,
        };
        let found = |facts: &ObjectFacts| search.find(Path::new("/opt/x"), facts).is_some();
        assert!(found(&facts(None, Some(("x.debug", crc)))));
        assert!(!found(&facts(None, Some(("x.debug", crc ^ 1)))));
        assert!(!found(&facts(None, Some(("../.debug/x.debug", crc)))));
        assert!(found(&facts(Some(&id), Some(("x.debug", 0)))));
        assert!(!found(&facts(Some(&[7; 20]), Some(("x.debug", crc)))));
        assert!(!found(&facts(Some(&id), None)));

        let inside = |id: &[u8]| {
            let path = by_build_id(Path::new(DEBUG_FOLDER), id);
            folder.join(path.strip_prefix("/").unwrap())
        };
        let by_id = inside(&id);
        fs::create_dir_all(by_id.parent().unwrap()).unwrap();
        fs::rename(folder.join("opt/.debug/x.debug"), &by_id).unwrap();
        assert!(found(&facts(Some(&id), None)));
        let foreign = inside(&[7; 20]);
        fs::create_dir_all(foreign.parent().unwrap()).unwrap();
        fs::copy(by_id, foreign).unwrap();
        assert!(!found(&facts(Some(&[7; 20]), None)));
        fs::remove_dir_all(folder).unwrap();
    }

    /// Make sure that folders that the user named are searched by build id, in the shape of the file system and flat,
    /// and that a file of another build is never taken from them.
    #[test]
    fn named_folders() {
        let (folder, id, crc) = prepare("debugdir", "flat.debug");
        let host = Root::open(Path::new("/")).unwrap();
        let folders = [folder.join("missing"), folder.clone()];
        let search = DebugSearch {
            folders: &folders,
            target: None,
            host: Some(&host),
        };
        let found = |facts: &ObjectFacts| search.find(Path::new("/opt/x"), facts).is_some();
        assert!(found(&facts(Some(&id), Some(("flat.debug", 0)))));
        assert!(found(&facts(None, Some(("flat.debug", crc)))));
        assert!(!found(&facts(Some(&[7; 20]), Some(("flat.debug", crc)))));
        assert!(!found(&facts(None, Some(("flat.debug", crc ^ 1)))));
        for (path, wanted) in [
            (by_build_id(&folder, &id), facts(Some(&id), None)),
            (
                folder.join("opt/y.debug"),
                facts(None, Some(("y.debug", crc))),
            ),
        ] {
            assert!(!found(&wanted));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(folder.join("flat.debug"), path).unwrap();
            assert!(found(&wanted));
        }
        let foreign = by_build_id(&folder, &[7; 20]);
        fs::create_dir_all(foreign.parent().unwrap()).unwrap();
        fs::copy(folder.join("flat.debug"), foreign).unwrap();
        assert!(!found(&facts(Some(&[7; 20]), None)));
        fs::remove_dir_all(folder).unwrap();
    }

    /// Make sure that the path is the one that distributions use, and that a short build id leads nowhere.
    #[test]
    fn path_by_build_id() {
        let id = [0xab, 0x01, 0xff, 0, 0, 0, 0, 0x10];
        assert_eq!(
            by_build_id(Path::new(DEBUG_FOLDER), &id),
            Path::new("/usr/lib/debug/.build-id/ab/01ff0000000010.debug")
        );
        assert_eq!(
            below(
                Path::new("/d"),
                Path::new("/x"),
                &facts(Some(&id[..3]), None)
            ),
            [] as [PathBuf; 0]
        );
    }
}
