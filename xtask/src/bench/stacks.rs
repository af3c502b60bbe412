//! `cargo xtask bench stacks`: what a stack frame costs, and whether the stacks of real programs are whole.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;

use super::machine;
use super::page::{line, median};
use super::pairs::{self, Pairs, Plan};
use super::tracer::{Tools, Tracer};
use super::truth::{self, Truth};
use crate::demo::compile_as;
use crate::shell::{build_memtrace, step, workspace};

/// The page that the benchmark writes.
const PAGE: &str = "docs/unwinding-performance.md";
/// Frames between `main` and the loop.
const DEPTHS: [u32; 3] = [5, 20, 60];
/// Nanoseconds that a frame may take.
const AIM: f64 = 60.0;

/// How thorough the benchmark is.
#[derive(Args)]
pub(crate) struct Options {
    /// One short round, to see that everything runs; writes no page.
    #[arg(long)]
    quick: bool,
}

/// Runs the benchmark and writes its page.
pub(super) fn run_task(options: &Options) -> Result<()> {
    println!("The benchmark takes under 3 minutes, and nothing else should run meanwhile.");
    let workspace = workspace()?;
    let tools = Tools {
        memtrace: build_memtrace(&workspace)?,
        kernel_headers: None,
        folder: workspace.join("target/xtask/bench"),
    };
    fs::create_dir_all(&tools.folder)?;
    let machine = machine::describe(&tools.memtrace)?;
    let start = Instant::now();
    let with = pairs::workload(&workspace)?;
    let without = compile_as(
        &workspace,
        "tests/bench/pairs.c",
        "-no-fp",
        &["-fomit-frame-pointer"],
    )?;
    let pairs = step("time per stack frame", || {
        let plan = Plan {
            tracers: &[
                (Tracer::Floor, without.clone()),
                (Tracer::FramePointers, with),
                (Tracer::Memtrace, without),
            ],
            depths: &DEPTHS,
            rounds: if options.quick { 1 } else { 5 },
        };
        pairs::measure(&tools, &plan)
    })?;
    let truth = step("stacks of real programs", || truth::measure(&tools))?;
    let seconds = start.elapsed().as_secs_f64();
    let text = render(&machine, seconds, &pairs, &truth);
    println!("\n{text}");
    if options.quick {
        println!("{PAGE} is left as it is: one short round proves nothing.");
        return Ok(());
    }
    fs::write(workspace.join(PAGE), text).with_context(|| format!("could not write {PAGE}"))?;
    println!("Written to {PAGE}.");
    Ok(())
}

/// The page in Markdown; every number on it was measured in the run that wrote it.
fn render(
    machine: &[(&'static str, String)],
    seconds: f64,
    pairs: &Pairs,
    truth: &[Truth],
) -> String {
    let mut page = String::from(
        "# Whole stacks, and what they cost\n\n\
         This page was written by `cargo xtask bench stacks`, in one run.\n\n| | |\n|---|---|\n",
    );
    let told = ["memleak", "heaptrack"];
    for (what, which) in machine.iter().filter(|(what, _)| !told.contains(what)) {
        line(&mut page, &[(*what).to_owned(), which.clone()]);
    }
    line(&mut page, &["run".to_owned(), format!("{seconds:.0} s")]);
    cost(&mut page, pairs);
    wholeness(&mut page, truth);
    page
}

fn cost(page: &mut String, pairs: &Pairs) {
    page.push_str(
        "\n## The cost of a stack\n\n\
         Nanoseconds per pair of malloc and free in a loop below so many frames; medians, the tracers taking turns. The \
         floor is what the kernel takes for the three probes with programs that do nothing. One program is built \
         without frame pointers and walked by tables up to `_start`, the other with them and walked by them up to \
         `main`: the C library has none.\n\n\
         | frames above `main` | floor | by frame pointers | by tables | of that, above the floor |\n\
         |--:|--:|--:|--:|--:|\n",
    );
    let of = |tracer, depth| median(pairs.get(&(tracer, depth)).map_or(&[][..], Vec::as_slice));
    for depth in DEPTHS {
        let floor = of(Tracer::Floor, depth);
        let tables = of(Tracer::Memtrace, depth);
        let cells = [
            depth.to_string(),
            format!("{floor:.0}"),
            format!("{:.0}", of(Tracer::FramePointers, depth)),
            format!("{tables:.0}"),
            format!("{:.0}", tables - floor),
        ];
        line(page, &cells);
    }
    let [least, _, most] = DEPTHS;
    let per_frame = |tracer| (of(tracer, most) - of(tracer, least)) / f64::from(most - least);
    let _ = writeln!(
        page,
        "\nFrom {least} to {most} frames, each further frame takes {:.1} ns by tables (aim: at most {AIM:.0}) and {:.1} \
         ns by frame pointers; {:.1} ns without any walk, of the program's own calls and returns.",
        per_frame(Tracer::Memtrace),
        per_frame(Tracer::FramePointers),
        per_frame(Tracer::Floor),
    );
}

fn wholeness(page: &mut String, truth: &[Truth]) {
    page.push_str(
        "\n## Stacks of real programs\n\n\
         Each program was traced from its first instruction to its end. A stack is whole when it reaches the start of \
         its thread; stacks are weighted by their allocations.\n\n\
         | program | load | allocations | whole | cut, and why |\n|---|---|--:|--:|---|\n",
    );
    for truth in truth {
        let cut: Vec<String> = truth
            .cut
            .iter()
            .map(|(reason, count)| format!("{count}: {reason}"))
            .collect();
        let cells = [
            truth.program.to_owned(),
            truth.load.to_owned(),
            truth.allocations.to_string(),
            format!("{:.3} %", truth.whole_percent()),
            if cut.is_empty() {
                "none".to_owned()
            } else {
                cut.join("; ")
            },
        ];
        line(page, &cells);
    }
}
