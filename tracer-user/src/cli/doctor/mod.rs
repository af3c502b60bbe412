//! `memtrace doctor`: checks the machine, and says what would be probed in a process and whether the kernel agrees.

mod features;
mod finding;
mod machine;
mod process;
mod rights;
mod table;

use std::{io::stdout, process::ExitCode};

use anyhow::{Result, anyhow};

use super::{FAILED, Refused, args::DoctorArgs, privileges, trace::user_functions};
use finding::Sheet;
use process::Found;

/// Runs the checks, and returns the exit code.
pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let functions = user_functions(&args.functions).map_err(Refused)?;
    if args.pid.is_none() && !functions.is_empty() {
        return Err(Refused(anyhow!(
            "--alloc, --realloc and --free name functions of a process: say which one with -p PID"
        ))
        .into());
    }
    let found = args
        .pid
        .map(|pid| Found::in_process(pid, functions).map_err(|error| Refused(error.into())));
    let found = match found {
        // Without rights, the checks say what the process was refused for.
        Some(Err(refused)) if privileges::missing().is_empty() => return Err(refused.into()),
        found => found,
    };
    let mut sheet = Sheet::new(stdout().lock());
    sheet.section("Rights")?;
    for finding in rights::check() {
        sheet.tell(&finding)?;
    }
    sheet.section("Machine")?;
    for finding in machine::check() {
        sheet.tell(&finding)?;
    }
    sheet.section("Kernel, each feature tried")?;
    let backend = features::check(&mut sheet)?;
    sheet.settle()?;
    if let Some(found) = found {
        found?.tell(&mut sheet, backend)?;
    }
    sheet.sum()?;
    Ok(ExitCode::from(if sheet.failed() { FAILED } else { 0 }))
}
