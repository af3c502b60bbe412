//! What a run does at every tick: it looks for new code, tells how it goes, and explains itself when nothing comes.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Observer, Progress, cost::Hits, finish::cost, tracer::Tracer};
use crate::report::units::float;

/// Ticks from one telling of progress to the next.
const PROGRESS_EVERY: u32 = 4;
/// A run that has seen no call for so long explains itself.
const QUIET_AFTER: Duration = Duration::from_secs(3);

/// What a run does at every tick.
pub(super) struct Care {
    ticks: u32,
    explained: bool,
    calls_before: u64,
    told: Instant,
}

impl Care {
    pub(super) fn new() -> Self {
        Self {
            ticks: 0,
            explained: false,
            calls_before: 0,
            told: Instant::now(),
        }
    }

    pub(super) fn tick(&mut self, tracer: &mut Tracer, observer: &dyn Observer) -> Result<()> {
        self.ticks += 1;
        tracer.meter.tick(&tracer.kernel)?;
        if !self.ticks.is_multiple_of(PROGRESS_EVERY) {
            return Ok(());
        }
        tracer.look_again(observer);
        let hits = Hits::read(&tracer.kernel)?;
        let calls = hits.emulated + hits.stepped;
        let elapsed = tracer.began.elapsed();
        let since_told = self.told.elapsed().as_secs_f64();
        self.told = Instant::now();
        let mut progress = Progress {
            elapsed,
            calls_per_second: float(calls.saturating_sub(self.calls_before)) / since_told,
            overhead_percent: cost(tracer, hits).overhead_percent(),
            ..Progress::default()
        };
        self.calls_before = calls;
        tracer.kernel.for_each_total(|_, totals| {
            progress.live_bytes += totals.allocated_bytes.saturating_sub(totals.freed_bytes);
            progress.live_count += totals.allocated_count.saturating_sub(totals.freed_count);
        })?;
        observer.progress(&progress);
        if calls == 0 && elapsed >= QUIET_AFTER && !self.explained {
            self.explained = true;
            let text = tracer.baseline.explain(&tracer.process, elapsed);
            tracer.warn(observer, text);
        }
        Ok(())
    }
}
