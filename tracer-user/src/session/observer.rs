//! What a run tells while it goes on.

use std::time::Duration;

/// How a run goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Since the recording began.
    pub elapsed: Duration,
    /// Bytes live and tracked.
    pub live_bytes: u64,
    /// Blocks live and tracked.
    pub live_count: u64,
    /// Calls of the allocator's functions per second, since the last report of progress.
    pub calls_per_second: f64,
    /// What the tracing costs the target so far, in percent of its own CPU time; `None` before it is known.
    pub overhead_percent: Option<f64>,
}

/// Receives what a run tells.
pub trait Observer {
    /// Something that happened, in one line.
    fn notice(&self, text: &str);

    /// How the run goes, about once a second.
    fn progress(&self, progress: &Progress);

    /// A line of the BPF side's log. May be called from any thread.
    fn log(&self) -> Box<dyn Fn(&str) + Send + Sync>;
}
