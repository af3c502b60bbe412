//! Builds the fixtures, once per change of their sources, with the system's compilers.
//!
//! The compilers run as the owner of the build folder, so that tests run by root leave no files of root's in it.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::{
    needs::{self, Missing},
    target::copy,
};

/// How a C fixture is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Dynamically, against the system's libc.
    Dynamic,
    /// Statically, against the system's libc.
    StaticGlibc,
    /// Statically, against musl.
    StaticMusl,
}

const FLAGS: &[&str] = &[
    "-g",
    "-O1",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-builtin",
    "-pthread",
];

/// Builds a C fixture.
///
/// # Errors
///
/// When the compiler is missing.
pub fn c(name: &str, link: Link) -> Result<PathBuf, Missing> {
    let source = sources().join(format!("{name}.c"));
    let (compiler, output, extra): (_, _, &[&str]) = match link {
        Link::Dynamic => ("gcc", name.to_owned(), &[]),
        Link::StaticGlibc => ("gcc", format!("{name}-static"), &["-static", "-DNO_DLSYM"]),
        Link::StaticMusl => (
            "musl-gcc",
            format!("{name}-musl"),
            &["-static", "-DNO_DLSYM", "-DNO_PVALLOC"],
        ),
    };
    compile(compiler, FLAGS, extra, &[&source], &output)
}

/// Builds a C++ fixture.
///
/// # Errors
///
/// When the compiler is missing.
pub fn cxx(name: &str) -> Result<PathBuf, Missing> {
    let source = sources().join(format!("{name}.cc"));
    compile("g++", FLAGS, &["-std=c++17"], &[&source], name)
}

/// One of the ways in which programs are compiled.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// `gcc`, `clang`, `g++`, …
    pub compiler: &'static str,
    /// Distinguishes its output; not part of the command.
    pub name: &'static str,
    /// Options of the compiler.
    pub flags: &'static [&'static str],
}

/// Builds a fixture from `file` in this way.
///
/// # Errors
///
/// When the compiler is missing.
pub fn variant(file: &str, variant: Variant) -> Result<PathBuf, Missing> {
    let Variant {
        compiler,
        name,
        flags,
    } = variant;
    let source = sources().join(file);
    let output = format!("{file}-{compiler}-{name}");
    let always = ["-g", "-fno-builtin", "-pthread"];
    let always = if compiler == "rustc" {
        &[][..]
    } else {
        &always
    };
    compile(compiler, always, flags, &[&source], &output)
}

/// Builds `libpool.so` and the program that uses it; gives the program.
///
/// # Errors
///
/// When the compiler is missing.
pub fn pool_user() -> Result<PathBuf, Missing> {
    let library = compile(
        "gcc",
        FLAGS,
        &["-fPIC", "-shared"],
        &[&sources().join("pool.c")],
        "libpool.so",
    )?;
    compile(
        "gcc",
        FLAGS,
        &["-Wl,-rpath,$ORIGIN"],
        &[&sources().join("pool_user.c"), &library],
        "pool_user",
    )
}

/// Builds the program without a libc, for 64 or 32 bits.
///
/// # Errors
///
/// When the compiler is missing or cannot build for 32 bits.
pub fn without_allocator(bits: u32) -> Result<PathBuf, Missing> {
    let machine = format!("-m{bits}");
    let flags = [
        "-O1",
        "-nostdlib",
        "-static",
        "-fno-pie",
        "-no-pie",
        "-fno-stack-protector",
    ];
    compile(
        "gcc",
        &flags,
        &[&machine],
        &[&sources().join("no_allocator.c")],
        &format!("no_allocator{bits}"),
    )
}

/// Builds the Rust fixture, with or without tikv-jemallocator.
///
/// # Errors
///
/// When cargo fails, as it does without access to the registry.
pub fn rust(jemalloc: bool) -> Result<PathBuf, Missing> {
    let folder = sources().join("rust-jemalloc");
    let build = needs::work_folder().join("rust-fixture");
    let _lock = lock(&build)?;
    let mut cargo = as_owner(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--locked"])
        .args(jemalloc.then_some("--features=jemalloc"))
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &build)
        .env("RUSTFLAGS", "-C force-frame-pointers=yes");
    run(&mut cargo)?;
    let name = if jemalloc {
        "rust-jemalloc"
    } else {
        "rust-plain"
    };
    let output = needs::work_folder().join(name);
    let fresh = output.with_extension("new");
    copy(&build.join("debug/rust-fixture"), &fresh);
    fs::rename(&fresh, &output).map_err(|error| format!("{}: {error}", output.display()))?;
    Ok(output)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn compile(
    compiler: &str,
    flags: &[&str],
    extra: &[&str],
    inputs: &[&Path],
    name: &str,
) -> Result<PathBuf, Missing> {
    needs::program(compiler)?;
    let folder = needs::work_folder();
    let output = folder.join(name);
    let _lock = lock(&output)?;
    if is_fresh(&output, inputs) {
        return Ok(output);
    }
    let unfinished = folder.join(format!("{name}.unfinished"));
    let mut command = as_owner(compiler);
    command
        .args(flags)
        .args(extra)
        .arg("-o")
        .arg(&unfinished)
        .args(inputs);
    if extra.contains(&"-shared") {
        command.arg(format!("-Wl,-soname,{name}"));
    } else if compiler != "rustc" && !flags.contains(&"-nostdlib") {
        command.arg("-ldl");
    }
    run(&mut command)?;
    fs::rename(&unfinished, &output).map_err(|error| format!("{}: {error}", output.display()))?;
    Ok(output)
}

/// Whether `output` is newer than its inputs and the shared headers.
fn is_fresh(output: &Path, inputs: &[&Path]) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    let Ok(built) = modified(output) else {
        return false;
    };
    let headers = ["fixture.h", "chains.h"].map(|name| sources().join(name));
    inputs
        .iter()
        .copied()
        .chain(headers.iter().map(PathBuf::as_path))
        .all(|input| modified(input).unwrap_or_else(|_| SystemTime::now()) < built)
}

/// Keeps other test processes from building the same output at once.
fn lock(output: &Path) -> Result<File, Missing> {
    let error = |error| format!("{}: {error}", output.display());
    let file = File::create(output.with_extension("lock")).map_err(error)?;
    file.lock().map_err(error)?;
    Ok(file)
}

/// A command that runs as the owner of the build folder.
fn as_owner(program: &str) -> Command {
    let folder = needs::work_folder();
    let mut command = Command::new(program);
    if needs::root().is_ok()
        && let Ok(owner) = fs::metadata(needs::profile_folder())
        && owner.uid() != 0
        && chown(&folder, Some(owner.uid()), Some(owner.gid())).is_ok()
    {
        // Without HOME, cargo takes the owner's home folder from the user database.
        command.uid(owner.uid()).gid(owner.gid()).env_remove("HOME");
    }
    command
}

fn run(command: &mut Command) -> Result<(), Missing> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}
