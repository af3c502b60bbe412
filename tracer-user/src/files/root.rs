//! Opening files that an untrusted process chose, without leaving its root and without opening anything but files.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// A directory that paths are resolved in, as if it were `/`.
#[derive(Debug)]
pub struct Root(File);

impl Root {
    /// Keeps hold of a root directory (`/proc/PID/root`).
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?.into()))
    }

    /// Opens a regular file; links lead nowhere outside.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not regular.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, ResolveFlags::empty())
    }

    /// Opens a regular file at a path without links.
    ///
    /// # Errors
    ///
    /// When there is none, it is not regular, or a link is on the way.
    pub fn open_without_links(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &Path, extra: ResolveFlags) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
        regular(openat2(&self.0, path, flags, Mode::empty(), resolve)?)
    }
}

/// Opens the regular file at a path of our own, like `/proc/PID/map_files/…`.
///
/// # Errors
///
/// When there is none, or it is not regular.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens for reading what is known by now to be a regular file: opening a device or a pipe has side effects. Does not
/// wait for the lease that a process may hold on it.
fn regular(path_only: impl AsFd) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(&path_only)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let path = format!("/proc/self/fd/{}", path_only.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(openat(CWD, path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Make sure that links stay inside the root, and that nothing but regular files is opened.
    #[test]
    fn confined() {
        let directory = std::env::temp_dir().join(format!("memtrace-root-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("etc")).unwrap();
        std::fs::write(directory.join("etc/inside"), "inside").unwrap();
        symlink("/etc/inside", directory.join("absolute")).unwrap();
        symlink("../../../../../../etc/passwd", directory.join("up")).unwrap();
        symlink("/dev/null", directory.join("device")).unwrap();
        let root = Root::open(&directory).unwrap();
        let read = |path: &str| io::read_to_string(root.open_file(Path::new(path))?);
        assert_eq!(read("/absolute").unwrap(), "inside");
        assert!(read("/up").is_err());
        assert!(read("/device").is_err());
        assert!(read("/etc").is_err());
        assert!(open_regular(Path::new("/dev/null")).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
