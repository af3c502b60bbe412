//! The report for a terminal: what holds the memory, what was lost, what it cost.

mod stacks;

use std::{
    io::{self, Write},
    time::Duration,
};

use tracer_common::counters::{Counter, CounterKind};

use super::{
    AllocatorInfo, Report, SortKey,
    escape::Escaped,
    units::{Bytes, Count, Span, float, per, percent, plural},
};

/// What a text report shows of the stacks.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// Stacks shown; the rest is summed up.
    pub top: usize,
    /// The order in which the report's stacks are.
    pub sort: SortKey,
}

/// Writes the report.
///
/// # Errors
///
/// When `out` fails.
pub fn write(report: &Report, options: TextOptions, out: &mut impl Write) -> io::Result<()> {
    head(report, out)?;
    stacks::write(report, options, out)?;
    counters(
        report,
        CounterKind::Loss,
        "Losses: what the numbers above lack",
        out,
    )?;
    counters(
        report,
        CounterKind::Note,
        "Notes: what else was counted",
        out,
    )?;
    warnings(report, out)?;
    cost(report, out)
}

fn head(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let Report {
        target,
        allocators,
        duration,
        end,
        totals,
        ..
    } = report;
    writeln!(
        out,
        "memtrace: {} (pid {}), {}",
        Escaped(&target.comm),
        target.pid,
        Escaped(&target.exe)
    )?;
    writeln!(
        out,
        "  recorded   {}, from {}; {}",
        Span(*duration),
        Escaped(&target.started),
        Escaped(end)
    )?;
    match target.rss_bytes {
        Some(bytes) => writeln!(out, "  resident   {}", Bytes(bytes))?,
        None => writeln!(out, "  resident   not known")?,
    }
    for allocator in allocators {
        self::allocator(allocator, out)?;
    }
    let seen: u64 = allocators
        .iter()
        .map(|allocator| allocator.calls.allocs + allocator.calls.frees)
        .sum();
    writeln!(
        out,
        "  calls      {} ({}/s)",
        Count(seen),
        Count(per(seen, duration.as_secs_f64()))
    )?;
    writeln!(
        out,
        "  live       {} in {}, from {}",
        Bytes(totals.live_bytes),
        plural(totals.live_count, "block"),
        plural(totals.stacks, "stack")
    )?;
    writeln!(
        out,
        "  allocated  {} in {} while recording",
        Bytes(totals.total_bytes),
        plural(totals.total_count, "block")
    )
}

fn allocator(allocator: &AllocatorInfo, out: &mut impl Write) -> io::Result<()> {
    let AllocatorInfo {
        object,
        kind,
        reason,
        functions,
        single_stepped,
        calls,
    } = allocator;
    writeln!(out, "  allocator  {kind}: {}", Escaped(object))?;
    writeln!(out, "             {}", Escaped(reason))?;
    write!(out, "             {functions} functions probed")?;
    if *single_stepped > 0 {
        write!(out, " ({single_stepped} single-stepped)")?;
    }
    writeln!(
        out,
        "; {} allocating, {} releasing calls",
        Count(calls.allocs),
        Count(calls.frees)
    )
}

fn counters(
    report: &Report,
    kind: CounterKind,
    title: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut counters = report
        .counters
        .iter()
        .filter(|(counter, value)| counter.kind() == kind && *value > 0)
        .peekable();
    if counters.peek().is_none() {
        return match kind {
            CounterKind::Loss => writeln!(out, "\nLosses: none"),
            CounterKind::Note => Ok(()),
        };
    }
    writeln!(out, "\n{title}")?;
    for (counter, value) in counters {
        writeln!(
            out,
            "  {:>15}  {}",
            Count(*value),
            counter.description().trim()
        )?;
        if let Some(advice) = advice(*counter) {
            writeln!(out, "  {:>15}  -> {advice}", "")?;
        }
    }
    Ok(())
}

/// What the reader can do about a loss, where its description does not say it.
const fn advice(counter: Counter) -> Option<&'static str> {
    match counter {
        Counter::LiveNoMemory => {
            Some("a burst outran the kernel's reserve; live bytes are a lower bound")
        }
        Counter::StackTableFull => Some("record for a shorter time: fewer distinct stacks"),
        Counter::ThreadTableFull => Some("threads beyond the table are not traced at all"),
        Counter::ReleaseMissed => Some(
            "some function that releases is not probed: see memtrace doctor, or name it with --free",
        ),
        Counter::ReturnLost | Counter::OutUnreadable => {
            Some("their blocks are not among the live ones")
        }
        _ => None,
    }
}

fn warnings(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.warnings.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nWarnings")?;
    for warning in &report.warnings {
        writeln!(out, "  {}", Escaped(warning))?;
    }
    Ok(())
}

fn cost(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let cost = &report.cost;
    let hits = float(cost.probe_hits.max(1));
    let known = |span: Option<Duration>, show: &dyn Fn(f64) -> String| {
        span.map_or_else(
            || "not measured".to_owned(),
            |span| show(span.as_secs_f64()),
        )
    };
    let each = |span| known(span, &|seconds| format!("{:.0} ns", seconds * 1e9 / hits));
    writeln!(out, "\nCost")?;
    writeln!(
        out,
        "  probe hits  {} ({}/s), {} each: trap {}, BPF program {}",
        Count(cost.probe_hits),
        Count(per(cost.probe_hits, report.duration.as_secs_f64())),
        each(cost.added()),
        each(cost.traps),
        each(cost.bpf)
    )?;
    let cpu = cost.target_cpu.as_secs_f64();
    let share = |span| known(span, &|seconds| format!("{:.1}%", percent(seconds, cpu)));
    writeln!(
        out,
        "  target      {} of its {} of CPU time went into tracing: traps {}, BPF programs {}",
        share(cost.added()),
        Span(cost.target_cpu),
        share(cost.traps),
        share(cost.bpf)
    )?;
    writeln!(
        out,
        "  memtrace    {} of CPU time, {} of memory at its peak",
        Span(cost.collector_cpu),
        Bytes(cost.collector_peak_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(report: &Report, top: usize) -> String {
        let mut out = Vec::new();
        let options = TextOptions {
            top,
            sort: SortKey::Live,
        };
        write(report, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Make sure that the text of a report with every oddity is the reviewed one.
    #[test]
    fn golden() {
        sample::assert_golden("report.txt", &text(&sample::report(), 4));
    }

    /// Make sure that a report without stacks says so.
    #[test]
    fn golden_empty() {
        sample::assert_golden("empty.txt", &text(&sample::empty(), 4));
    }

    /// Make sure that nothing in a report can drive the terminal.
    #[test]
    fn no_control_characters() {
        let text = text(&sample::report(), 100);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }

    /// Make sure that the lines fit a terminal, except those that name the target's paths.
    #[test]
    fn fits_the_terminal() {
        for line in text(&sample::report(), 100).lines().skip(6) {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }
}
