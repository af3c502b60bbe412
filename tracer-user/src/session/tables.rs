//! Makes objects' unwind tables, or takes them from the cache on disk.
//!
//! A table is kept under the object's build id and the digest of its description: of every byte that the table is
//! made from. The build id alone would not do, since the target chooses it: two files can claim the same one, and the
//! stacks of the second would be walked by the rows of the first. Nor is the file's place and time of change looked
//! at: device numbers are given out anew after a reboot or an unmount, and a file system in user space says about its
//! files what it likes. The digest costs a tenth of what making the table costs, and cannot be
//! made to match. Objects without a build id are mostly being worked on; their tables would fill the cache.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, available_parallelism},
};

use object::{
    pod::{bytes_of_slice, bytes_of_slice_mut},
    read::ReadCache,
};
use tracer_common::wire::CodeKind;

use crate::{
    elf::{
        object_file::{ElfObject, Segment},
        unwind::{Description, Digest, Table, UnwindError, stored},
    },
    files::cache::Folder,
};

/// Bytes that the cache takes on disk, at most.
const MAX_CACHE_BYTES: u64 = 512 << 20;

/// What an object's file says about unwinding.
#[derive(Debug, PartialEq)]
pub(super) enum Made {
    Table {
        table: Table,
        segments: Vec<Segment>,
    },
    /// There is no table; its code is unwound in this way.
    Without(CodeKind),
}

/// Where tables come from.
#[derive(Debug, Default)]
pub(super) struct TableSource {
    cache: Option<Folder>,
    stored: AtomicBool,
    /// Why a table could not be kept, the first time.
    failure: OnceLock<String>,
}

impl TableSource {
    /// With a cache in a folder, unless that is not safe.
    pub(super) fn with_cache(folder: &Path) -> Self {
        let source = Self::default();
        match Folder::open(folder) {
            Ok(folder) => Self {
                cache: Some(folder),
                ..source
            },
            Err(error) => {
                source.fail(&error);
                source
            }
        }
    }

    /// Makes the tables of several files, on all cores.
    pub(super) fn make_all(&self, files: &[File]) -> Vec<Made> {
        let made: Vec<OnceLock<Made>> = files.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let (Some(file), Some(made)) = (files.get(index), made.get(index)) else {
                    return;
                };
                made.get_or_init(|| self.make(file));
            }
        };
        let cores = available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 1..cores.min(files.len()) {
                scope.spawn(work);
            }
            work();
        });
        made.into_iter()
            .map(|made| {
                made.into_inner()
                    .unwrap_or(Made::Without(CodeKind::Unknown))
            })
            .collect()
    }

    /// Makes the table of one file.
    pub(super) fn make(&self, file: &File) -> Made {
        let cache = ReadCache::new(file);
        let Ok(object) = ElfObject::parse(&cache) else {
            return Made::Without(CodeKind::FramePointer);
        };
        let facts = object.facts();
        let description = match Description::locate(&object, &facts.segments) {
            Ok(description) => description,
            Err(UnwindError::NoFrames) => return Made::Without(CodeKind::FramePointer),
            Err(UnwindError::NoCode) => return Made::Without(CodeKind::Unknown),
        };
        let table = match (&self.cache, facts.build_id.as_deref()) {
            (Some(folder), Some(build_id)) if !build_id.is_empty() => {
                self.cached(folder, build_id, &description)
            }
            _ => description.convert(),
        };
        Made::Table {
            table,
            segments: facts.segments,
        }
    }

    fn cached(&self, folder: &Folder, build_id: &[u8], description: &Description<'_>) -> Table {
        let digest = description.digest();
        let name = file_name(build_id, &digest);
        if let Some(table) = load(folder, &name, &digest, description) {
            return table;
        }
        let table = description.convert();
        match store(folder, &name, &digest, &table) {
            Ok(()) => self.stored.store(true, Ordering::Relaxed),
            Err(error) => self.fail(&error),
        }
        table
    }

    /// Keeps the cache within its size. Returns why tables are not cached, once.
    pub(super) fn tidy(&mut self) -> Option<String> {
        if std::mem::take(self.stored.get_mut())
            && let Some(folder) = &self.cache
            && let Err(error) = folder.shrink(MAX_CACHE_BYTES)
        {
            self.fail(&error);
        }
        self.failure.take()
    }

    fn fail(&self, error: &dyn std::error::Error) {
        self.failure
            .get_or_init(|| format!("unwind tables are not cached: {error}"));
    }
}

/// A build id can be of any length; the digest alone tells tables apart.
fn file_name(build_id: &[u8], digest: &Digest) -> String {
    let mut name = String::new();
    let shown = build_id.iter().take(20);
    for byte in shown {
        let _never = write!(name, "{byte:02x}");
    }
    name.push('-');
    for byte in digest.iter().take(8) {
        let _never = write!(name, "{byte:02x}");
    }
    name
}

fn load(
    folder: &Folder,
    name: &str,
    digest: &Digest,
    description: &Description<'_>,
) -> Option<Table> {
    let mut file = folder.read(name, stored::MAX_STORED_BYTES).ok()?;
    let mut header = [0; stored::HEADER_WORDS];
    file.read_exact(bytes_of_slice_mut(&mut header)).ok()?;
    let count = stored::words_after(&header, digest)?;
    let bytes = (size_of_val(&header) + count * size_of::<u64>()) as u64;
    if file.metadata().ok()?.len() != bytes {
        return None;
    }
    let mut words = vec![0; count];
    file.read_exact(bytes_of_slice_mut(&mut words)).ok()?;
    stored::accept(&header, words, description)
}

fn store(folder: &Folder, name: &str, digest: &Digest, table: &Table) -> std::io::Result<()> {
    let mut new = folder.create(name)?;
    let file = new.file();
    file.write_all(bytes_of_slice(&stored::header(table, digest)))?;
    file.write_all(bytes_of_slice(&table.words))?;
    new.keep()?;
    Ok(())
}

#[cfg(test)]
mod tests;
