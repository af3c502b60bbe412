//! What code was mapped where, over time.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use rustix::process::{Resource, getrlimit};

use super::{CodeAddress, file::ModuleFile, separate::DebugFiles, vdso};
use crate::files::root::{Root, open_regular};

/// Files kept open at most.
const MAX_KEPT_FILES: usize = 4_096;

/// Pieces of address space remembered at most; a process has at most 65,530 mappings unless told otherwise.
const MAX_PIECES: usize = 1 << 17;

/// The name of executable memory without a file and without a name of its own.
const ANONYMOUS: &str = "[anon]";

/// An executable mapping, as a line of `/proc/PID/maps` says it.
#[derive(Clone, Copy, Debug)]
pub struct CodeMapping<'a> {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset of `start` in the file, in bytes.
    pub file_offset: u64,
    /// Inode number; 0 where no file is mapped.
    pub inode: u64,
    /// Path in the target's root, a name in brackets, or empty.
    pub path: &'a str,
    /// A path through which the mapped file can be opened: `/proc/PID/map_files/…`.
    pub open_path: &'a Path,
}

/// A piece of address space and the file whose code is there.
#[derive(Clone, Debug)]
struct Piece {
    end: u64,
    file_offset: u64,
    inode: u64,
    file: Arc<ModuleFile>,
}

/// What code was mapped where. Newer mappings cover older ones; what they leave uncovered stays known, since stacks
/// outlive the libraries in them.
#[derive(Debug)]
pub struct Modules {
    pieces: BTreeMap<u64, Piece>,
    files: HashMap<(u64, u64), Arc<ModuleFile>>,
    vdso: Option<Arc<ModuleFile>>,
    kept: usize,
    max_kept: usize,
    pub(super) target_root: Option<Root>,
    pub(super) host_root: Option<Root>,
    pub(super) debug_files: DebugFiles,
}

impl Modules {
    /// Nothing mapped yet, in a process whose root is at `root` (`/proc/PID/root`). The root is kept open; where that
    /// fails, debug files are searched on the host alone.
    ///
    /// At most 4,096 files, and at most half of what `RLIMIT_NOFILE` allows, will be kept open.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        Self {
            pieces: BTreeMap::new(),
            files: HashMap::new(),
            vdso: None,
            kept: 0,
            max_kept: usize::try_from(allowed)
                .map_or(MAX_KEPT_FILES, |max| max.min(MAX_KEPT_FILES)),
            target_root: Root::open(root).ok(),
            host_root: Root::open(Path::new("/")).ok(),
            debug_files: DebugFiles::default(),
        }
    }

    /// Lowers the number of files that are kept open.
    #[cfg(test)]
    pub(super) fn keep_at_most(&mut self, files: usize) {
        self.max_kept = files;
    }

    /// Adds a mapping that exists now. One that was added before costs nothing.
    pub fn add(&mut self, mapping: &CodeMapping<'_>) {
        let CodeMapping {
            start,
            end,
            file_offset,
            inode,
            ..
        } = *mapping;
        if start >= end || self.pieces.len() >= MAX_PIECES {
            return;
        }
        let name = readable(mapping);
        let known = self.pieces.get(&start).is_some_and(|piece| {
            (piece.end, piece.file_offset, piece.inode) == (end, file_offset, inode)
                && *piece.file.name == *name
        });
        if known {
            return;
        }
        let file = self.file(name, mapping);
        self.cover(start, end);
        let piece = Piece {
            end,
            file_offset,
            inode,
            file,
        };
        self.pieces.insert(start, piece);
    }

    /// Whether code is, or was, mapped at an address.
    #[must_use]
    pub fn is_code(&self, address: CodeAddress) -> bool {
        self.find(address.lookup()).is_some()
    }

    /// Whether the kernel lets signal handlers return to this address, as far as the code there tells: it asks for
    /// `rt_sigreturn`, in the words that every C library has.
    #[must_use]
    pub fn is_signal_return(&self, address: u64) -> bool {
        /// `mov $15, %rax; syscall`
        const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
        let mut code = [0; SIGNAL_RETURN.len()];
        self.find(address)
            .is_some_and(|(file, offset)| file.read_at(&mut code, offset) && code == SIGNAL_RETURN)
    }

    /// The file whose code is at an address, and the offset in it; the address itself where no file is mapped.
    pub(super) fn find(&self, address: u64) -> Option<(&Arc<ModuleFile>, u64)> {
        let (start, piece) = self.pieces.range(..=address).next_back()?;
        if address >= piece.end {
            return None;
        }
        let offset = if piece.file.facts.is_none() && piece.inode == 0 {
            address
        } else {
            piece.file_offset.wrapping_add(address - start)
        };
        Some((&piece.file, offset))
    }

    /// Cuts what is known about a range of addresses out of the pieces that overlap it.
    fn cover(&mut self, start: u64, end: u64) {
        let overlapping: Vec<u64> = self
            .pieces
            .range(..end)
            .rev()
            .take_while(|(_, piece)| piece.end > start)
            .map(|(start, _)| *start)
            .collect();
        for old_start in overlapping {
            let Some(old) = self.pieces.remove(&old_start) else {
                continue;
            };
            if old.end > end {
                let tail = Piece {
                    file_offset: old.file_offset.wrapping_add(end - old_start),
                    ..old.clone()
                };
                self.pieces.insert(end, tail);
            }
            if old_start < start {
                self.pieces.insert(old_start, Piece { end: start, ..old });
            }
        }
    }

    fn file(&mut self, name: &str, mapping: &CodeMapping<'_>) -> Arc<ModuleFile> {
        if name == vdso::NAME {
            return Arc::clone(self.vdso.get_or_insert_with(|| {
                Arc::new(match vdso::image() {
                    Ok(image) => ModuleFile::new(name, image, Path::new(""), true),
                    Err(_) => ModuleFile::nameless(name),
                })
            }));
        }
        if mapping.inode == 0 {
            return Arc::new(ModuleFile::nameless(name));
        }
        let Ok(opened) = open_regular(mapping.open_path) else {
            return Arc::new(ModuleFile::nameless(name));
        };
        let Ok(metadata) = opened.metadata() else {
            return Arc::new(ModuleFile::nameless(name));
        };
        let identity = (metadata.dev(), metadata.ino());
        if let Some(file) = self.files.get(&identity) {
            return Arc::clone(file);
        }
        let keep = self.kept < self.max_kept;
        let file = Arc::new(ModuleFile::new(name, opened, mapping.open_path, keep));
        self.kept += usize::from(file.is_kept());
        self.files.insert(identity, Arc::clone(&file));
        file
    }
}

/// The mapping's name without the kernel's mark for a file that has no name any more.
fn readable<'a>(mapping: &CodeMapping<'a>) -> &'a str {
    match mapping.path {
        "" => ANONYMOUS,
        path if mapping.inode != 0 => path.strip_suffix(" (deleted)").unwrap_or(path),
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping without a file at 0x1000 times `pages`, whose name tells it apart.
    fn add(modules: &mut Modules, pages: std::ops::Range<u64>, path: &str) {
        modules.add(&CodeMapping {
            start: pages.start << 12,
            end: pages.end << 12,
            file_offset: 0x10_0000,
            inode: 9,
            path,
            open_path: Path::new("/nonexistent"),
        });
    }

    fn at(modules: &Modules, page: u64) -> Option<(String, u64)> {
        modules
            .find(page << 12)
            .map(|(file, offset)| (file.name.to_string(), offset))
    }

    /// Make sure that the newest mapping of an address names it, and that what it does not cover stays known.
    #[test]
    fn newest_wins() {
        let mut modules = Modules::new(Path::new("/"));
        add(&mut modules, 10..20, "/old");
        add(&mut modules, 30..40, "/other");
        add(&mut modules, 14..16, "/new");
        add(&mut modules, 35..50, "/late");
        let known = |name: &str, pages: u64| Some((name.to_owned(), 0x10_0000 + (pages << 12)));
        assert_eq!(at(&modules, 9), None);
        assert_eq!(at(&modules, 13), known("/old", 3));
        assert_eq!(at(&modules, 14), known("/new", 0));
        assert_eq!(at(&modules, 16), known("/old", 6));
        assert_eq!(at(&modules, 20), None);
        assert_eq!(at(&modules, 34), known("/other", 4));
        assert_eq!(at(&modules, 35), known("/late", 0));
        add(&mut modules, 0..100, "/all");
        assert_eq!(at(&modules, 14), known("/all", 14));
        assert_eq!(modules.pieces.len(), 1);
    }

    /// Make sure that adding what is known changes nothing, and that an unusable mapping is passed over.
    #[test]
    fn again() {
        let mut modules = Modules::new(Path::new("/"));
        add(&mut modules, 10..20, "/old");
        let before = modules.find(10 << 12).map(|(file, _)| Arc::clone(file));
        add(&mut modules, 10..20, "/old");
        add(&mut modules, 30..30, "/empty");
        let after = modules.find(10 << 12).map(|(file, _)| Arc::clone(file));
        assert!(Arc::ptr_eq(&before.unwrap(), &after.unwrap()));
        assert_eq!(modules.pieces.len(), 1);
    }

    /// Make sure that the kernel's mark for a deleted file is not taken for a part of its name.
    #[test]
    fn deleted() {
        let mut modules = Modules::new(Path::new("/"));
        add(&mut modules, 1..2, "/lib/x.so (deleted)");
        assert_eq!(at(&modules, 1), Some(("/lib/x.so".to_owned(), 0x10_0000)));
    }
}
