//! What a person sees while a run goes on: lines on stderr, and one line that changes.

use std::{
    cell::Cell,
    io::{IsTerminal as _, Write as _, stderr},
};

use crate::{
    report::units::{Bytes, Count},
    session::{Observer, Progress},
};

/// Stderr, with or without a person before it.
pub(super) struct Terminal {
    interactive: bool,
    /// Whether the line that changes is on the screen.
    showing: Cell<bool>,
}

impl Terminal {
    /// Stderr as it is.
    pub(super) fn new() -> Self {
        Self {
            interactive: stderr().is_terminal(),
            showing: Cell::new(false),
        }
    }

    /// Clears the line that changes.
    pub(super) fn clear(&self) {
        if self.showing.replace(false) {
            // A closed stderr is nobody's failure.
            let _closed = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Observer for Terminal {
    fn notice(&self, text: &str) {
        self.clear();
        eprintln!("memtrace: {}", crate::report::escape::Escaped(text));
    }

    fn progress(&self, progress: &Progress) {
        if !self.interactive {
            return;
        }
        let Progress {
            elapsed,
            live_bytes,
            live_count,
            calls_per_second,
            overhead_percent,
        } = progress;
        let cost = overhead_percent.map_or_else(
            || "not yet known".to_owned(),
            |percent| format!("{percent:.1} % of its CPU time"),
        );
        self.showing.set(true);
        let _closed = write!(
            stderr(),
            "\r\x1b[Kmemtrace: {}s  live {} in {} blocks  {:.0} calls/s  cost {cost}",
            elapsed.as_secs(),
            Bytes(*live_bytes),
            Count(*live_count),
            calls_per_second,
        );
    }

    fn log(&self) -> Box<dyn Fn(&str) + Send + Sync> {
        Box::new(|line| eprintln!("memtrace: {line}"))
    }
}
