//! How the BPF object is made and recognised; shared by `cargo xtask ebpf` and the build script of tracer-user.
//!
//! The object is checked in beside this file together with the hash of the sources that made it, so that building
//! memtrace needs nothing but stable Rust as long as nobody changed those sources.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The checked-in object, relative to the workspace.
pub(crate) const OBJECT: &str = "tracer-ebpf/object/memtrace.bpf.o";

/// The hash of the sources that made [`OBJECT`], relative to the workspace.
pub(crate) const RECORDED: &str = "tracer-ebpf/object/memtrace.bpf.o.sources";

/// What the object's bytes depend on: files and folders, relative to the workspace.
pub(crate) const SOURCES: [&str; 6] = [
    "rust-toolchain.toml",
    "tracer-common/Cargo.toml",
    "tracer-common/src",
    "tracer-ebpf/Cargo.toml",
    "tracer-ebpf/object/mod.rs",
    "tracer-ebpf/src",
];

/// Packages of the lock file that are compiled into the object.
const LOCKED: [&str; 2] = ["aya-ebpf", "aya-log-"];

/// What makes the object anew, and installs bpf-linker where it is missing.
pub(crate) const REBUILD: &str = "cargo xtask ebpf";

/// SHA-256 over the names and contents of everything that the object is made of, in hexadecimal.
///
/// # Errors
///
/// When a source cannot be read.
pub(crate) fn sources_hash(workspace: &Path) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect_files(&workspace.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(workspace).unwrap_or(&file);
        let content = read(&file)?;
        add(&mut hash, name.as_os_str().as_encoded_bytes(), &content);
    }
    let lock = String::from_utf8(read(&workspace.join("Cargo.lock"))?)?;
    for package in lock.split("\n\n") {
        let name = package.split('"').nth(1).unwrap_or_default();
        if LOCKED.iter().any(|prefix| name.starts_with(prefix)) {
            add(&mut hash, name.as_bytes(), package.trim().as_bytes());
        }
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

/// Whether the checked-in object was made from the sources of this tree.
///
/// # Errors
///
/// When a source cannot be read.
pub(crate) fn is_current(workspace: &Path) -> Result<bool> {
    let recorded = fs::read_to_string(workspace.join(RECORDED)).unwrap_or_default();
    Ok(workspace.join(OBJECT).is_file() && recorded.trim() == sources_hash(workspace)?)
}

/// Compiles the object from source and returns its path below `target_dir`.
///
/// # Errors
///
/// When a tool is missing, with the command that installs it, or when the compilation fails.
pub(crate) fn build(workspace: &Path, target_dir: &Path, linker: &Path) -> Result<PathBuf> {
    let mut cargo = cargo_for_bpf(workspace, "build", target_dir)?;
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    let status = cargo.status().context("could not start cargo")?;
    if !status.success() {
        bail!("compiling the BPF programs failed: {status}");
    }
    Ok(target_dir.join("bpfel-unknown-none/release/tracer-ebpf"))
}

/// A cargo whose `subcommand` works on the BPF programs, for their target.
///
/// The bytes that it makes do not depend on where the workspace, the registry or the toolchain lie.
///
/// # Errors
///
/// When the source of Rust's core library is missing, with the command that installs it.
pub(crate) fn cargo_for_bpf(
    workspace: &Path,
    subcommand: &str,
    target_dir: &Path,
) -> Result<Command> {
    let sysroot = sysroot(workspace)?;
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        bail!(
            "the BPF object needs the source of Rust's core library: rustup component add rust-src"
        );
    }
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        "-Ccodegen-units=1".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        remap(&sysroot, "/rust"),
        remap(workspace, "/memtrace"),
    ];
    for registry in registries()? {
        flags.push(remap(&registry, "/crates"));
    }
    let mut cargo = cargo(workspace);
    cargo
        .args([subcommand, "--quiet", "--locked", "--release"])
        .args(["--package", "tracer-ebpf", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    Ok(cargo)
}

/// bpf-linker: the program that `BPF_LINKER` names, the one that xtask installed, or the one in `PATH`.
#[must_use]
pub(crate) fn find_linker(workspace: &Path) -> Option<PathBuf> {
    if let Some(named) = env::var_os("BPF_LINKER") {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).map(|folder| folder.join("bpf-linker"));
    std::iter::once(workspace.join("target/tools/bin/bpf-linker"))
        .chain(folders)
        .find(|candidate| candidate.is_file())
}

/// A cargo that does not inherit the settings of the cargo that runs us.
#[must_use]
pub(crate) fn cargo(workspace: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_CFG_")
            || text.starts_with("CARGO_FEATURE_");
        if foreign {
            command.env_remove(&name);
        }
    }
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "TARGET",
    ] {
        command.env_remove(name);
    }
    command
}

/// Root of the installation of the rustc that compiles this workspace.
///
/// # Errors
///
/// When rustc does not answer.
pub(crate) fn sysroot(workspace: &Path) -> Result<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(workspace)
        .output()
        .context("could not start rustc")?;
    let path = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(path.trim()))
}

/// The folders that cargo unpacks crates into; a mirror of crates.io has its own.
fn registries() -> Result<Vec<PathBuf>> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(named) => PathBuf::from(named),
        None => env::home_dir()
            .context("neither CARGO_HOME nor HOME is set")?
            .join(".cargo"),
    };
    // Missing where crates are vendored; there is nothing to rename then.
    let Ok(entries) = fs::read_dir(cargo_home.join("registry/src")) else {
        return Ok(Vec::new());
    };
    let mut folders = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    folders.sort();
    Ok(folders)
}

fn remap(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

fn add(hash: &mut Sha256, name: &[u8], content: &[u8]) {
    for part in [name, content] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect_files(&entry?.path(), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}
