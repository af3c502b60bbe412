//! What the results were measured on: the machine, the kernel, the versions, the date.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell::output;

/// Rows of a table: what, and which.
pub(crate) fn describe(memtrace: &Path) -> Result<Vec<(&'static str, String)>> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpu, "model name").unwrap_or("unknown");
    let cores = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let is_guest = field(&cpu, "flags").is_some_and(|flags| flags.contains(" hypervisor"));
    let place = if is_guest {
        "a virtual machine"
    } else {
        "bare metal"
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory_kib: u64 = field(&memory, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let os = fs::read_to_string("/etc/os-release")?;
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Ok(vec![
        ("date", tool(Command::new("date").args(["-u", "+%Y-%m-%d"]))),
        ("processor", format!("{model}, {cores} cores, {place}")),
        ("memory", format!("{} GiB", memory_kib >> 20)),
        (
            "load before the run",
            format!("{load} (a busy machine blurs the results)"),
        ),
        ("kernel", format!("Linux {}", kernel.trim())),
        (
            "system",
            os.unwrap_or("unknown").trim_matches('"').to_owned(),
        ),
        ("C library", format!("libc6 {}", package("libc6"))),
        ("memtrace", tool(Command::new(memtrace).arg("--version"))),
        ("memleak", format!("bpfcc-tools {}", package("bpfcc-tools"))),
        ("heaptrack", package("heaptrack")),
        ("redis", format!("redis-server {}", package("redis-server"))),
    ])
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim_start())
}

fn package(name: &str) -> String {
    tool(Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]))
}

fn tool(command: &mut Command) -> String {
    let text = output(command).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
