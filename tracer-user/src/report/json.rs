//! The report as JSON, described field by field in docs/json.md. Fields are added, never renamed or removed.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tracer_common::{counters::CounterKind, stop::StopReason, wire::STACK_NOT_STORED};

use super::{Frame, Report, StackRow};

/// Changes only if a reader of the old form would be wrong about the new one.
const VERSION: u32 = 1;

/// Writes the report as one line of JSON.
///
/// # Errors
///
/// When `out` fails.
pub fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Document::new(report))?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    target: Target<'a>,
    started: &'a str,
    duration_seconds: f64,
    end: &'a str,
    allocator: Vec<Allocator<'a>>,
    totals: Totals,
    stacks: Stacks<'a>,
    losses: Counters<'a>,
    notes: Counters<'a>,
    warnings: &'a [String],
    cost: Cost,
}

#[derive(Serialize)]
struct Target<'a> {
    pid: u32,
    comm: &'a str,
    exe: &'a str,
    rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Allocator<'a> {
    object: &'a str,
    kind: &'a str,
    reason: &'a str,
    functions: usize,
    single_stepped: usize,
    calls: Calls,
}

#[derive(Serialize)]
struct Calls {
    allocs: u64,
    frees: u64,
}

#[derive(Serialize)]
struct Totals {
    stacks: u64,
    live_bytes: u64,
    live_count: u64,
    total_bytes: u64,
    total_count: u64,
}

#[derive(Serialize)]
struct Stack<'a> {
    id: String,
    lens: &'static str,
    live_bytes: u64,
    live_count: u64,
    total_bytes: u64,
    total_count: u64,
    oldest_seconds: Option<f64>,
    truncated: Option<&'static str>,
    frames: Frames<'a>,
}

#[derive(Serialize)]
struct FrameView<'a> {
    function: Option<&'a str>,
    module: Option<&'a str>,
    offset: u64,
    file: Option<&'a str>,
    line: Option<u32>,
    inlined: bool,
    kind: &'static str,
}

#[derive(Serialize)]
struct Cost {
    probe_hits: u64,
    bpf_seconds: Option<f64>,
    trap_seconds: Option<f64>,
    target_cpu_seconds: f64,
    overhead_percent: Option<f64>,
    collector_cpu_seconds: f64,
    collector_peak_bytes: u64,
}

/// Stacks are turned into their form one by one: there can be tens of thousands.
struct Stacks<'a>(&'a [StackRow]);

struct Frames<'a>(&'a [Frame]);

/// The counters of one kind that are not zero, by name.
struct Counters<'a>(&'a Report, CounterKind);

impl Serialize for Stacks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Stack::from))
    }
}

impl Serialize for Frames<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(FrameView::from))
    }
}

impl Serialize for Counters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(report, kind) = self;
        serializer.collect_map(
            report
                .counters
                .iter()
                .filter(|(counter, value)| counter.kind() == *kind && *value > 0)
                .map(|(counter, value)| (counter.name(), value)),
        )
    }
}

impl<'a> Document<'a> {
    fn new(report: &'a Report) -> Self {
        let Report {
            target,
            allocators,
            duration,
            end,
            totals,
            stacks,
            counters: _,
            warnings,
            cost,
        } = report;
        Self {
            version: VERSION,
            target: Target {
                pid: target.pid,
                comm: &target.comm,
                exe: &target.exe,
                rss_bytes: target.rss_bytes,
            },
            started: &target.started,
            duration_seconds: duration.as_secs_f64(),
            end,
            allocator: allocators
                .iter()
                .map(|allocator| Allocator {
                    object: &allocator.object,
                    kind: allocator.kind,
                    reason: &allocator.reason,
                    functions: allocator.functions,
                    single_stepped: allocator.single_stepped,
                    calls: Calls {
                        allocs: allocator.calls.allocs,
                        frees: allocator.calls.frees,
                    },
                })
                .collect(),
            totals: Totals {
                stacks: totals.stacks,
                live_bytes: totals.live_bytes,
                live_count: totals.live_count,
                total_bytes: totals.total_bytes,
                total_count: totals.total_count,
            },
            stacks: Stacks(stacks),
            losses: Counters(report, CounterKind::Loss),
            notes: Counters(report, CounterKind::Note),
            warnings,
            cost: Cost {
                probe_hits: cost.probe_hits,
                bpf_seconds: cost.bpf.as_ref().map(Duration::as_secs_f64),
                trap_seconds: cost.traps.as_ref().map(Duration::as_secs_f64),
                target_cpu_seconds: cost.target_cpu.as_secs_f64(),
                overhead_percent: cost.overhead_percent(),
                collector_cpu_seconds: cost.collector_cpu.as_secs_f64(),
                collector_peak_bytes: cost.collector_peak_bytes,
            },
        }
    }
}

impl<'a> From<&'a StackRow> for Stack<'a> {
    fn from(row: &'a StackRow) -> Self {
        let truncated = match row.stop {
            _ if row.id == STACK_NOT_STORED => Some("stack not stored"),
            StopReason::Complete => None,
            reason => Some(reason.text()),
        };
        Self {
            id: format!("{:016x}", row.id),
            lens: "heap",
            live_bytes: row.live_bytes,
            live_count: row.live_count,
            total_bytes: row.total_bytes,
            total_count: row.total_count,
            oldest_seconds: row.oldest.map(|age| age.as_secs_f64()),
            truncated,
            frames: Frames(&row.frames),
        }
    }
}

impl<'a> From<&'a Frame> for FrameView<'a> {
    fn from(frame: &'a Frame) -> Self {
        Self {
            function: frame.function.as_deref(),
            module: frame.module.as_deref(),
            offset: frame.offset,
            file: frame.file.as_deref(),
            line: frame.line,
            inlined: frame.inlined,
            kind: frame.kind().name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn json(report: &Report) -> serde_json::Value {
        let mut out = Vec::new();
        write(report, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    /// Make sure that the JSON of a report with every oddity is the reviewed one.
    #[test]
    fn golden() {
        let mut text = serde_json::to_string_pretty(&json(&sample::report())).unwrap();
        text.push('\n');
        sample::assert_golden("report.json", &text);
    }

    /// Make sure that a report with nothing in it keeps every field.
    #[test]
    fn empty_report_has_every_field() {
        let (full, empty) = (json(&sample::report()), json(&sample::empty()));
        let keys = |value: &serde_json::Value| {
            let object = value.as_object().unwrap();
            object.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&full), keys(&empty));
        assert_eq!(empty["stacks"], serde_json::json!([]));
        assert_eq!(empty["losses"], serde_json::json!({}));
        assert_eq!(empty["cost"]["overhead_percent"], serde_json::Value::Null);
    }

    /// Make sure that every field is described for its readers.
    #[test]
    fn documented() {
        let text = include_str!("../../../docs/json.md");
        for counter in tracer_common::counters::Counter::ALL {
            assert!(
                text.contains(&format!("`{}`", counter.name())),
                "{counter:?}"
            );
        }
        let mut pending = vec![json(&sample::report())];
        while let Some(value) = pending.pop() {
            match value {
                serde_json::Value::Array(values) => pending.extend(values),
                serde_json::Value::Object(object) => {
                    for (key, value) in object {
                        assert!(text.contains(&format!("`{key}`")), "{key}");
                        pending.push(value);
                    }
                }
                _ => {}
            }
        }
    }
}
