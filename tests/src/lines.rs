//! The lines that a process writes, read as they come, so that a test can wait for one of them.

use std::{
    io::Read,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for anything that should happen at once. Long, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

/// The lines of one stream. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Lines {
    /// Starts to read `stream` to its end.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        thread::spawn(move || {
            let mut partial = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                for byte in &buffer[..count] {
                    if matches!(byte, b'\n' | b'\r') {
                        writer.push(&partial);
                        partial.clear();
                    } else {
                        partial.push(*byte);
                    }
                }
            }
            if !partial.is_empty() {
                writer.push(&partial);
            }
            writer.lock().ended = true;
            writer.shared.1.notify_all();
        });
        lines
    }

    /// The first line, now or later, that `wanted` accepts.
    ///
    /// # Errors
    ///
    /// When the stream ends or [`PATIENCE`] runs out first: what was read instead.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.lock();
        let mut next = 0;
        loop {
            if let Some(line) = seen.lines[next..].iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            next = seen.lines.len();
            let left = end.saturating_duration_since(Instant::now());
            if seen.ended || left.is_zero() {
                let why = if seen.ended {
                    "the stream ended"
                } else {
                    "nothing came"
                };
                return Err(format!("{why}; seen so far:\n{}", seen.lines.join("\n")));
            }
            seen = self
                .shared
                .1
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Everything, once the stream has ended (or [`PATIENCE`] has).
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let _ = self.wait_for(|_| false);
        self.lock().lines.clone()
    }

    /// Everything that came up to now.
    #[must_use]
    pub fn so_far(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    fn push(&self, bytes: &[u8]) {
        self.lock()
            .lines
            .push(String::from_utf8_lossy(bytes).into_owned());
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
