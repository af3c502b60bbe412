//! `cargo xtask demo`: a leaking server under load, traced for ten seconds.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::load::Load;
use crate::shell::{as_root, build_memtrace, is_installed, is_root, line, run, step, workspace};
use crate::workload::Workload;

/// How long memtrace records.
const DURATION: &str = "10s";
/// Where the flamegraph goes, in the current folder.
const SVG: &str = "memtrace-demo.svg";
/// The server's function that leaks.
const LEAK: &str = "create_session";
/// The oldest kernel that memtrace is meant for: the first with `bpf_loop`.
const OLDEST_KERNEL: (u32, u32) = (5, 17);

/// Builds everything, traces the server and shows what leaked.
pub(crate) fn run_task() -> Result<()> {
    check_machine()?;
    println!("The demo builds memtrace and a small server that leaks, puts the server under load,");
    println!(
        "traces it for {DURATION} and shows the report: about 15 s, and a few minutes for the first build."
    );
    let workspace = workspace()?;
    let memtrace = build_memtrace(&workspace)?;
    let program = step("build the leaking server", || {
        compile(&workspace, "tests/demo/leaky_server.c")
    })?;

    // The server ends with its standard input, so it cannot outlive us, however we end.
    let mut server = Workload::start(&mut Command::new(&program))?;
    let port = server
        .read_line()?
        .trim()
        .parse()
        .context("the server told no port")?;
    let _load = Load::start(port)?;
    println!(
        "==> the server (pid {}) listens on 127.0.0.1:{port} and gets 400 requests per second",
        server.pid()
    );

    let json = program.with_extension("json");
    let mut command = as_root(&memtrace);
    command
        .args([
            "-p",
            &server.pid().to_string(),
            "-d",
            DURATION,
            "-o",
            SVG,
            "--json",
        ])
        .arg(&json);
    step(&line(&command), || run(&mut command))?;
    explain(&json)?;
    println!(
        "The flamegraph: {}",
        std::env::current_dir()?.join(SVG).display()
    );
    Ok(())
}

/// Says what is missing on this machine before anything is built.
fn check_machine() -> Result<()> {
    ensure!(
        (OS, ARCH) == ("linux", "x86_64"),
        "memtrace needs Linux on x86-64, this is {OS} on {ARCH}"
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST_KERNEL;
    ensure!(
        kernel >= OLDEST_KERNEL,
        "memtrace needs Linux {major}.{minor}, this is {}",
        release.trim()
    );
    ensure!(
        is_installed("cc"),
        "the demo needs a C compiler: apt-get install gcc libc6-dev"
    );
    ensure!(
        is_root() || is_installed("sudo"),
        "tracing needs root, and there is no sudo: run this as root"
    );
    Ok(())
}

/// Compiles a C program of the tests, with frame pointers and line numbers.
pub(crate) fn compile(workspace: &Path, source: &str) -> Result<PathBuf> {
    compile_as(workspace, source, "", &["-fno-omit-frame-pointer"])
}

/// Compiles a C program of the tests with line numbers and these options; `suffix` tells its builds apart.
pub(crate) fn compile_as(
    workspace: &Path,
    source: &str,
    suffix: &str,
    options: &[&str],
) -> Result<PathBuf> {
    let folder = workspace.join("target/xtask");
    fs::create_dir_all(&folder)?;
    let source = workspace.join(source);
    let mut name = source
        .file_stem()
        .context("a source has a name")?
        .to_owned();
    name.push(suffix);
    let program = folder.join(name);
    run(Command::new("cc")
        .args(["-O1", "-g", "-pthread", "-Wall"])
        .args(options)
        .arg("-o")
        .arg(&program)
        .arg(&source))?;
    Ok(program)
}

/// Points at the leaking stacks in memtrace's own findings.
fn explain(json: &Path) -> Result<()> {
    let text =
        fs::read_to_string(json).with_context(|| format!("could not read {}", json.display()))?;
    let report: Value = serde_json::from_str(&text)?;
    let stacks = report["stacks"]
        .as_array()
        .context("the report has no stacks")?;
    let leaks: Vec<(&Value, String)> = stacks
        .iter()
        .filter_map(|stack| Some((stack, functions(stack)?)))
        .collect();
    let Some((_, path)) = leaks.first() else {
        bail!("the report does not show `{LEAK}`, which leaks");
    };
    let sum = |field: &str| -> u64 {
        let values = leaks.iter().filter_map(|(stack, _)| stack[field].as_u64());
        values.sum()
    };
    println!();
    println!(
        "The leak is {path}: {} bytes in {} blocks are still live after {DURATION}, and each login adds more.",
        sum("live_bytes"),
        sum("live_count")
    );
    println!(
        "`render_page` fills a cache that is bounded, `find_hit` releases all that it takes: no leaks."
    );
    Ok(())
}

/// The functions of a stack from the leaking one to its caller's caller, if it is that stack.
fn functions(stack: &Value) -> Option<String> {
    let names: Vec<&str> = stack["frames"]
        .as_array()?
        .iter()
        .filter_map(|frame| frame["function"].as_str())
        .collect();
    let leaf = names.iter().position(|name| *name == LEAK)?;
    Some(
        names
            .iter()
            .skip(leaf)
            .take(3)
            .copied()
            .collect::<Vec<_>>()
            .join(" < "),
    )
}
