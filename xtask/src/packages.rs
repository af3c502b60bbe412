//! Debian packages that a task needs: which are missing, and installing them.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::shell::{as_root, is_installed, output, run, step};

/// What the tests build and run: compilers, the allocators, and real programs.
pub(crate) const TESTS: &[&str] = &[
    "binutils",
    "bpftool",
    "clang",
    "g++",
    "gcc",
    "gdb",
    "libc6-dev",
    "libjemalloc2",
    "libmimalloc2.0",
    "libtcmalloc-minimal4",
    "musl-tools",
    "nginx-light",
    "nodejs",
    "python3",
    "redis-server",
    "redis-tools",
];

/// What the benchmark compares with, and the headers that bcc compiles against.
pub(crate) const BENCHMARK: &[&str] = &[
    "bpfcc-tools",
    "gcc",
    "heaptrack",
    "libc6-dev",
    "linux-headers-amd64",
    "redis-server",
    "redis-tools",
];

/// Installs the packages of `wanted` that are missing, unless `install` says not to.
///
/// What is still missing afterwards is named, and left to the task to do without.
pub(crate) fn provide(wanted: &[&str], install: bool) {
    if !is_installed("apt-get") {
        println!(
            "==> no apt-get here; needed, by their Debian names: {}",
            wanted.join(" ")
        );
        return;
    }
    let missing = missing(wanted);
    if missing.is_empty() {
        println!("==> all needed packages are installed");
    } else if !install {
        println!(
            "==> not installed, as --no-install asks: {}",
            missing.join(" ")
        );
    } else if let Err(error) = get(missing) {
        println!("    going on without: {error:#}");
    }
}

/// Installs packages, those that this system offers.
fn get(packages: Vec<&str>) -> Result<()> {
    step("apt-get update", || {
        run(as_root("apt-get").args(["update", "-qq"]))
    })?;
    let (offered, unknown): (Vec<&str>, Vec<&str>) = packages
        .into_iter()
        .partition(|package| is_offered(package));
    if !unknown.is_empty() {
        println!("==> this system does not offer: {}", unknown.join(" "));
    }
    if offered.is_empty() {
        return Ok(());
    }
    step(&format!("apt-get install {}", offered.join(" ")), || {
        // Under systemd, Debian starts the servers that it installs; the tests start their own on other ports.
        run(as_root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])
            .args(["-y", "-qq", "--no-install-recommends"])
            .args(offered)
            .stdout(Stdio::null()))
    })
}

/// The packages of `wanted` that are not installed.
fn missing<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    let mut dpkg = Command::new("dpkg-query");
    dpkg.args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .stderr(Stdio::null());
    // It fails when it knows nothing of some package, and lists the others nevertheless.
    let list = dpkg.output().map(|output| output.stdout);
    let list = String::from_utf8_lossy(&list.unwrap_or_default()).into_owned();
    let is_missing = |package: &&str| {
        let installed = format!("installed {package}");
        !list.lines().any(|line| line == installed)
    };
    wanted.iter().copied().filter(is_missing).collect()
}

fn is_offered(package: &str) -> bool {
    let mut show = Command::new("apt-cache");
    show.args(["policy", package]);
    output(&mut show)
        .is_ok_and(|policy| policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
}
