//! A tracing run: checks, the run, the report, the files, the command's exit code.

use std::{
    env::var_os,
    ffi::OsString,
    io::{BufWriter, Write as _, stdout},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use super::{
    Refused,
    args::{Attach, FunctionArgs, ProbePrograms, Sites, Sort, TraceArgs, Unwind},
    outputs::Outputs,
    privileges,
    terminal::Terminal,
};
use crate::{
    kernel::{Programs, features::Backend},
    report::{
        SortKey,
        text::{self, TextOptions},
    },
    session::{self, Finished, Launched, Observer as _, Options, Target},
    target::user::{UserFunction, UserFunctions, UserKind},
};

/// Where what is costly to make or to fetch is kept between runs, unless `MEMTRACE_CACHE_DIR` says otherwise.
const CACHE_FOLDER: &str = "/var/cache/memtrace";

/// Runs a trace and returns the exit code.
pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    let top = args.top;
    let options = options(args).map_err(Refused)?;
    check_privileges().map_err(Refused)?;
    let outputs = Outputs::open(
        args.output.as_deref(),
        args.folded.as_deref(),
        args.json.as_deref(),
    )
    .map_err(Refused)?;
    let terminal = Terminal::new();
    let attached = session::attach(&options, &terminal).map_err(Refused)?;
    let result = attached.run(&options, &terminal);
    terminal.clear();
    let Finished {
        report,
        command,
        detaching,
    } = result?;
    let mut out = BufWriter::new(stdout().lock());
    let options = TextOptions {
        top,
        sort: options.sort,
    };
    text::write(&report, options, &mut out)?;
    out.flush()?;
    drop(out);
    let mut failed = 0;
    for written in outputs.write(&report) {
        match written {
            Ok(path) => terminal.notice(&format!("wrote {}", path.display())),
            Err(error) => {
                failed += 1;
                terminal.notice(&format!("{error:#}"));
            }
        }
    }
    drop(detaching);
    let code = match command {
        Some(command) => pass_through(command, &terminal)?,
        None => ExitCode::SUCCESS,
    };
    if failed != 0 {
        bail!("{failed} of the files could not be written");
    }
    Ok(code)
}

fn options(args: &TraceArgs) -> Result<Options> {
    let target = match args.pid {
        Some(pid) => Target::Running(pid),
        None => Target::Command(args.run.clone()),
    };
    let cache_folder = (!args.no_cache).then(|| {
        environment("MEMTRACE_CACHE_DIR").map_or_else(|| CACHE_FOLDER.into(), PathBuf::from)
    });
    Ok(Options {
        target,
        duration: args.duration,
        max_live: args.max_live,
        min_size_bytes: args.min_size,
        older_than: args.older_than,
        sort: match args.sort {
            Sort::Live => SortKey::Live,
            Sort::Count => SortKey::Count,
            Sort::Total => SortKey::Total,
            Sort::Age => SortKey::Age,
        },
        functions: user_functions(&args.functions)?,
        unwind_by_tables: args.unwind == Unwind::Auto,
        table_memory_bytes: args.table_memory,
        debug_folders: args
            .debug_folders
            .iter()
            .map(|folder| {
                folder
                    .canonicalize()
                    .with_context(|| format!("--debug-dir {}", folder.display()))
            })
            .collect::<Result<_>>()?,
        debuginfod_urls: environment("DEBUGINFOD_URLS")
            .map(|urls| urls.to_string_lossy().into_owned()),
        debuginfod_folder: environment("DEBUGINFOD_CACHE_PATH")
            .map(PathBuf::from)
            .or_else(|| {
                let folder = cache_folder.as_ref()?;
                Some(folder.join("debuginfod"))
            }),
        cache_folder,
        log_bpf: args.log_bpf,
        backend: match args.attach {
            Attach::Auto => None,
            Attach::Session => Some(Backend::Session),
            Attach::Multi => Some(Backend::Multi),
            Attach::PerfEvent => Some(Backend::PerfEvent),
        },
        programs: match args.programs {
            ProbePrograms::Record => Programs::Record,
            ProbePrograms::Empty => Programs::Empty,
        },
        at_entry: args.sites == Sites::Entry,
    })
}

/// A variable of the environment; an empty one counts as absent.
fn environment(name: &str) -> Option<OsString> {
    var_os(name).filter(|value| !value.is_empty())
}

/// The functions that the user named.
pub(super) fn user_functions(args: &FunctionArgs) -> Result<UserFunctions> {
    let FunctionArgs {
        alloc,
        realloc,
        free,
    } = args;
    let mut functions = UserFunctions::new();
    for (kind, specs) in [
        (UserKind::Alloc, alloc),
        (UserKind::Realloc, realloc),
        (UserKind::Free, free),
    ] {
        for spec in specs {
            functions.push(UserFunction::parse(kind, spec)?);
        }
    }
    Ok(functions)
}

fn check_privileges() -> Result<()> {
    let missing = privileges::missing();
    if !missing.is_empty() {
        bail!(
            "not permitted: {} missing; run memtrace with sudo",
            missing.join(", ")
        );
    }
    if !privileges::in_initial_pid_namespace() {
        bail!(
            "memtrace runs in a pid namespace of its own (a container?), where process ids differ from those that the \
             kernel's probes see; run it on the host, or in a container with the host's pid namespace"
        );
    }
    Ok(())
}

/// Waits for the command and passes its exit code on. Signals that reach memtrace meanwhile go to the command.
fn pass_through(mut command: Launched, terminal: &Terminal) -> Result<ExitCode> {
    if command.is_running() {
        terminal.notice(&format!(
            "the command (pid {}) goes on; memtrace waits for its end",
            command.id()
        ));
    }
    let status = session::forward_signals_until_exit(&mut command)?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code & 0xff)?))
}
