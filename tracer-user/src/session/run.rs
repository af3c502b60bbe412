//! The run itself: start, wait for what ends it, stop, report.

use std::{
    io,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant as TokioInstant, MissedTickBehavior, interval, sleep_until},
};
use tracer_common::{counters::Counter, wire::EventKind};

use super::{
    Launched, Observer, Options, Progress, Target, cost::Hits, debug_files, guard::Guard,
    quiet::Baseline, readable::readable, snapshot::Snapshot, tracer::Tracer, wait::Impatience,
};
use crate::{
    kernel::Kernel,
    report::{Cost, Report, TargetInfo, sort, units::float},
    target::{AllocatorKind, Process},
};

/// How often the run looks after itself.
const TICK: Duration = Duration::from_millis(250);
/// How often progress is told.
const PROGRESS_EVERY: u32 = 4;
/// A run that has seen no call for so long explains itself.
const QUIET_AFTER: Duration = Duration::from_secs(3);
/// Programs that were in flight when the recording stopped have ended after this.
const SETTLE: Duration = Duration::from_millis(2);

/// A run that has ended.
pub struct Finished {
    /// What it found.
    pub report: Report,
    /// The command, where the run started one.
    pub command: Option<Launched>,
    /// The probes on their way out.
    pub detaching: JoinHandle<()>,
}

/// Why the recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Interrupted,
    Terminated,
    Duration,
    Exited,
    Exec,
}

impl End {
    fn text(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted (SIGINT)",
            Self::Terminated => "terminated (SIGTERM)",
            Self::Duration => "the duration was over",
            Self::Exited => "the process exited",
            Self::Exec => {
                "the process executed another image, which ended the heap that was recorded (to trace a program that a \
                 script or a wrapper starts, trace its own pid or start it directly)"
            }
        }
    }
}

/// A run whose probes are in place and which records.
pub struct Attached {
    tracer: Tracer,
    command: Option<Launched>,
    started: SystemTime,
    runtime: Runtime,
    signals: Signals,
}

/// What ends a run from outside, caught from before the first probe is attached.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch(runtime: &Runtime) -> io::Result<Self> {
        let _context = runtime.enter();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

impl Attached {
    /// Records until something ends it, and returns what was found.
    ///
    /// # Errors
    ///
    /// When the books in the kernel cannot be read.
    pub fn run(self, options: &Options, observer: &dyn Observer) -> Result<Finished> {
        let Self {
            mut tracer,
            command,
            started,
            runtime,
            mut signals,
        } = self;
        let end = runtime.block_on(watch(&mut tracer, &mut signals, options, observer))?;
        let _impatience = Impatience::arm();
        finish(tracer, options, observer, end, started, command)
    }
}

/// Opens or starts the target, and probes it. Recording has begun when this returns.
///
/// # Errors
///
/// When the process cannot be traced, or the kernel refuses what is needed. Nothing is attached then.
pub fn attach(options: &Options, observer: &dyn Observer) -> Result<Attached> {
    let started = SystemTime::now();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let signals = Signals::catch(&runtime).context("cannot catch signals")?;
    let (mut tracer, command) = match &options.target {
        Target::Running(pid) => {
            let mut tracer = Tracer::new(Process::open(*pid)?, options)?;
            tracer.look(observer)?;
            tracer.start()?;
            (tracer, None)
        }
        Target::Command(command) => {
            let mut launched = Launched::start(command)?;
            let mut tracer = Tracer::new(Process::open(launched.id())?, options)?;
            tracer.start()?;
            // A second handle, since the closure below needs the tracer as a whole.
            let process = Process::open(launched.id())?;
            launched.through_loader(&process, || {
                tracer.look_early(observer)?;
                // musl's loader is its C library as well: what it maps later is found like any late object.
                Ok(!tracer
                    .allocators()
                    .iter()
                    .any(|allocator| allocator.kind == AllocatorKind::Musl))
            })?;
            if process.is_alive() && !tracer.has_allocator() {
                tracer.look(observer)?;
            }
            (tracer, Some(launched))
        }
    };
    let functions: usize = tracer
        .allocators()
        .iter()
        .map(|allocator| allocator.functions.len())
        .sum();
    let objects: Vec<&str> = tracer
        .allocators()
        .iter()
        .map(|allocator| allocator.object.as_str())
        .collect();
    observer.notice(&format!(
        "tracing pid {} ({}): {functions} functions of {}",
        tracer.process.pid(),
        tracer.process.comm(),
        objects.join(", ")
    ));
    if let Target::Running(_) = options.target
        && tracer
            .process
            .stat()
            .is_ok_and(|stat| matches!(stat.state, 'T' | 't'))
    {
        let pid = tracer.process.pid();
        tracer.warn(
            observer,
            format!("the process is stopped; it allocates nothing until kill -CONT {pid}"),
        );
    }
    Ok(Attached {
        tracer,
        command,
        started,
        runtime,
        signals,
    })
}

/// Waits for what ends the recording, and looks after the run meanwhile.
async fn watch(
    tracer: &mut Tracer,
    signals: &mut Signals,
    options: &Options,
    observer: &dyn Observer,
) -> Result<End> {
    let Signals {
        interrupt,
        terminate,
    } = signals;
    let exit = readable(tracer.process.pidfd().try_clone_to_owned()?)?;
    let mut events = readable(tracer.kernel.take_events()?)?;
    let mut log = if options.log_bpf {
        Some(tracer.kernel.forward_log(observer.log())?)
    } else {
        None
    };
    let deadline = options
        .duration
        .map(|duration| TokioInstant::from_std(tracer.began + duration));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut care = Care::new(tracer);
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(End::Interrupted),
            _ = terminate.recv() => return Ok(End::Terminated),
            _ = exit.readable() => {
                return Ok(if tracer.kernel.state()?.execs == 0 { End::Exited } else { End::Exec });
            }
            () = sleep_until(deadline.unwrap_or_else(TokioInstant::now)), if deadline.is_some() => {
                return Ok(End::Duration);
            }
            ready = events.readable_mut() => {
                let mut ready = ready?;
                let mut changed = false;
                while let Some(event) = ready.get_inner_mut().next_event() {
                    changed |= event.kind == EventKind::ObjectsChanged as u32;
                }
                ready.clear_ready();
                if changed {
                    tracer.look_again(observer);
                }
            }
            _ = ticks.tick() => {
                care.tick(tracer, observer)?;
            }
        }
        if let Some(log) = &mut log {
            log.forward();
        }
        if tracer.kernel.state()?.execs != 0 {
            return Ok(End::Exec);
        }
    }
}

/// What a run does at every tick.
struct Care {
    ticks: u32,
    baseline: Baseline,
    explained: bool,
    calls_before: u64,
    told: Instant,
}

impl Care {
    fn new(tracer: &Tracer) -> Self {
        Self {
            ticks: 0,
            baseline: Baseline::of(&tracer.process),
            explained: false,
            calls_before: 0,
            told: Instant::now(),
        }
    }

    fn tick(&mut self, tracer: &mut Tracer, observer: &dyn Observer) -> Result<()> {
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
            let text = self.baseline.explain(&tracer.process, elapsed);
            tracer.warn(observer, text);
        }
        Ok(())
    }
}

/// What the tracing has cost the target so far.
fn cost(tracer: &Tracer, hits: Hits) -> Cost {
    Cost {
        probe_hits: hits.all(),
        bpf: tracer.meter.programs(hits),
        traps: tracer.meter.traps(hits),
        target_cpu: tracer.cpu_time().saturating_sub(tracer.cpu_before),
        ..Cost::default()
    }
}

fn finish(
    mut tracer: Tracer,
    options: &Options,
    observer: &dyn Observer,
    end: End,
    started: SystemTime,
    command: Option<Launched>,
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
        let text = Baseline::default().explain(&tracer.process, duration);
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
    let detaching = std::thread::spawn(move || {
        drop::<Kernel>(kernel);
        // Exceptions meet return probes until the last of them is gone.
        drop::<Option<Guard>>(guard);
    });
    observer.notice(&format!(
        "recorded {:.1} s; naming {} stacks",
        duration.as_secs_f64(),
        snapshot.totals.stacks
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
