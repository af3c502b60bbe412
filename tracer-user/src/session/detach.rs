//! The removal of the probes, on a thread of its own.
//!
//! A process that exits while the kernel removes its probes interrupts that, and the kernel then leaves breakpoints
//! behind in the target. So memtrace does not end before the removal has, whatever else went wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::guard::Guard;
use crate::kernel::Kernel;

/// Probes on their way out. Dropping it waits for them.
#[derive(Debug)]
pub struct Detaching(Option<JoinHandle<()>>);

impl Detaching {
    /// Begins to remove the probes; `done` is set when none is left.
    pub(super) fn start(kernel: Kernel, guard: Option<Guard>, done: Arc<AtomicBool>) -> Self {
        Self(Some(std::thread::spawn(move || {
            drop::<Kernel>(kernel);
            // Exceptions meet return probes until the last of them is gone.
            drop::<Option<Guard>>(guard);
            done.store(true, Ordering::Release);
        })))
    }
}

impl Drop for Detaching {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic of the thread has been told on stderr, and its values were dropped by it.
            let _panicked = thread.join();
        }
    }
}
