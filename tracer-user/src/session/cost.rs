//! What the tracing costs the target: the trap's cost, calibrated, and the programs' time, measured on a share of
//! the run.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use tracer_common::counters::Counter;

use crate::kernel::{Kernel, KernelError, RunStats, calibrate::TrapCost};

/// The kernel's statistics take time in every program, so they are on only for this long at a time.
const WINDOW: Duration = Duration::from_millis(200);
/// From one window to the next.
const PERIOD: Duration = Duration::from_secs(10);

/// Hits of all probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    /// Entries at emulated instructions.
    pub(super) emulated: u64,
    /// Entries at single-stepped instructions.
    pub(super) stepped: u64,
    /// Returns.
    pub(super) returned: u64,
}

impl Hits {
    /// Hits so far.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub(super) fn read(kernel: &Kernel) -> Result<Self, KernelError> {
        let mut hits = Self::default();
        for (site, calls) in kernel.site_calls()? {
            if site.emulated {
                hits.emulated += calls.enters;
            } else {
                hits.stepped += calls.enters;
            }
            hits.returned += calls.exits;
        }
        // Calls that the programs passed by are counted in all, not by site.
        for passed_by in [Counter::Nested, Counter::NotRecording] {
            hits.emulated += kernel.counter(passed_by)?;
        }
        Ok(hits)
    }

    /// Entries and returns.
    #[must_use]
    pub(super) const fn all(self) -> u64 {
        self.emulated + self.stepped + self.returned
    }
}

/// Measures the programs' time in windows.
#[derive(Debug)]
pub(super) struct CostMeter {
    traps: Option<TrapCost>,
    window: Option<(OwnedFd, Instant, RunStats)>,
    next_window: Instant,
    measured: RunStats,
}

impl CostMeter {
    /// A meter for a machine whose traps cost `traps`, if that is known.
    #[must_use]
    pub(super) fn new(traps: Option<TrapCost>) -> Self {
        Self {
            traps,
            window: None,
            next_window: Instant::now(),
            measured: RunStats::default(),
        }
    }

    /// Opens and closes windows as time goes on. Call it often, a few times a second.
    ///
    /// # Errors
    ///
    /// When the statistics cannot be read.
    pub(super) fn tick(&mut self, kernel: &Kernel) -> Result<(), KernelError> {
        let now = Instant::now();
        if self
            .window
            .as_ref()
            .is_some_and(|(_, since, _)| now - *since >= WINDOW)
        {
            self.close(kernel)?;
        } else if self.window.is_none() && now >= self.next_window {
            let before = kernel.run_stats()?;
            // A kernel without statistics leaves the programs' time unknown.
            if let Some(enabled) = Kernel::enable_statistics() {
                self.window = Some((enabled, now, before));
            }
            self.next_window = now + PERIOD;
        }
        Ok(())
    }

    /// Ends the window that is open, if one is.
    ///
    /// # Errors
    ///
    /// When the statistics cannot be read.
    pub(super) fn close(&mut self, kernel: &Kernel) -> Result<(), KernelError> {
        if let Some((enabled, _, before)) = self.window.take() {
            let after = kernel.run_stats()?;
            drop(enabled);
            self.measured.run_ns += after.run_ns.saturating_sub(before.run_ns);
            self.measured.runs += after.runs.saturating_sub(before.runs);
        }
        Ok(())
    }

    /// Time in the programs for these hits.
    #[must_use]
    pub(super) fn programs(&self, hits: Hits) -> Option<Duration> {
        let ns = (u128::from(hits.all()) * u128::from(self.measured.run_ns))
            .checked_div(u128::from(self.measured.runs))?;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }

    /// Time in the traps for these hits.
    #[must_use]
    pub(super) fn traps(&self, hits: Hits) -> Option<Duration> {
        let TrapCost {
            emulated,
            stepped,
            returned,
        } = self.traps?;
        let times = |cost: Duration, hits: u64| {
            let ns = cost.as_nanos() * u128::from(hits);
            Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
        };
        Some(
            times(emulated, hits.emulated)
                + times(stepped, hits.stepped)
                + times(returned, hits.returned),
        )
    }
}
