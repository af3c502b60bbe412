//! What memtrace needs to be allowed.

use std::fs;

/// The capabilities needed, with their numbers in the kernel's `capability.h` and what each is for.
const NEEDED: [(&str, u32, &str); 4] = [
    ("CAP_BPF", 39, "load BPF programs"),
    (
        "CAP_PERFMON",
        38,
        "attach probes and read the process's stacks",
    ),
    (
        "CAP_SYS_PTRACE",
        19,
        "read the process's mappings and files",
    ),
    (
        "CAP_SYS_ADMIN",
        21,
        "open the mapped files of the process (/proc/PID/map_files)",
    ),
];

/// The capabilities that are missing, each with what it is for.
pub(super) fn missing() -> Vec<String> {
    let effective = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(_, number, _)| effective >> number & 1 == 0)
        .map(|(name, _, purpose)| format!("{name} ({purpose})"))
        .collect()
}

/// Whether memtrace runs in the initial pid namespace, whose process ids the BPF side sees.
pub(super) fn in_initial_pid_namespace() -> bool {
    /// `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`.
    const INITIAL: &str = "pid:[4026531836]";
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL)
}
