//! Finds the separate debug file of a stripped object, by build id and by the name that the object gives.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use object::read::ReadCache;
use rustix::fs::ResolveFlags;

use super::objects::open_in_root;
use crate::elf::object_file::{DebugLink, ElfObject, ObjectFacts};

const DEBUG_ROOT: &str = "/usr/lib/debug";

/// Largest debug file whose checksum is computed, in bytes.
const MAX_CHECKED_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// A debug file that belongs to an object.
#[derive(Debug)]
pub struct DebugFile {
    /// Its path below the root that it was found in.
    pub path: PathBuf,
    /// The root that it was found in.
    pub root: PathBuf,
    /// The file, opened.
    pub file: File,
}

/// Finds the debug file of an object that lies at `object_path`, in the first of the roots that has one.
///
/// A file counts when its build id is the object's, or, where the object has none, when its checksum is the one
/// that the object gives. Links are followed as a process with that root would follow them.
#[must_use]
pub fn find_debug_file(
    facts: &ObjectFacts,
    object_path: &Path,
    roots: &[&Path],
) -> Option<DebugFile> {
    let candidates = candidates(facts, object_path);
    roots.iter().find_map(|root| {
        candidates.iter().find_map(|(path, link)| {
            let file = open_in_root(root, path, ResolveFlags::empty()).ok()?;
            belongs(&file, facts, *link).then(|| DebugFile {
                path: path.clone(),
                root: root.to_path_buf(),
                file,
            })
        })
    })
}

/// The paths at which a debug file may lie, each with the link that led there.
fn candidates<'facts>(
    facts: &'facts ObjectFacts,
    object_path: &Path,
) -> Vec<(PathBuf, Option<&'facts DebugLink>)> {
    let mut paths = Vec::new();
    if let Some([first, rest @ ..]) = facts.build_id.as_deref()
        && !rest.is_empty()
    {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>()
        };
        let name = format!("{first:02x}/{}.debug", hex(rest).concat());
        paths.push((Path::new(DEBUG_ROOT).join(".build-id").join(name), None));
    }
    if let Some(link) = &facts.debug_link
        && let Ok(name) = str::from_utf8(&link.name)
        && !name.contains('/')
        && let Some(folder) = object_path.parent()
    {
        let below_debug = Path::new(DEBUG_ROOT).join(folder.strip_prefix("/").unwrap_or(folder));
        for folder in [folder.to_path_buf(), folder.join(".debug"), below_debug] {
            let path = folder.join(name);
            if path != object_path {
                paths.push((path, Some(link)));
            }
        }
    }
    paths
}

fn belongs(file: &File, facts: &ObjectFacts, link: Option<&DebugLink>) -> bool {
    let Ok(read) = file.try_clone() else {
        return false;
    };
    let cache = ReadCache::new(read);
    let Ok(object) = ElfObject::parse(&cache) else {
        return false;
    };
    match (&facts.build_id, link) {
        (Some(build_id), _) => object.facts().build_id.as_ref() == Some(build_id),
        (None, Some(link)) => checksum(file).is_ok_and(|crc| crc == link.crc),
        (None, None) => false,
    }
}

fn checksum(file: &File) -> io::Result<u32> {
    use std::io::{Seek, SeekFrom};

    let mut file = file;
    if file.metadata()?.len() > MAX_CHECKED_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
