//! A folder of our own on disk for what is costly to make or to fetch.
//!
//! Root reads what lies in it, so nobody else may have written it: every folder on the way belongs to root or to the
//! user that memtrace runs as, and no other may write there (but for folders like `/tmp`, whose entries only their
//! owners may rename). Files are opened without following links, and count only if they are regular, our own and
//! nobody else's to write. New ones are written aside and renamed, so that a reader never sees half a file.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW,
        UTIME_OMIT, fstat, futimens, mkdirat, openat, renameat, statat, unlinkat,
    },
    io::Errno,
    process::{geteuid, getpid},
};

/// The mode bits that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// The mode bit of folders whose entries only their owners may rename.
const STICKY: u32 = 0o1000;
/// What names of files that are being written begin with.
const UNFINISHED: &str = ".new-";
/// Files in a folder that are looked at, at most.
const MAX_FILES: usize = 100_000;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be opened or made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder, or one on the way.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another user could have put something into it.
    #[error("{} is not safe: it belongs to user {uid} with mode {mode:o}; others than root must not write there", path.display())]
    Unsafe {
        /// The folder, or one on the way.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
}

/// A folder that only we and root can write.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder, and makes it where it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or others could write in it or in a folder on the way.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let io_error = |path: &Path, source: io::Error| FolderError::Io {
            path: path.to_owned(),
            source,
        };
        // Links on the way are resolved first, and where they lead is what is checked.
        let path = resolved(path).map_err(|source| io_error(path, source))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut walked = PathBuf::from("/");
        let mut folder = openat(CWD, "/", flags, Mode::empty())
            .map_err(|errno| io_error(&walked, errno.into()))?;
        check(&folder, &walked, false)?;
        let mut names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let mut next = names.next();
        while let Some(name) = next {
            next = names.next();
            walked.push(name);
            let open = || openat(&folder, name, flags, Mode::empty());
            let opened = match open() {
                Err(Errno::NOENT) => match mkdirat(&folder, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => open(),
                    Err(errno) => Err(errno),
                },
                result => result,
            };
            folder = opened.map_err(|errno| io_error(&walked, errno.into()))?;
            check(&folder, &walked, next.is_none())?;
        }
        Ok(Self(folder))
    }

    /// Opens a file of at most `max_bytes` bytes, and marks it as used.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not one that we have written.
    pub fn read(&self, name: &str, max_bytes: u64) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if !is_ours(&stat) || !u64::try_from(stat.st_size).is_ok_and(|size| size <= max_bytes) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Told in words, since many file systems are mounted so that reading leaves no trace.
        let now = |nanoseconds| Timespec {
            tv_sec: 0,
            tv_nsec: nanoseconds,
        };
        let used = Timestamps {
            last_access: now(UTIME_NOW),
            last_modification: now(UTIME_OMIT),
        };
        let _on_read_only_disks = futimens(&file, &used);
        Ok(file.into())
    }

    /// Begins a file that will have a name once it is whole.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn create(&self, name: &str) -> io::Result<NewFile<'_>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!("{UNFINISHED}{}-{number}", getpid().as_raw_nonzero());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let open = || openat(&self.0, &unfinished, flags, Mode::RUSR | Mode::WUSR);
        let file = match open() {
            // Of a process that had this id and was killed.
            Err(Errno::EXIST) => {
                unlinkat(&self.0, &unfinished, AtFlags::empty())?;
                open()
            }
            result => result,
        }?;
        Ok(NewFile {
            folder: self,
            file: file.into(),
            name: name.to_owned(),
            unfinished: Some(unfinished),
        })
    }

    /// Removes files, those first that were not used for longest, until they take at most `max_bytes` together.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn shrink(&self, max_bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.0)?.take(MAX_FILES) {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(stat) = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let bytes = u64::try_from(stat.st_size).unwrap_or(0);
                files.push((stat.st_atime, stat.st_atime_nsec, bytes, name.to_owned()));
            }
        }
        let mut total: u64 = files.iter().map(|(_, _, bytes, _)| bytes).sum();
        files.sort_unstable();
        for (_, _, bytes, name) in files {
            if total <= max_bytes {
                break;
            }
            unlinkat(&self.0, &name, AtFlags::empty())?;
            total -= bytes;
        }
        Ok(())
    }
}

/// A file without its name yet. It is gone unless [`NewFile::keep`] is called.
#[derive(Debug)]
pub struct NewFile<'a> {
    folder: &'a Folder,
    file: File,
    name: String,
    unfinished: Option<String>,
}

impl NewFile<'_> {
    /// The file, to write and to read.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives it its name, in place of a file that has it.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed.
    pub fn keep(mut self) -> io::Result<File> {
        if let Some(unfinished) = &self.unfinished {
            renameat(&self.folder.0, unfinished, &self.folder.0, &self.name)?;
            self.unfinished = None;
        }
        self.file.try_clone()
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _gone = unlinkat(&self.folder.0, unfinished, AtFlags::empty());
        }
    }
}

/// The path without links, of which the last parts need not exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut existing = path.as_path();
    loop {
        match existing.canonicalize() {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        missing.push(name);
        existing = parent;
    }
}

/// Whether a folder is safe to pass through, or, as the last one, to keep files in.
fn check(folder: &OwnedFd, path: &Path, last: bool) -> Result<(), FolderError> {
    let stat = fstat(folder).map_err(|errno| FolderError::Io {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let trusted = [0, geteuid().as_raw()].contains(&stat.st_uid);
    let closed = stat.st_mode & OTHERS_WRITE == 0 || (!last && stat.st_mode & STICKY != 0);
    if trusted && closed {
        return Ok(());
    }
    Err(FolderError::Unsafe {
        path: path.to_owned(),
        uid: stat.st_uid,
        mode: stat.st_mode & 0o7777,
    })
}

fn is_ours(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == geteuid().as_raw()
        && stat.st_mode & OTHERS_WRITE == 0
        && stat.st_nlink == 1
}

#[cfg(test)]
mod tests;
