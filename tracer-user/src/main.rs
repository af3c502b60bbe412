//! The `memtrace` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    memtrace::cli::main(std::env::args_os())
}
