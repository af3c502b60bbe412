//! `cargo xtask`: the development tasks of memtrace.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task tells on the terminal what it does"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod ebpf;
mod load;
mod packages;
mod shell;
mod strip;
mod tally;
mod test;
mod workload;

#[path = "../../tracer-ebpf/object/mod.rs"]
mod bpf_object;

/// Development tasks of memtrace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Rebuild the checked-in BPF object.
    Ebpf {
        /// Change nothing; fail if the checked-in object is not what its sources make.
        #[arg(long)]
        check: bool,
    },
    /// Trace a bundled server that leaks, and show what memtrace finds.
    Demo,
    /// Measure what tracing costs, next to other tracers.
    Bench(bench::Options),
    /// Run the tests: formatting, lints, unit tests, and those on the live kernel (as root).
    Test(test::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Ebpf { check } => ebpf::run_task(check),
        Task::Demo => demo::run_task(),
        Task::Bench(options) => bench::run_task(&options),
        Task::Test(options) => test::run_task(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
