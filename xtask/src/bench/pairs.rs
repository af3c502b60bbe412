//! Time per malloc and free pair, in a tight loop and below 20 frames of stack.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::tracer::{self, Tools, Tracer};
use crate::demo::compile;
use crate::workload::Workload;

/// Frames between `main` and the loop.
pub(crate) const DEPTHS: [u32; 2] = [0, 20];
/// Measurements per depth each time a tracer is attached.
const REPEATS: usize = 3;

/// Nanoseconds per pair, all measurements, by tracer and depth.
pub(crate) type Pairs = BTreeMap<(Tracer, u32), Vec<f64>>;

/// Measures every tracer `rounds` times, one after the other, so that the machine's moods hit all alike.
pub(crate) fn measure(workspace: &Path, tools: &Tools, rounds: u32) -> Result<Pairs> {
    let program = compile(workspace, "tests/bench/pairs.c")?;
    let program = program.to_str().context("the path is UTF-8")?;
    let mut pairs = Pairs::new();
    for round in 1..=rounds {
        for tracer in tracer::ALL {
            let mut workload = Workload::start(&mut tools.launch(tracer, program))?;
            // The first answer shows that the program runs and has its libraries.
            workload.ask_number("0 1")?;
            let _attached = tools.attach(tracer, workload.pid())?;
            for depth in DEPTHS {
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
        Tracer::Floor | Tracer::Memtrace | Tracer::Heaptrack => 200_000,
        Tracer::Entries | Tracer::Memleak => 20_000,
    }
}
