//! `cargo xtask`: the development tasks of memtrace.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task tells on the terminal what it does"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod ebpf;
mod shell;
mod strip;

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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Ebpf { check } => ebpf::run_task(check),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
