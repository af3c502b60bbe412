//! What the kernel can do: each feature is tried, on memtrace itself.

use std::{
    io::{self, Write},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};

use super::finding::{Finding, Sheet};
use crate::{
    kernel::{
        Kernel, KernelError, LoadOptions, Programs,
        calibrate::{self, TrapCost},
        features::{self, Backend},
    },
    report::{
        escape::Escaped,
        units::{Bytes, float},
    },
    target::maps,
};

const NEWER_KERNEL: &str = "run a newer kernel (Linux 5.17 or later)";

/// Tries the features, and returns how to attach; `None` when nothing can be.
pub(super) fn check<W: Write>(sheet: &mut Sheet<W>) -> io::Result<Option<Backend>> {
    if let Err(error) = features::try_bpf() {
        sheet.tell(&Finding::fail(
            "bpf(2)",
            format!("refused: {error}; nothing else of the kernel was tried"),
            "give memtrace what is missing above; if nothing is, a seccomp filter (of a container) or another \
             security module forbids the system call",
        ))?;
        return Ok(None);
    }
    sheet.tell(&Finding::ok("bpf(2)", "makes maps"))?;
    sheet.tell(&locked_memory())?;
    sheet.tell(&program_types())?;
    sheet.tell(&helpers())?;
    sheet.tell(&ring_buffers())?;
    sheet.tell(&tried(
        "batched reads",
        "of maps",
        features::try_batch_reads(),
    ))?;
    let own_code = maps::read(std::process::id())?;
    let offset = |address| {
        own_code
            .iter()
            .find_map(|mapping| mapping.file_offset(address))
    };
    let Some(trial) = offset(calibrate::trial_address()) else {
        sheet.tell(&Finding::fail(
            "own code",
            "not found in memtrace's own mappings",
            "mount a proc file system",
        ))?;
        return Ok(None);
    };
    let backend = Backend::probe(trial);
    for finding in mechanisms(backend, |backend| backend.try_on(trial)) {
        sheet.tell(&finding)?;
    }
    let loaded = load(std::process::id(), backend);
    sheet.tell(&object(&loaded))?;
    if let Ok(kernel) = &loaded {
        sheet.tell(&exceptions(kernel.exceptions_refused()))?;
    }
    sheet.tell(&match Kernel::enable_statistics() {
        Some(_) => Finding::ok("program statistics", "can be switched on for a moment"),
        None => Finding::warn(
            "program statistics",
            "cannot be switched on: the cost to the target is told without the programs' share",
            "give memtrace CAP_SYS_ADMIN, or run Linux 5.8 or later",
        ),
    })?;
    sheet.tell(&trap_cost(backend, &calibrate::measure(backend, offset)))?;
    Ok(loaded.is_ok().then_some(backend))
}

/// Loads the programs as a run does, for a process.
pub(super) fn load(tgid: u32, backend: Backend) -> Result<Kernel, KernelError> {
    Kernel::load(LoadOptions {
        tgid,
        max_live: tracer_common::limits::DEFAULT_MAX_LIVE,
        min_size_bytes: 0,
        unwind_by_tables: true,
        log: false,
        programs: Programs::Record,
        at_entry: false,
        backend,
    })
}

fn tried(subject: &str, works: &str, result: io::Result<()>) -> Finding {
    match result {
        Ok(()) => Finding::ok(subject, works),
        Err(error) => Finding::fail(subject, format!("refused: {error}"), NEWER_KERNEL),
    }
}

fn locked_memory() -> Finding {
    const SUBJECT: &str = "locked memory";
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
        return Finding::ok(SUBJECT, "the limit cannot be read");
    };
    let limit = if soft == nix::sys::resource::RLIM_INFINITY {
        "no limit".to_owned()
    } else {
        format!("limit of {}", Bytes(soft))
    };
    match features::locked_memory_counts() {
        Ok(false) => Finding::ok(
            SUBJECT,
            format!("{limit}, not applied: maps are charged to the cgroup"),
        ),
        Ok(true) if soft == hard && soft != nix::sys::resource::RLIM_INFINITY => Finding::warn(
            SUBJECT,
            format!(
                "{limit}, to which this kernel charges maps; memtrace raises it if it may (CAP_SYS_RESOURCE)"
            ),
            "ulimit -l unlimited",
        ),
        Ok(true) => Finding::ok(
            SUBJECT,
            format!("{limit}, to which this kernel charges maps; memtrace raises it"),
        ),
        Err(error) => Finding::ok(SUBJECT, format!("{limit}; it cannot be changed: {error}")),
    }
}

fn program_types() -> Finding {
    const SUBJECT: &str = "program types";
    match features::missing_program_type() {
        Ok(None) => Finding::ok(SUBJECT, "kprobe (for probes on functions), raw_tracepoint"),
        Ok(Some(name)) => Finding::fail(
            SUBJECT,
            format!("the kernel loads no {name} programs"),
            "run a kernel built with CONFIG_BPF_EVENTS=y and CONFIG_UPROBE_EVENTS=y",
        ),
        Err(error) => Finding::fail(
            SUBJECT,
            format!("refused: {}", reasons(&error)),
            NEWER_KERNEL,
        ),
    }
}

fn helpers() -> Finding {
    const SUBJECT: &str = "helper functions";
    match features::missing_helpers() {
        Ok((all, missing)) if missing.is_empty() => Finding::ok(
            SUBJECT,
            format!("all {all}, bpf_get_attach_cookie among them"),
        ),
        Ok((all, missing)) => Finding::fail(
            SUBJECT,
            format!("{} of {all} missing: {}", missing.len(), missing.join(", ")),
            "run Linux 5.17 or later, without lockdown=confidentiality",
        ),
        Err(error) => Finding::fail(
            SUBJECT,
            format!("refused: {}", reasons(&error)),
            NEWER_KERNEL,
        ),
    }
}

fn ring_buffers() -> Finding {
    match features::has_ring_buffers() {
        Ok(true) => Finding::ok("ring buffer", "there"),
        Ok(false) => Finding::fail("ring buffer", "not in this kernel", NEWER_KERNEL),
        Err(error) => Finding::fail(
            "ring buffer",
            format!("refused: {}", reasons(&error)),
            NEWER_KERNEL,
        ),
    }
}

/// The ways to attach, from the best to the last; `used` is the one that a run takes.
fn mechanisms(used: Backend, attach: impl Fn(Backend) -> io::Result<()>) -> Vec<Finding> {
    let refused = |error: &io::Error| format!("refused: {}", reasons(error));
    [Backend::Session, Backend::Multi, Backend::PerfEvent]
        .into_iter()
        .map(|backend| {
            let name = backend.name();
            let error = match attach(backend) {
                Ok(()) if backend == used => {
                    return Finding::ok(name, "attached to memtrace itself and removed; used");
                }
                Ok(()) => return Finding::ok(name, "attached to memtrace itself and removed"),
                Err(error) => error,
            };
            match backend {
                Backend::Session => Finding::lack(
                    name,
                    format!(
                        "{} (Linux 6.13 has it); each allocation runs two programs instead of one",
                        refused(&error)
                    ),
                ),
                Backend::Multi => Finding::lack(
                    name,
                    format!(
                        "{} (Linux 6.6 has it); to remove a probe takes 0.1 s",
                        refused(&error)
                    ),
                ),
                // Only the last resort must work, and only where it is one.
                Backend::PerfEvent if backend != used => {
                    Finding::ok(name, format!("{}; not needed", refused(&error)))
                }
                Backend::PerfEvent => Finding::fail(
                    name,
                    format!("{}; no probe can be attached", refused(&error)),
                    "run a kernel built with CONFIG_UPROBE_EVENTS=y and CONFIG_BPF_EVENTS=y, Linux 5.17 or later",
                ),
            }
        })
        .collect()
}

fn object(loaded: &Result<Kernel, KernelError>) -> Finding {
    match loaded {
        Ok(_) => Finding::ok(
            "BPF object",
            "loads: its maps are made, its programs accepted",
        ),
        Err(error) => Finding::fail(
            "BPF object",
            format!("does not load: {}", reasons(error)),
            "run a newer kernel (Linux 5.17 or later); if this one is, report the text above as a bug",
        ),
    }
}

fn exceptions(refused: Option<&KernelError>) -> Finding {
    const SUBJECT: &str = "C++ exceptions";
    match refused {
        None => Finding::ok(SUBJECT, "pass probed functions unharmed"),
        Some(error) => Finding::lack(
            SUBJECT,
            format!(
                "cannot pass a probed function (Linux 5.17 has what it takes), so operator new is not traced where an \
                 allocator has its own: {}",
                reasons(error).lines().next().unwrap_or_default()
            ),
        ),
    }
}

fn trap_cost(backend: Backend, measured: &io::Result<TrapCost>) -> Finding {
    const SUBJECT: &str = "cost of a trap";
    match measured {
        Ok(cost) if cost.emulated.is_zero() => Finding::fail(
            SUBJECT,
            "none: a probe on memtrace itself was accepted, but does not fire",
            "run memtrace outside of a sandbox or an emulator that only pretends to support probes",
        ),
        Ok(cost) => Finding::ok(SUBJECT, costs(cost)),
        Err(_) if backend == Backend::PerfEvent => Finding::lack(
            SUBJECT,
            "not measured, which takes uprobe_multi; reports lack this share of the cost",
        ),
        Err(error) => Finding::warn(
            SUBJECT,
            format!("not measured: {error}; reports lack this share of the cost"),
            "try again on a machine that is less busy",
        ),
    }
}

fn costs(cost: &TrapCost) -> String {
    let TrapCost {
        emulated,
        stepped,
        returned,
    } = *cost;
    // An allocation traps at its entry and its return, a release at its entry.
    let pair = emulated * 2 + returned;
    format!(
        "{} emulated, {} single-stepped, {} more for a return;\nthe traps of 100,000 malloc/free pairs a second take {:.0} % of a CPU",
        micros(emulated),
        micros(stepped),
        micros(returned),
        pair.as_secs_f64() * 1e7
    )
}

fn micros(time: Duration) -> String {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    format!("{:.1} µs", float(nanos) / 1e3)
}

/// An error with its causes, harmless to print but for its line breaks.
pub(super) fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.lines()
        .map(|line| Escaped(line).to_string())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::{
        super::finding::Status::{self, Fail, Ok as Well, Warn},
        Backend::{Multi, PerfEvent, Session},
        *,
    };

    /// Make sure that the last resort is a failure only where nothing better is there.
    #[test]
    fn ways_to_attach() {
        let statuses = |used, works: &[Backend]| -> Vec<Status> {
            mechanisms(used, |backend| {
                if works.contains(&backend) {
                    Ok(())
                } else {
                    Err(io::ErrorKind::InvalidInput.into())
                }
            })
            .iter()
            .map(|finding| finding.status)
            .collect()
        };
        assert_eq!(statuses(Session, &[Session, Multi]), [Well, Well, Well]);
        assert_eq!(statuses(Multi, &[Multi, PerfEvent]), [Warn, Well, Well]);
        assert_eq!(statuses(PerfEvent, &[PerfEvent]), [Warn, Warn, Well]);
        assert_eq!(statuses(PerfEvent, &[]), [Warn, Warn, Fail]);
    }

    /// Make sure that costs are told in microseconds, with what they mean.
    #[test]
    fn cost_of_traps() {
        let cost = TrapCost {
            emulated: Duration::from_nanos(540),
            stepped: Duration::from_nanos(20_060),
            returned: Duration::from_nanos(920),
        };
        assert_eq!(
            costs(&cost),
            "0.5 µs emulated, 20.1 µs single-stepped, 0.9 µs more for a return;\n\
             the traps of 100,000 malloc/free pairs a second take 20 % of a CPU"
        );
        assert_eq!(trap_cost(Backend::Multi, &Ok(cost)).status, Well);
        let none = TrapCost {
            emulated: Duration::ZERO,
            ..cost
        };
        assert_eq!(trap_cost(Backend::Multi, &Ok(none)).status, Fail);
    }
}
