//! The end of a run: the books are closed, read and named, while the probes go.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use tracer_common::counters::Counter;

use super::{
    Detaching, Finished, Launched, Observer, Options, cost::Hits, debug_files, run::End,
    snapshot::Snapshot, tracer::Tracer,
};
use crate::report::{Cost, Report, TargetInfo, sort, units::plural};

/// Programs that were in flight when the recording stopped have ended after this.
const SETTLE: Duration = Duration::from_millis(2);

/// What the tracing has cost the target so far.
pub(super) fn cost(tracer: &Tracer, hits: Hits) -> Cost {
    Cost {
        probe_hits: hits.all(),
        bpf: tracer.meter.programs(hits),
        traps: tracer.meter.traps(hits),
        target_cpu: tracer.cpu_time().saturating_sub(tracer.baseline.cpu_time),
        ..Cost::default()
    }
}

/// Ends a run.
///
/// # Errors
///
/// When the books in the kernel cannot be read.
pub(super) fn finish(
    mut tracer: Tracer,
    options: &Options,
    observer: &dyn Observer,
    end: End,
    started: SystemTime,
    command: Option<Launched>,
    detached: Arc<AtomicBool>,
) -> Result<Finished> {
    tracer.kernel.set_recording(false)?;
    let duration = tracer.began.elapsed();
    std::thread::sleep(SETTLE);
    tracer.meter.close(&tracer.kernel)?;
    if end != End::Exec && tracer.process.is_alive() {
        tracer.learn_code(observer)?;
    }
    let hits = Hits::read(&tracer.kernel)?;
    let mut cost = cost(&tracer, hits);
    let snapshot = Snapshot::read(&tracer.kernel, &tracer.modules, options.older_than)?;
    let allocators = tracer.allocator_infos()?;
    let mut counters = Vec::new();
    for counter in Counter::ALL {
        let value = tracer.kernel.counter(*counter)?;
        if value != 0 && *counter != Counter::NotRecording {
            counters.push((*counter, value));
        }
    }
    if hits.all() == 0 && tracer.warnings.is_empty() {
        let text = tracer.baseline.explain(&tracer.process, duration);
        tracer.warnings.push(text);
    }
    let Tracer {
        process,
        kernel,
        mut modules,
        warnings,
        guard,
        ..
    } = tracer;
    // The probes go while the names are looked up: neither waits for the other, and the target runs free at once.
    let detaching = Detaching::start(kernel, guard, detached);
    observer.notice(&format!(
        "recorded {:.1} s; naming {}",
        duration.as_secs_f64(),
        plural(snapshot.totals.stacks, "stack")
    ));
    debug_files::fetch(options, &snapshot, &mut modules, observer);
    let totals = snapshot.totals;
    let mut stacks = snapshot.rows(&modules);
    sort(&mut stacks, options.sort);
    (cost.collector_cpu, cost.collector_peak_bytes) = own_usage();
    let report = Report {
        target: TargetInfo {
            pid: process.pid(),
            comm: process.comm().to_owned(),
            exe: process.exe().to_string_lossy().into_owned(),
            rss_bytes: process.status().ok().map(|status| status.rss_bytes),
            started: humantime::format_rfc3339_seconds(started).to_string(),
        },
        allocators,
        duration,
        end: end.text().to_owned(),
        totals,
        stacks,
        counters,
        warnings,
        cost,
    };
    Ok(Finished {
        report,
        command,
        detaching,
    })
}

/// CPU time and largest resident set of memtrace itself.
fn own_usage() -> (Duration, u64) {
    let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) else {
        return (Duration::ZERO, 0);
    };
    let micros = [usage.user_time(), usage.system_time()]
        .iter()
        .map(nix::sys::time::TimeValLike::num_microseconds)
        .sum::<i64>();
    // The kernel counts the resident set in KiB.
    (
        Duration::from_micros(micros.unsigned_abs()),
        usage.max_rss().unsigned_abs() * 1024,
    )
}
