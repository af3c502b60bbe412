//! `cargo xtask test`: formatting, lints, unit tests as the user, and the tests on the live kernel as root.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell::{
    as_root, build, build_memtrace, cargo, is_installed, is_root, run, step, workspace,
};
use crate::tally::Tally;
use crate::{ebpf, packages};

/// Tests that must at least pass in each tier; checked where no skip is allowed.
const FLOOR: &str = ".ci/floor";

/// A test program of the root tier that hangs is ended after this many seconds.
const TIME_LIMIT: &str = "1200";

#[derive(Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Options {
    /// Do not install the packages that the tests need.
    #[arg(long)]
    no_install: bool,
    /// Run only what needs no root: formatting, lints, unit tests.
    #[arg(long, conflicts_with = "root")]
    unit: bool,
    /// Run only the tests on the live kernel.
    #[arg(long)]
    root: bool,
    /// Rebuild the BPF object too, and compare it with the checked-in one.
    #[arg(long)]
    ebpf: bool,
}

/// Runs the tests and prints their count on the last line.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    let workspace = workspace()?;
    let strict = env::var_os("MEMTRACE_NO_SKIP").is_some_and(|value| value == "1");
    let mut broken = Vec::new();
    let mut tiers = Vec::new();

    if !options.unit {
        packages::provide(packages::TESTS, !options.no_install);
    }
    if options.ebpf && ebpf::run_task(true).inspect_err(complain).is_err() {
        broken.push("the BPF object".to_owned());
    }
    if !options.root {
        if step("check the formatting", || format(&workspace))
            .inspect_err(complain)
            .is_err()
        {
            broken.push("formatting".to_owned());
        }
        if step("check the lints", || lint(&workspace))
            .inspect_err(complain)
            .is_err()
        {
            broken.push("lints".to_owned());
        }
        tiers.push(("unit", step("run the unit tests", || unit(&workspace))?));
    }
    if !options.unit {
        tiers.push(("root", root(&workspace)?));
    }
    if strict {
        broken.extend(below_floor(&workspace, &tiers)?);
    }

    let mut sum = Tally::default();
    for (name, tally) in tiers {
        println!("{name} tier: {} passed", tally.passed());
        sum.add(tally);
    }
    for (name, reason) in &sum.skipped {
        println!("skipped {name}: {reason}");
    }
    for name in &sum.failures {
        println!("failed {name}");
    }
    for what in &broken {
        println!("broken: {what}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        sum.passed(),
        sum.failed,
        sum.skipped()
    );
    if sum.failed > 0 || !broken.is_empty() || (strict && sum.skipped() > 0) {
        bail!("the tests did not pass");
    }
    Ok(())
}

fn complain(error: &anyhow::Error) {
    eprintln!("    {error:#}");
}

fn format(workspace: &Path) -> Result<()> {
    run(cargo(workspace).args(["fmt", "--all", "--check"]))
}

/// Lints everything that compiles for the host; the BPF programs are linted where they are compiled.
fn lint(workspace: &Path) -> Result<()> {
    run(cargo(workspace)
        .args([
            "clippy",
            "--quiet",
            "--workspace",
            "--exclude",
            "tracer-ebpf",
        ])
        .args(["--all-targets", "--", "--deny", "warnings"]))
}

/// Runs the tests of the default members, as the user.
fn unit(workspace: &Path) -> Result<Tally> {
    let tally = Mutex::new(Tally::default());
    let mut tests = cargo(workspace);
    tests.args(["test", "--no-fail-fast", "--", "--nocapture"]);
    watch(&mut tests, "unit tests", &tally)?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Builds the tests on the live kernel as the user, and runs only their programs as root.
fn root(workspace: &Path) -> Result<Tally> {
    if !is_root() && !is_installed("sudo") {
        bail!(
            "the tests on the live kernel need root, and there is no sudo; `--unit` leaves them out"
        );
    }
    let memtrace = build_memtrace(workspace)?;
    let programs = step("build the tests on the live kernel", || {
        build(
            workspace,
            &["test", "--release", "--package", "tests", "--no-run"],
        )
    })?;
    let tally = Mutex::new(Tally::default());
    for (name, program) in programs {
        let mut command = as_root("env");
        command
            .arg(format!("MEMTRACE_BIN={}", memtrace.display()))
            .arg(format!("PATH={}", env::var("PATH").unwrap_or_default()))
            .args(forwarded())
            .args(["timeout", "--kill-after=10", TIME_LIMIT])
            .arg(&program)
            .arg("--nocapture")
            .current_dir(workspace.join("tests"));
        step(&format!("run `{name}` as root"), || {
            watch(&mut command, &name, &tally)
        })?;
    }
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Settings of the tests that sudo would drop.
fn forwarded() -> Vec<String> {
    env::vars()
        .filter(|(name, _)| name == "MEMTRACE_NO_SKIP" || name == "RUST_BACKTRACE")
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Runs a test program, passes on what it prints, and counts.
fn watch(command: &mut Command, name: &str, tally: &Mutex<Tally>) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {name}"))?;
    let failed_before = lock(tally).failed;
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout, name, tally, |line| println!("{line}")));
        scope.spawn(|| pass_on(stderr, name, tally, |line| eprintln!("{line}")));
    });
    let status = child.wait()?;
    let mut tally = lock(tally);
    if !status.success() && tally.failed == failed_before {
        tally.crashed(name, &status.to_string());
    }
    Ok(())
}

fn pass_on(stream: impl Read, program: &str, tally: &Mutex<Tally>, print: impl Fn(&str)) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line);
        print(&line);
        lock(tally).line(program, &line);
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tiers with fewer passed tests than the tree promises.
fn below_floor(workspace: &Path, tiers: &[(&str, Tally)]) -> Result<Vec<String>> {
    let text = fs::read_to_string(workspace.join(FLOOR))
        .with_context(|| format!("could not read {FLOOR}"))?;
    let mut broken = Vec::new();
    for line in text.lines() {
        let (name, least) = line
            .split_once(' ')
            .with_context(|| format!("{FLOOR}: `{line}` is not a tier and a number"))?;
        let least: u32 = least
            .parse()
            .with_context(|| format!("{FLOOR}: `{line}`"))?;
        for (tier, tally) in tiers {
            if *tier == name && tally.passed() < least {
                broken.push(format!(
                    "the {name} tier passed {} tests, {least} are promised in {FLOOR}",
                    tally.passed()
                ));
            }
        }
    }
    Ok(broken)
}
