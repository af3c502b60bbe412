//! Whether memtrace may do what it does: capabilities and namespaces.

use super::{
    super::privileges::{self, Capability, Held, NEEDED},
    finding::Finding,
};

/// The checks.
pub(super) fn check() -> Vec<Finding> {
    let held = Held::read();
    let mut findings: Vec<Finding> = NEEDED
        .iter()
        .map(|needed| capability(*needed, held.has(*needed)))
        .collect();
    findings.push(if privileges::in_initial_user_namespace() {
        Finding::ok("user namespace", "the initial one")
    } else {
        Finding::fail(
            "user namespace",
            "one of its own, in which capabilities do not reach the kernel",
            "run memtrace on the host, or in a container without a user namespace",
        )
    });
    findings.push(if privileges::in_initial_pid_namespace() {
        Finding::ok("pid namespace", "the initial one, whose ids the kernel uses")
    } else {
        Finding::fail(
            "pid namespace",
            "one of its own (a container?), whose ids differ from the kernel's",
            "run memtrace on the host, or in a container with the host's pid namespace (docker run --pid=host)",
        )
    });
    findings
}

fn capability(capability: Capability, held: bool) -> Finding {
    let Capability { name, purpose, .. } = capability;
    if held {
        Finding::ok(name, format!("held; to {purpose}"))
    } else {
        Finding::fail(
            name,
            format!("missing; needed to {purpose}"),
            "run memtrace with sudo; in a container, add the capability (docker run --cap-add)",
        )
    }
}
