//! Prerequisites of a test, and what happens when one is missing.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Why a test cannot run here.
pub type Missing = String;

/// Says that a test is skipped, and why; fails it when `MEMTRACE_NO_SKIP=1`.
///
/// # Panics
///
/// When skips are not allowed.
pub fn skip(here: &str, reason: &str) {
    let test = here.strip_suffix("::here").unwrap_or(here);
    assert!(
        env::var_os("MEMTRACE_NO_SKIP").is_none_or(|value| value != "1"),
        "{test} cannot run here: {reason}"
    );
    // The test harness captures the print macros, and shows them only for a test that failed.
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {reason}");
}

/// Root's rights.
///
/// # Errors
///
/// When the tests run as somebody else.
pub fn root() -> Result<(), Missing> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("needs root".to_owned())
    }
}

/// The path of a program in `PATH` or in a system folder.
///
/// # Errors
///
/// When there is none of that name.
pub fn program(name: &str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("program {name} is not installed"))
}

/// The path of a shared library in the system's library folders.
///
/// # Errors
///
/// When it is not there.
pub fn library(name: &str) -> Result<PathBuf, Missing> {
    [
        "/usr/lib/x86_64-linux-gnu",
        "/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    ]
    .into_iter()
    .map(|folder| Path::new(folder).join(name))
    .find(|file| file.exists())
    .ok_or_else(|| format!("library {name} is not installed"))
}

/// The memtrace binary: `MEMTRACE_BIN`, or the one built beside this test.
///
/// # Errors
///
/// When it was not built.
pub fn memtrace() -> Result<PathBuf, Missing> {
    if let Some(path) = env::var_os("MEMTRACE_BIN") {
        return Ok(path.into());
    }
    let profile = profile_folder();
    let target = profile.parent().unwrap_or(&profile);
    [&profile, &target.join("release"), &target.join("debug")]
        .into_iter()
        .map(|folder| folder.join("memtrace"))
        .find(|file| file.is_file())
        .ok_or_else(|| "memtrace is not built, and MEMTRACE_BIN not set".to_owned())
}

/// The folder of the build profile that this test belongs to (`target/debug`).
///
/// # Panics
///
/// When the test binary's own path cannot be read.
#[must_use]
pub fn profile_folder() -> PathBuf {
    let executable = env::current_exe().expect("the path of the test binary");
    let folder = executable.parent().expect("a folder of the test binary");
    let deps = folder.file_name().is_some_and(|name| name == "deps");
    if deps { folder.parent() } else { Some(folder) }
        .expect("a profile folder")
        .to_owned()
}

/// A folder of this build for the tests' files; it exists, and belongs to whoever owns the build.
///
/// # Panics
///
/// When it cannot be made.
#[must_use]
pub fn work_folder() -> PathBuf {
    let folder = profile_folder().join("memtrace-tests");
    std::fs::create_dir_all(&folder).expect("a folder for the tests' files");
    folder
}
