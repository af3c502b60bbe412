//! A running process, held so that its id cannot come to mean another one, and checked to be traceable.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use object::read::ReadCache;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    error::TargetError,
    maps::{self, Mapping},
    stat::{Stat, Status},
};
use crate::elf::object_file::{ElfError, ElfObject, ObjectFacts};

/// Largest small file under `/proc/PID` read, in bytes.
const MAX_PROC_BYTES: u64 = 1024 * 1024;

/// A process that can be traced.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    comm: String,
    exe: PathBuf,
    /// Its root as memtrace sees it: `/` for a process in a mount namespace of its own.
    root: PathBuf,
    exe_facts: ObjectFacts,
    namespaced_pid: u32,
}

impl Process {
    /// Takes hold of a process.
    ///
    /// # Errors
    ///
    /// When there is no such process, or it is one that cannot be traced; the error says which and why.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        if pid == std::process::id() {
            return Err(TargetError::Own { pid });
        }
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or(TargetError::NoSuchProcess { pid })?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Err(TargetError::NoSuchProcess { pid }),
            // The id of a thread: EINVAL, since Linux 6.15 ENOENT.
            Err(errno) => {
                let status = status(pid)?;
                return Err(if status.tgid == pid {
                    TargetError::proc(pid, "its pidfd", errno.into())
                } else {
                    TargetError::Thread {
                        tid: pid,
                        tgid: status.tgid,
                    }
                });
            }
        };
        let stat = stat(pid)?;
        let status = status(pid)?;
        let comm = stat.comm.clone();
        if stat.kernel_thread {
            return Err(TargetError::KernelThread { pid, comm });
        }
        if stat.is_dead() {
            return Err(if status.threads > 1 {
                TargetError::MainThreadEnded { pid, comm }
            } else {
                TargetError::Zombie {
                    pid,
                    comm,
                    parent: stat.parent,
                }
            });
        }
        let exe = std::fs::read_link(format!("/proc/{pid}/exe"))
            .map_err(|error| TargetError::proc(pid, "the path of its executable", error))?;
        let root = std::fs::read_link(format!("/proc/{pid}/root"))
            .map_err(|error| TargetError::proc(pid, "the path of its root", error))?;
        let exe = inside(&root, &without_deleted_mark(exe));
        let exe_facts = executable(pid, &comm, &exe)?;
        let process = Self {
            pid,
            pidfd,
            comm,
            exe,
            root,
            exe_facts,
            namespaced_pid: status.namespaced_pid,
        };
        // Everything above was read by the id; as long as the process lives, the id meant this one.
        if process.is_alive() {
            Ok(process)
        } else {
            Err(TargetError::NoSuchProcess { pid })
        }
    }

    /// The process's id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// A file descriptor that is readable once the process has exited.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The process's name when it was opened.
    #[must_use]
    pub fn comm(&self) -> &str {
        &self.comm
    }

    /// Path of its executable in its own root, when it was opened.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// What its executable says about itself.
    #[must_use]
    pub const fn exe_facts(&self) -> &ObjectFacts {
        &self.exe_facts
    }

    /// Its id in its own pid namespace.
    #[must_use]
    pub const fn namespaced_pid(&self) -> u32 {
        self.namespaced_pid
    }

    /// The folder through which its root is reached.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// Whether the process has not exited yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// State, faults, CPU time and start.
    ///
    /// # Errors
    ///
    /// When the process has exited.
    pub fn stat(&self) -> Result<Stat, TargetError> {
        self.still_the_same(stat(self.pid))
    }

    /// Threads and resident memory.
    ///
    /// # Errors
    ///
    /// When the process has exited.
    pub fn status(&self) -> Result<Status, TargetError> {
        self.still_the_same(status(self.pid))
    }

    /// The mappings of its address space, by rising address, with paths as the process sees them.
    ///
    /// # Errors
    ///
    /// When the process has exited, or memtrace may not look at it.
    pub fn mappings(&self) -> Result<Vec<Mapping>, TargetError> {
        let mappings = maps::read(self.pid)
            .map_err(|error| TargetError::proc(self.pid, "the list of its mappings", error));
        let mut mappings = self.still_the_same(mappings)?;
        for mapping in &mut mappings {
            mapping.path = inside(&self.root, Path::new(&mapping.path)).into_os_string();
        }
        Ok(mappings)
    }

    /// The auxiliary vector that the kernel gave it at its start, in pairs of a tag and a value.
    pub(super) fn auxv(&self) -> Result<Vec<(u64, u64)>, TargetError> {
        let bytes = read_proc(self.pid, "auxv", "its auxiliary vector")?;
        let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        Ok(words
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect())
    }

    /// Its memory, to be read at addresses.
    pub(super) fn memory(&self) -> Result<Memory, TargetError> {
        File::open(format!("/proc/{}/mem", self.pid))
            .map(Memory)
            .map_err(|error| TargetError::proc(self.pid, "its memory", error))
    }

    /// What was read by the id counts only if the id still means this process.
    fn still_the_same<T>(&self, read: Result<T, TargetError>) -> Result<T, TargetError> {
        if self.is_alive() {
            read
        } else {
            Err(TargetError::NoSuchProcess { pid: self.pid })
        }
    }
}

/// Memory of a process, of which every address may be unreadable.
#[derive(Debug)]
pub(super) struct Memory(File);

impl Memory {
    /// Reads the 8-byte words at an address.
    pub(super) fn words<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        for (index, value) in words.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            let address = address.checked_add(8 * index as u64)?;
            self.0.read_exact_at(&mut bytes, address).ok()?;
            *value = u64::from_ne_bytes(bytes);
        }
        Some(words)
    }
}

/// A path as a process with this root sees it. The kernel tells paths as the reader sees them.
fn inside(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(root) {
        Ok(below) if path.is_absolute() => Path::new("/").join(below),
        _ => path.to_owned(),
    }
}

/// The kernel marks the path of a deleted or replaced file at its end.
fn without_deleted_mark(path: PathBuf) -> PathBuf {
    path.as_os_str()
        .as_bytes()
        .strip_suffix(b" (deleted)")
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .unwrap_or(path)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

fn executable(pid: u32, comm: &str, exe: &Path) -> Result<ObjectFacts, TargetError> {
    let file = File::open(format!("/proc/{pid}/exe"))
        .map_err(|error| TargetError::proc(pid, "its executable", error))?;
    let cache = ReadCache::new(file);
    match ElfObject::parse(&cache) {
        Ok(object) => Ok(object.facts()),
        Err(ElfError::Class32) => Err(TargetError::Bits32 {
            pid,
            comm: comm.to_owned(),
        }),
        Err(error) => Err(TargetError::Executable {
            pid,
            comm: comm.to_owned(),
            exe: exe.to_string_lossy().into_owned(),
            problem: error.to_string(),
        }),
    }
}

fn stat(pid: u32) -> Result<Stat, TargetError> {
    let bytes = read_proc(pid, "stat", "its state")?;
    Stat::parse(&bytes).ok_or_else(|| unknown_form(pid, "its state"))
}

fn status(pid: u32) -> Result<Status, TargetError> {
    let bytes = read_proc(pid, "status", "its status")?;
    Status::parse(&bytes).ok_or_else(|| unknown_form(pid, "its status"))
}

fn unknown_form(pid: u32, what: &'static str) -> TargetError {
    let source = io::Error::other("not in the known form");
    TargetError::Proc {
        pid,
        what,
        cause: source,
    }
}

fn read_proc(pid: u32, name: &str, what: &'static str) -> Result<Vec<u8>, TargetError> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{name}"))
        .and_then(|file| file.take(MAX_PROC_BYTES).read_to_end(&mut bytes))
        .map_err(|error| TargetError::proc(pid, what, error))?;
    Ok(bytes)
}
