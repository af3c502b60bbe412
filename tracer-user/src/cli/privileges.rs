//! What memtrace needs to be allowed.

use std::fs;

/// A capability that memtrace needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    /// Its name.
    pub(super) name: &'static str,
    /// Its number in the kernel's `capability.h`.
    number: u32,
    /// What it is for.
    pub(super) purpose: &'static str,
}

/// The capabilities needed.
pub(super) const NEEDED: [Capability; 4] = [
    Capability {
        name: "CAP_BPF",
        number: 39,
        purpose: "load BPF programs",
    },
    Capability {
        name: "CAP_PERFMON",
        number: 38,
        purpose: "attach probes and read the process's stacks",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        number: 19,
        purpose: "read the process's mappings and files",
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        number: 21,
        purpose: "open the mapped files of the process (/proc/PID/map_files)",
    },
];

/// The effective capabilities of memtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held(u64);

impl Held {
    /// Reads them; none where the kernel does not tell.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::parse(&status).unwrap_or(Self(0))
    }

    fn parse(status: &str) -> Option<Self> {
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(mask.trim(), 16).ok().map(Self)
    }

    /// Whether a capability is among them.
    pub(super) const fn has(self, capability: Capability) -> bool {
        self.0 >> capability.number & 1 == 1
    }
}

/// The capabilities that are missing, each with what it is for.
pub(super) fn missing() -> Vec<String> {
    let held = Held::read();
    NEEDED
        .iter()
        .filter(|capability| !held.has(**capability))
        .map(|Capability { name, purpose, .. }| format!("{name} ({purpose})"))
        .collect()
}

/// Whether memtrace runs in the initial pid namespace, whose process ids the BPF side sees.
pub(super) fn in_initial_pid_namespace() -> bool {
    // `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`.
    is_namespace("pid", "pid:[4026531836]")
}

/// Whether memtrace runs in the initial user namespace; in another one capabilities do not reach the kernel.
pub(super) fn in_initial_user_namespace() -> bool {
    // `PROC_USER_INIT_INO`.
    is_namespace("user", "user:[4026531837]")
}

fn is_namespace(kind: &str, initial: &str) -> bool {
    fs::read_link(format!("/proc/self/ns/{kind}")).is_ok_and(|link| link.as_os_str() == initial)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that the mask of effective capabilities is read, and not one of the others.
    #[test]
    fn capabilities() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t000000c000000000\n";
        let held = Held::parse(status).expect("a mask");
        let names: Vec<_> = NEEDED
            .iter()
            .filter(|capability| held.has(**capability))
            .map(|capability| capability.name)
            .collect();
        assert_eq!(names, ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(Held::parse("CapEff:\tzz\n"), None);
        assert_eq!(Held::parse(""), None);
    }
}
