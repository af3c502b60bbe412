//! Why a process cannot be traced: what is wrong, with which process, and what to try.

use std::io;

use super::user::UserFunctionError;

/// Why a process cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No process has this id.
    #[error("no process {pid} (see `ps` for the ids of running processes)")]
    NoSuchProcess {
        /// The id asked for.
        pid: u32,
    },
    /// The id is that of a thread.
    #[error("{tid} is a thread of process {tgid}; trace the process: -p {tgid}")]
    Thread {
        /// The id asked for.
        tid: u32,
        /// The process that it belongs to.
        tgid: u32,
    },
    /// The process is part of the kernel.
    #[error(
        "process {pid} ({comm}) is a kernel thread, which has no memory of its own; choose a user process"
    )]
    KernelThread {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The process has exited and waits for its parent.
    #[error(
        "process {pid} ({comm}) is a zombie: it has exited and waits for its parent {parent}; nothing is left to trace"
    )]
    Zombie {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
        /// The process that must wait for it.
        parent: u32,
    },
    /// The main thread has ended, so `/proc` no longer shows the process.
    #[error(
        "process {pid} ({comm}) has ended its main thread while others run on; /proc does not show such a process, so it cannot be traced"
    )]
    MainThreadEnded {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The process runs 32-bit code.
    #[error("process {pid} ({comm}) is a 32-bit process; memtrace traces 64-bit x86 ones only")]
    Bits32 {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The process's executable is none that memtrace can read.
    #[error("process {pid} ({comm}): its executable {exe} is {problem}")]
    Executable {
        /// The id asked for.
        pid: u32,
        /// Its name.
        comm: String,
        /// Path of the executable.
        exe: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The process is memtrace.
    #[error("process {pid} is memtrace itself; choose another process")]
    Own {
        /// The id asked for.
        pid: u32,
    },
    /// The kernel does not let us look at the process.
    #[error(
        "process {pid}: {what} cannot be read: permission denied (it takes root's capabilities, CAP_SYS_PTRACE \
             above all, in the process's user namespace)"
    )]
    Denied {
        /// The process.
        pid: u32,
        /// What was to be read.
        what: &'static str,
    },
    /// Something under `/proc/PID` could not be read for another reason.
    #[error("process {pid}: {what} cannot be read: {cause}")]
    Proc {
        /// The process.
        pid: u32,
        /// What was to be read.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// No object of the process defines an allocator.
    #[error(
        "process {pid} ({comm}) has no allocator that memtrace knows: looked at {looked_at}; {cause}"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// The objects that were looked at.
        looked_at: String,
        /// The likely cause and what to try.
        cause: String,
    },
    /// A function that the user named is not there, or cannot be probed.
    #[error(transparent)]
    UserFunction(#[from] UserFunctionError),
}

impl TargetError {
    /// The error for something under `/proc/PID` that could not be read.
    pub(super) fn proc(pid: u32, what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoSuchProcess { pid },
            io::ErrorKind::PermissionDenied => Self::Denied { pid, what },
            _ if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Self::NoSuchProcess { pid }
            }
            _ => Self::Proc {
                pid,
                what,
                cause: source,
            },
        }
    }
}
