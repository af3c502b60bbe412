//! Puts return addresses back for C++ exceptions, while their threads wait; see the BPF side's `exception.rs`.
//!
//! A thread of its own, since it must answer within milliseconds whatever else the run is doing.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::Arc,
    thread::JoinHandle,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    process::setpriority_process,
    thread::gettid,
};
use tracer_common::limits::RETURN_ANSWER_NS;

use super::clock::monotonic_ns;
use crate::{kernel::Returns, target::Process};

/// The thread that puts return addresses back; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Guard {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Starts to answer.
    ///
    /// # Errors
    ///
    /// When the target's memory cannot be opened for writing.
    pub(super) fn start(process: &Process, returns: Returns) -> io::Result<Self> {
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/mem", process.pid()))?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("exceptions".to_owned())
            .spawn(move || answer(&stopped, returns, &memory))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// The most urgent of the ordinary priorities: a thread of the target waits for the answer.
const URGENT: i32 = -20;

fn answer(stop: &OwnedFd, mut returns: Returns, memory: &File) {
    // Without the right to it, the answer comes a little later.
    let _refused = setpriority_process(Some(gettid()), URGENT);
    let Ok(waiting) = returns.as_fd().try_clone_to_owned() else {
        return;
    };
    loop {
        let mut fds = [
            PollFd::new(&waiting, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if fds[1].revents().is_empty() => {}
            Err(rustix::io::Errno::INTR) => continue,
            _ => return,
        }
        while let Some(slot) = returns.next_return() {
            if monotonic_ns().saturating_sub(slot.asked_ns) < RETURN_ANSWER_NS {
                // A thread that is gone needs no answer.
                let _gone = memory.write_all_at(&slot.value.to_ne_bytes(), slot.address);
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Writing to an eventfd fails only when its counter is full.
        let _full = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
