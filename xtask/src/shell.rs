//! Running other programs: where the workspace is, steps that are announced and timed, who needs sudo.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Root of the workspace.
pub(crate) fn workspace() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("xtask lies in a workspace")?.to_owned())
}

/// Says what is being done, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "failed" };
    println!("    {verdict} in {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = line(command);
    let status = command
        .status()
        .with_context(|| format!("could not start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(())
}

/// Runs a command to its end and gives what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` failed: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a program of this name is in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // A process owns its own folder in /proc under its effective user.
    fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}

/// A command that runs as root: directly, or through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    sudo
}

/// The cargo that runs this task, in the workspace.
pub(crate) fn cargo(workspace: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace);
    cargo
}

/// Runs a cargo build and gives the executables that it made, with the names of their targets.
pub(crate) fn build(workspace: &Path, arguments: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let messages = output(
        cargo(workspace)
            .args(arguments)
            .arg("--message-format=json-render-diagnostics"),
    )?;
    let mut made = Vec::new();
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message)?;
        if let (Some(path), Some(name)) = (
            message["executable"].as_str(),
            message["target"]["name"].as_str(),
        ) {
            made.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(made)
}

/// Builds memtrace with optimizations, as the user, and gives its path.
pub(crate) fn build_memtrace(workspace: &Path) -> Result<PathBuf> {
    let arguments = ["build", "--release", "--package", "tracer-user"];
    let made = step("build memtrace (a few minutes the first time)", || {
        build(workspace, &arguments)
    })?;
    let memtrace = made.into_iter().find(|(name, _)| name == "memtrace");
    Ok(memtrace.context("cargo built no `memtrace`")?.1)
}
