//! The separate debug file of a stripped file, found by build id or by its debug link.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

use super::{file::Facts, root::Root};

/// Where distributions put debug files.
const DEBUG_DIRECTORY: &str = "usr/lib/debug";

/// Largest debug file whose checksum is computed: about two seconds of reading.
const CHECKSUM_LIMIT: u64 = 2 << 30;

/// A debug file that belongs to a file, and what it says about itself.
#[derive(Debug)]
pub(super) struct DebugFile {
    pub(super) file: File,
    pub(super) facts: Facts,
    /// Whether it may name other files to open: it comes from the host.
    pub(super) trusted: bool,
}

/// Searches the target's root, then the host, for the debug file of the file at `path`.
pub(super) fn find(
    path: &Path,
    facts: &Facts,
    target: Option<&Root>,
    host: Option<&Root>,
) -> Option<DebugFile> {
    let by_build_id = facts.build_id().map(build_id_path);
    let by_link = facts
        .debug_link()
        .map(|(name, _)| link_paths(path, name))
        .unwrap_or_default();
    [(target, false), (host, true)]
        .into_iter()
        .filter_map(|(root, trusted)| Some((root?, trusted)))
        .find_map(|(root, trusted)| {
            by_build_id.iter().chain(&by_link).find_map(|path| {
                let file = root.open_file(path).ok()?;
                let debug = Facts::read(&file).ok()?;
                belongs(&file, &debug, facts).then_some(DebugFile {
                    file,
                    facts: debug,
                    trusted,
                })
            })
        })
}

/// `usr/lib/debug/.build-id/xx/yyyy.debug`.
fn build_id_path(id: &[u8]) -> PathBuf {
    let mut hex = id.iter().map(|byte| format!("{byte:02x}"));
    let first = hex.next().unwrap_or_default();
    let rest: Vec<String> = hex.collect();
    let rest = rest.concat();
    PathBuf::from(format!("{DEBUG_DIRECTORY}/.build-id/{first}/{rest}.debug"))
}

/// Beside the file, in `.debug` beside it, and under the debug directory.
fn link_paths(path: &Path, name: &[u8]) -> Vec<PathBuf> {
    let name = OsStr::from_bytes(name);
    let directory = path.parent().and_then(|path| path.strip_prefix("/").ok());
    // A name with a folder in it is not a debug link's.
    let (Some(directory), Some(true)) = (
        directory,
        Path::new(name).file_name().map(|file| file == name),
    ) else {
        return Vec::new();
    };
    vec![
        directory.join(name),
        directory.join(".debug").join(name),
        Path::new(DEBUG_DIRECTORY).join(directory).join(name),
    ]
}

/// Whether the debug file was made from the same build: by build id where there is one, else by checksum.
fn belongs(file: &File, debug: &Facts, facts: &Facts) -> bool {
    match (facts.build_id(), debug.build_id(), facts.debug_link()) {
        (Some(id), Some(debug_id), _) => id == debug_id,
        (_, _, Some((_, checksum))) => crc32(file).is_ok_and(|crc| crc == checksum),
        _ => false,
    }
}

/// The checksum of a whole file, wherever its position is.
fn crc32(file: &File) -> io::Result<u32> {
    if file.metadata()?.len() > CHECKSUM_LIMIT {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
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
    use crate::elf::object_file::{DebugLink, ObjectFacts};

    fn facts(build_id: Option<&[u8]>, link: Option<(&str, u32)>) -> Facts {
        Facts {
            object: ObjectFacts {
                build_id: build_id.map(<[u8]>::to_vec),
                debug_link: link.map(|(name, crc)| DebugLink {
                    name: name.into(),
                    crc,
                }),
                ..ObjectFacts::default()
            },
            links: link.is_some(),
        }
    }

    /// Make sure that a debug file is taken by its build id or its checksum, and never when they differ.
    #[test]
    fn candidates() {
        let directory = std::env::temp_dir().join(format!("memtrace-debug-{}", std::process::id()));
        let beside = directory.join("opt/.debug");
        fs::create_dir_all(&beside).unwrap();
        fs::copy("/proc/self/exe", beside.join("x.debug")).unwrap();
        let debug = File::open(beside.join("x.debug")).unwrap();
        let crc = crc32(&debug).unwrap();
        let read = Facts::read(&debug).unwrap();
        let id = read.build_id().unwrap();

        let root = Root::open(&directory).unwrap();
        let found = |facts: &Facts| find(Path::new("/opt/x"), facts, Some(&root), None).is_some();
        assert!(found(&facts(None, Some(("x.debug", crc)))));
        assert!(!found(&facts(None, Some(("x.debug", crc ^ 1)))));
        assert!(!found(&facts(None, Some(("../.debug/x.debug", crc)))));
        assert!(found(&facts(Some(id), Some(("x.debug", 0)))));
        assert!(!found(&facts(Some(&[7; 20]), Some(("x.debug", crc)))));
        assert!(!found(&facts(Some(id), None)));

        let by_id = directory.join(build_id_path(id));
        fs::create_dir_all(by_id.parent().unwrap()).unwrap();
        fs::rename(beside.join("x.debug"), &by_id).unwrap();
        assert!(found(&facts(Some(id), None)));
        let foreign = directory.join(build_id_path(&[7; 20]));
        fs::create_dir_all(foreign.parent().unwrap()).unwrap();
        fs::copy(by_id, foreign).unwrap();
        assert!(!found(&facts(Some(&[7; 20]), None)));
        fs::remove_dir_all(directory).unwrap();
    }

    /// Make sure that the path is the one that distributions use.
    #[test]
    fn path_by_build_id() {
        assert_eq!(
            build_id_path(&[0xab, 0x01, 0xff]),
            Path::new("usr/lib/debug/.build-id/ab/01ff.debug")
        );
    }
}
