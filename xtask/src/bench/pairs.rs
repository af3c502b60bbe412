//! Time per malloc and free pair, below a number of frames of stack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::tracer::{Tools, Tracer};
use crate::demo::compile;
use crate::workload::Workload;

/// Frames between `main` and the loop, in the comparison of tracers.
pub(crate) const DEPTHS: [u32; 2] = [0, 20];
/// Measurements per depth each time a tracer is attached.
const REPEATS: usize = 3;

/// Nanoseconds per pair, all measurements, by tracer and depth.
pub(crate) type Pairs = BTreeMap<(Tracer, u32), Vec<f64>>;

/// What is measured.
pub(crate) struct Plan<'a> {
    /// The tracers, each with the workload's build that it traces.
    pub(crate) tracers: &'a [(Tracer, PathBuf)],
    /// Frames between `main` and the loop.
    pub(crate) depths: &'a [u32],
    /// How often each tracer has its turn.
    pub(crate) rounds: u32,
}

/// The workload, with frame pointers.
pub(crate) fn workload(workspace: &Path) -> Result<PathBuf> {
    compile(workspace, "tests/bench/pairs.c")
}

/// Measures the tracers one after the other in each round, so that the machine's moods hit all alike.
pub(crate) fn measure(tools: &Tools, plan: &Plan<'_>) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    for round in 1..=plan.rounds {
        for (tracer, program) in plan.tracers {
            let tracer = *tracer;
            let program = program.to_str().context("the path is UTF-8")?;
            let mut workload = Workload::start(&mut tools.launch(tracer, program))?;
            // The first answer shows that the program runs and has its libraries.
            workload.ask_number("0 1")?;
            let _attached = tools.attach(tracer, workload.pid())?;
            for depth in plan.depths.iter().copied() {
                let count = count(tracer);
                workload.ask_number(&format!("{depth} {}", count / 10))?;
                for _ in 0..REPEATS {
                    let ns = workload.ask_number(&format!("{depth} {count}"))?;
                    println!("    round {round}: {tracer:?}, depth {depth}: {ns:.0} ns");
                    pairs.entry((tracer, depth)).or_default().push(ns);
                }
            }
        }
    }
    Ok(pairs)
}

/// Pairs per measurement: some tenths of a second for each tracer.
fn count(tracer: Tracer) -> u32 {
    match tracer {
        Tracer::Nobody => 5_000_000,
        Tracer::Floor | Tracer::Memtrace | Tracer::FramePointers | Tracer::Heaptrack => 200_000,
        Tracer::Entries | Tracer::Memleak => 20_000,
    }
}
