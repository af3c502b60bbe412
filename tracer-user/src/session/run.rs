//! The run itself: start, wait for what ends it, stop, report.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant as TokioInstant, MissedTickBehavior, interval, sleep_until},
};
use tracer_common::wire::EventKind;

use super::{
    Detaching, Launched, Observer, Options, Target, care::Care, finish::finish, readable::readable,
    tracer::Tracer, wait::Impatience,
};
use crate::{
    report::Report,
    target::{AllocatorKind, Process},
};

/// How often the run looks after itself.
const TICK: Duration = Duration::from_millis(250);

/// A run that has ended.
pub struct Finished {
    /// What it found.
    pub report: Report,
    /// The command, where the run started one.
    pub command: Option<Launched>,
    /// The probes on their way out.
    pub detaching: Detaching,
}

/// Why the recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Interrupted,
    Terminated,
    Duration,
    Exited,
    Exec,
}

impl End {
    pub(super) fn text(self) -> &'static str {
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
        let detached = Arc::new(AtomicBool::new(false));
        let _impatience = Impatience::arm(Arc::clone(&detached));
        finish(tracer, options, observer, end, started, command, detached)
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
    let mut care = Care::new();
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
