//! A run that sees nothing must say so: an idle process is one thing, probes on dead code another.

use std::time::Duration;

use crate::target::Process;

/// What the process had used when the recording began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Baseline {
    pub(super) cpu_time: Duration,
    faults: u64,
    rss_anon_bytes: u64,
}

impl Baseline {
    /// What the process has used so far.
    pub(super) fn of(process: &Process) -> Self {
        let stat = process.stat().ok();
        Self {
            cpu_time: stat.as_ref().map(|stat| stat.cpu_time).unwrap_or_default(),
            faults: stat.map(|stat| stat.minor_faults).unwrap_or_default(),
            rss_anon_bytes: process
                .status()
                .map(|status| status.rss_anon_bytes)
                .unwrap_or_default(),
        }
    }

    /// Why no call was seen for `elapsed`, in one or two sentences.
    pub(super) fn explain(self, process: &Process, elapsed: Duration) -> String {
        if !process.is_alive() {
            return "no allocator call was seen before the process ended".to_owned();
        }
        let now = Self::of(process);
        let cpu = now.cpu_time.saturating_sub(self.cpu_time);
        let grown = now.rss_anon_bytes.saturating_sub(self.rss_anon_bytes);
        let faults = now.faults.saturating_sub(self.faults);
        let seconds = elapsed.as_secs();
        let stopped = process
            .stat()
            .is_ok_and(|stat| matches!(stat.state, 'T' | 't'));
        if stopped {
            return format!(
                "no allocator call in {seconds} s: the process is stopped (continue it with kill -CONT {})",
                process.pid()
            );
        }
        if cpu.is_zero() && grown == 0 {
            return format!(
                "no allocator call in {seconds} s: the process is idle (no CPU time, no growth); put it under load, or wait"
            );
        }
        if grown == 0 && faults == 0 {
            return format!(
                "no allocator call in {seconds} s, although the process used {} ms of CPU time: it computes or waits \
                 without allocating, or an allocator that memtrace did not find serves it from memory it already has",
                cpu.as_millis()
            );
        }
        format!(
            "no allocator call in {seconds} s, although the process used {} ms of CPU time, had {faults} page faults and \
             grew by {} KiB: its memory comes from elsewhere. Likely an allocator of its own on top of mmap (a JIT, a \
             garbage collector, Go), or a malloc that is linked in statically without symbols: give its debug file, or \
             name its functions with --alloc and --free",
            cpu.as_millis(),
            grown / 1024
        )
    }
}
