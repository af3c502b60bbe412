//! After the recording: the command's end, and a person who does not want to wait.

use std::{
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use nix::sys::signal::Signal;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use super::{Launched, readable::readable};
use crate::target::Process;

/// Exit code of a run that was interrupted while it made its report: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// How often an impatient person's run looks whether the probes are gone.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// While it lives, Ctrl-C ends memtrace as soon as the probes are gone.
#[derive(Debug)]
pub(super) struct Impatience {
    armed: Arc<AtomicBool>,
}

impl Impatience {
    pub(super) fn arm(detached: Arc<AtomicBool>) -> Self {
        let armed = Arc::new(AtomicBool::new(true));
        let watching = Arc::clone(&armed);
        std::thread::spawn(move || {
            let Ok(runtime) = runtime() else { return };
            runtime.block_on(async {
                let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
                    return;
                };
                if interrupt.recv().await.is_none() {
                    return;
                }
                while !detached.load(Ordering::Acquire) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                if watching.load(Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
            });
        });
        Self { armed }
    }
}

impl Drop for Impatience {
    fn drop(&mut self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Waits for a command's end; SIGINT and SIGTERM that reach memtrace meanwhile go on to it.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn forward_signals_until_exit(command: &mut Launched) -> Result<ExitStatus> {
    if let Ok(process) = Process::open(command.id()) {
        runtime()?.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let exit = readable(process.pidfd().try_clone_to_owned()?)?;
            loop {
                tokio::select! {
                    _ = exit.readable() => return std::io::Result::Ok(()),
                    _ = interrupt.recv() => command.signal(Signal::SIGINT),
                    _ = terminate.recv() => command.signal(Signal::SIGTERM),
                }
            }
        })?;
    }
    Ok(command.wait()?)
}
