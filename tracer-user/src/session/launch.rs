//! Starting the target so that not one of its allocations is missed.
//!
//! The command is held at its exec, then at each system call of the dynamic loader, by ptrace. An allocator is
//! probed as soon as the loader has mapped it, before any code of it can have run. The first system call from
//! other code than the loader's lets the command go: from then on it runs free.
#![expect(
    unsafe_code,
    reason = "the child must ask to be traced between fork and exec"
)]

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::target::{Process, loader::loader_code};

/// A command that was started.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    pid: Pid,
    /// Set while ptrace holds it.
    held: bool,
    /// Its status, where it ended while it was held.
    ended: Option<ExitStatus>,
}

impl Launched {
    /// Starts a command and holds it at the first instruction of its image.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(command: &[OsString]) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command given")?;
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| ptrace::traceme().map_err(io::Error::from));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        match waitpid(pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => bail!("{} did not start: {other:?}", program.to_string_lossy()),
        }
        ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD)?;
        Ok(Self {
            child,
            pid,
            held: true,
            ended: None,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it run through its dynamic loader. `look` is called at each change of its executable mappings, and
    /// tells whether the loader has more to do that needs watching.
    ///
    /// # Errors
    ///
    /// When ptrace or `look` fails.
    pub fn through_loader(
        &mut self,
        process: &Process,
        mut look: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let Some(loader) = loader_code(process)? else {
            look()?;
            return self.release(None);
        };
        let mut more = look()?;
        while more {
            ptrace::syscall(self.pid, None)?;
            match self.next_stop()? {
                Stop::Syscall => {}
                Stop::Signal(signal) => return self.release(Some(signal)),
                Stop::Ended => return Ok(()),
            }
            let regs = ptrace::getregs(self.pid)?;
            if !loader.contains(&regs.rip) {
                break;
            }
            let maps_code = regs.orig_rax == libc::SYS_mmap.cast_unsigned()
                && regs.rdx & u64::from(libc::PROT_EXEC.cast_unsigned()) != 0;
            // At the entry the kernel shows -ENOSYS as the result.
            let at_exit = regs.rax.cast_signed() != -i64::from(libc::ENOSYS);
            if maps_code && at_exit {
                more = look()?;
            }
        }
        self.release(None)
    }

    fn next_stop(&mut self) -> Result<Stop> {
        Ok(match waitpid(self.pid, None)? {
            WaitStatus::PtraceSyscall(_) => Stop::Syscall,
            WaitStatus::Stopped(_, signal) => Stop::Signal(signal),
            WaitStatus::Exited(_, code) => {
                self.end(ExitStatus::from_raw((code & 0xff) << 8));
                Stop::Ended
            }
            WaitStatus::Signaled(_, signal, _) => {
                self.end(ExitStatus::from_raw(signal as i32));
                Stop::Ended
            }
            other => bail!("unexpected state of the command: {other:?}"),
        })
    }

    fn end(&mut self, status: ExitStatus) {
        self.held = false;
        self.ended = Some(status);
    }

    /// Lets it run free.
    fn release(&mut self, signal: Option<Signal>) -> Result<()> {
        ptrace::detach(self.pid, signal)?;
        self.held = false;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        match self.ended {
            Some(status) => Ok(status),
            None => self.child.wait(),
        }
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.ended.is_none() && matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may have ended just now.
            let _gone = nix::sys::signal::kill(self.pid, signal);
        }
    }
}

impl Drop for Launched {
    /// A command that never ran free was not started, as far as its user can tell.
    fn drop(&mut self) {
        if self.held {
            self.signal(Signal::SIGKILL);
            let _status = self.child.wait();
        }
    }
}

enum Stop {
    Syscall,
    Signal(Signal),
    Ended,
}
