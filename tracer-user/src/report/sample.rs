//! Fixed reports for tests, with everything that can go wrong in a name or a stack.

use std::{path::Path, sync::Arc, time::Duration};

use tracer_common::{counters::Counter, stop::StopReason};

use super::{AllocatorInfo, Calls, Cost, Frame, Report, StackRow, TargetInfo, Totals};

/// Compares with the file in `testdata`, or writes it when `UPDATE_GOLDEN` is set.
pub(super) fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/report/testdata")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(actual, expected, "{name}: set UPDATE_GOLDEN=1 and review");
}

/// A row without frames or bytes.
pub(super) fn empty_row() -> StackRow {
    StackRow {
        id: 1,
        live_bytes: 0,
        live_count: 0,
        total_bytes: 0,
        total_count: 0,
        oldest: None,
        frames: Vec::new(),
        stop: StopReason::Complete,
    }
}

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn frame(function: &str, module: &str, offset: u64) -> Frame {
    Frame {
        function: Some(name(function)),
        module: Some(name(module)),
        offset,
        ..Frame::default()
    }
}

fn line(frame: Frame, file: &str, line: u32) -> Frame {
    Frame {
        file: Some(name(file)),
        line: Some(line),
        ..frame
    }
}

fn inlined(frame: Frame) -> Frame {
    Frame {
        inlined: true,
        ..frame
    }
}

/// A report of nothing: no allocator, no stack, no cost.
pub(super) fn empty() -> Report {
    Report {
        target: TargetInfo {
            pid: 7,
            comm: "idle".to_owned(),
            exe: "/bin/idle".to_owned(),
            rss_bytes: None,
            started: "2026-02-03T04:05:06Z".to_owned(),
        },
        allocators: Vec::new(),
        duration: Duration::ZERO,
        end: "the target exited".to_owned(),
        totals: Totals::default(),
        stacks: Vec::new(),
        counters: Vec::new(),
        warnings: Vec::new(),
        cost: Cost::default(),
    }
}

/// A report with hostile and long names, inlined, unknown and truncated frames, losses, notes and warnings.
pub(super) fn report() -> Report {
    let stacks = stacks();
    Report {
        target: TargetInfo {
            pid: 4_711,
            comm: "evil\u{1b}]0;x\u{7}".to_owned(),
            exe: "/opt/evil\n/server".to_owned(),
            rss_bytes: Some(1_288_490_188),
            started: "2026-02-03T04:05:06Z".to_owned(),
        },
        allocators: vec![
            AllocatorInfo {
                object: "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2".to_owned(),
                kind: "jemalloc",
                reason: "it comes before libc in the order of search, and defines malloc"
                    .to_owned(),
                functions: 23,
                single_stepped: 2,
                calls: Calls {
                    allocs: 1_234_567,
                    frees: 1_200_000,
                },
            },
            AllocatorInfo {
                object: "/opt/plugin\u{1b}[2J.so".to_owned(),
                kind: "user",
                reason: "named with --alloc".to_owned(),
                functions: 2,
                single_stepped: 0,
                calls: Calls::default(),
            },
        ],
        duration: Duration::from_millis(30_040),
        end: "Ctrl-C".to_owned(),
        totals: Totals {
            stacks: 9,
            live_bytes: 13_400_000,
            live_count: 4_700,
            total_bytes: 1_181_116_006,
            total_count: 1_234_567,
        },
        stacks,
        counters: vec![
            (Counter::LiveFull, 12),
            (Counter::LiveFullBytes, 4_096),
            (Counter::ReleaseMissed, 3),
            (Counter::FreeUnseen, 56_789),
            (Counter::Nested, 1_000_000),
        ],
        warnings: vec!["the target executed another image\u{1b}[0m".to_owned()],
        cost: Cost {
            probe_hits: 2_434_567,
            bpf: Some(Duration::from_millis(175)),
            traps: Some(Duration::from_millis(1_315)),
            target_cpu: Duration::from_millis(12_300),
            collector_cpu: Duration::from_millis(350),
            collector_peak_bytes: 47_395_635,
        },
    }
}

fn stacks() -> Vec<StackRow> {
    let exe = "/opt/evil\n/server";
    let libc = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    let main = || line(frame("main", exe, 0x1234), "/build/server/src/main.c", 99);
    let template = format!(
        "std::vector<{}>::push_back(int const&)",
        "std::pair<int, std::string>, ".repeat(20)
    );
    let row = |id, live_bytes, live_count, frames| StackRow {
        id,
        live_bytes,
        live_count,
        total_bytes: live_bytes * 10,
        total_count: live_count * 10,
        oldest: Some(Duration::from_millis(29_870)),
        frames,
        ..empty_row()
    };
    vec![
        row(
            0xfeed_0000_0000_0001,
            10_695_475,
            1_234,
            vec![
                inlined(line(
                    frame("<script>alert('x')</script>", exe, 0x2000),
                    "/a/very/long/way/to/the/sources/of/this/program/alloc.h",
                    7,
                )),
                line(frame(&template, exe, 0x2000), "relative/vector.h", 1_000),
                frame("<[u8; 4] as Clone>::clone", exe, 0x1_0000),
                main(),
                frame("__libc_start_call_main", libc, 0x2724a),
            ],
        ),
        StackRow {
            stop: StopReason::BadFramePointer,
            ..row(
                2,
                2_097_152,
                1,
                vec![
                    frame("evil\u{1b}[31mred\nnewline\u{202e}", exe, 0x3000),
                    Frame {
                        module: Some(name(libc)),
                        offset: 0x1234,
                        ..Frame::default()
                    },
                ],
            )
        },
        StackRow {
            stop: StopReason::TooDeep,
            oldest: Some(Duration::from_hours(26)),
            ..row(
                3,
                1_000,
                2,
                vec![
                    Frame {
                        offset: 0x7f00_dead_beef,
                        ..Frame::default()
                    },
                    Frame {
                        module: Some(name("[anon]")),
                        offset: 0x7f00_0000_1000,
                        ..Frame::default()
                    },
                    frame("__vdso_gettimeofday", "[vdso]", 0x800),
                ],
            )
        },
        // The table of stacks was full.
        row(0, 900, 9, Vec::new()),
        // Same names at another address: one line when folded.
        row(
            5,
            500,
            5,
            vec![main(), frame("__libc_start_call_main", libc, 0x2724a)],
        ),
        row(
            6,
            300,
            3,
            vec![main(), frame("__libc_start_call_main", libc, 0x2724a)],
        ),
        StackRow {
            total_bytes: 77,
            total_count: 1,
            oldest: None,
            ..row(7, 0, 0, vec![main()])
        },
    ]
}
