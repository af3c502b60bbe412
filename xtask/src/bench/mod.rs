//! `cargo xtask bench`: what tracing costs, side by side in one run, and how many stacks of real programs are whole.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use crate::packages;
use crate::shell::{build_memtrace, is_installed, is_root, step, workspace};

mod headers;
mod machine;
mod page;
mod pairs;
mod redis;
mod stacks;
mod tracer;
mod truth;

use page::Results;
use tracer::Tools;

/// The page that the benchmark writes.
const PAGE: &str = "docs/performance.md";

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Time per malloc and free pair, and throughput of redis, untraced and under several tracers.
    Heap(HeapOptions),
    /// Time per stack frame, by tables and by frame pointers, and how many stacks of real programs are whole.
    Stacks(stacks::Options),
}

/// How thorough the benchmark is.
#[derive(Args)]
pub(crate) struct HeapOptions {
    /// One short round, to see that everything runs; writes no page.
    #[arg(long)]
    quick: bool,
    /// Do not install the packages of the other tracers.
    #[arg(long)]
    no_install: bool,
}

/// Runs the benchmark and writes its page.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    ensure!(
        is_root() || is_installed("sudo"),
        "tracing needs root, and there is no sudo: run this as root"
    );
    match &options.what {
        What::Heap(options) => heap(options),
        What::Stacks(options) => stacks::run_task(options),
    }
}

fn heap(options: &HeapOptions) -> Result<()> {
    let length = if options.quick {
        "about a minute"
    } else {
        "about 10 minutes"
    };
    println!(
        "The benchmark compares tracers on this machine: {length}, and nothing else should run meanwhile."
    );
    packages::provide(packages::BENCHMARK, !options.no_install);
    let workspace = workspace()?;
    let tools = Tools {
        memtrace: build_memtrace(&workspace)?,
        kernel_headers: headers::provide(&workspace)?,
        folder: workspace.join("target/xtask/bench"),
    };
    fs::create_dir_all(&tools.folder)?;
    let (pair_rounds, redis_rounds, requests) = if options.quick {
        (1, 1, 20_000)
    } else {
        (5, 3, 200_000)
    };
    let machine = machine::describe(&tools.memtrace)?;
    let start = Instant::now();
    let pairs = step("malloc and free pairs", || {
        let program = pairs::workload(&workspace)?;
        let plan = pairs::Plan {
            tracers: &tracer::ALL.map(|tracer| (tracer, program.clone())),
            depths: &pairs::DEPTHS,
            rounds: pair_rounds,
        };
        pairs::measure(&tools, &plan)
    })?;
    let redis = step("redis-benchmark", || {
        redis::measure(&tools, redis_rounds, requests)
    })?;
    let results = Results {
        machine,
        minutes: start.elapsed().as_secs_f64() / 60.0,
        pairs,
        requests,
        redis,
    };
    let text = page::render(&results);
    println!("\n{text}");
    if options.quick {
        println!("{PAGE} is left as it is: one short round proves nothing.");
        return Ok(());
    }
    fs::write(workspace.join(PAGE), text).with_context(|| format!("could not write {PAGE}"))?;
    println!("Written to {PAGE}.");
    Ok(())
}
