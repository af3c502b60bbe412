//! The command line: parsed by clap, turned into plain options at once. Prints; nothing below does but `report/`.
#![expect(
    clippy::print_stderr,
    reason = "messages go to stderr, one line each, with the program's name"
)]

mod args;
mod doctor;
mod outputs;
mod privileges;
mod quantity;
mod terminal;
mod trace;

use std::{ffi::OsString, io, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};

use args::{Args, Command};

/// Exit code of a run that failed on the way.
const FAILED: u8 = 1;
/// Exit code of a run that could not begin: bad usage, a target that cannot be traced, a missing privilege.
const REFUSED: u8 = 2;

/// An error that was found before anything was attached.
#[derive(Debug)]
pub(crate) struct Refused(anyhow::Error);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Runs the command line and returns the exit code.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help on stdout, errors on stderr. A closed pipe is nobody's failure.
            let _closed = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(REFUSED),
            };
        }
    };
    let result = match args.command {
        Some(Command::Doctor(doctor)) => doctor::run(&doctor),
        None => trace::run(&args.trace),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memtrace: {error:#}");
            ExitCode::from(if error.is::<Refused>() {
                REFUSED
            } else {
                FAILED
            })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
