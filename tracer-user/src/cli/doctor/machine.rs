//! What the machine is and how it is set up, as far as that matters to memtrace.

use std::{fs, path::Path};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::system::uname;

use super::finding::Finding;
use crate::{kernel::features, report::escape::Escaped};

/// Descriptors that a run takes at most where each probe has its own (before Linux 6.6), with as many again for the
/// files of the target's code.
const OPEN_FILES: u64 = 1024;

/// The checks. None of them needs any right.
pub(super) fn check() -> Vec<Finding> {
    let uname = uname();
    vec![
        architecture(&uname.machine().to_string_lossy()),
        Finding::ok(
            "kernel",
            format!(
                "{} {}; what it can do is tried below",
                Escaped(&uname.sysname().to_string_lossy()),
                Escaped(&uname.release().to_string_lossy())
            ),
        ),
        btf(features::has_btf(), features::has_trampoline_fields()),
        lockdown(read("/sys/kernel/security/lockdown").as_deref()),
        unprivileged_bpf(number("/proc/sys/kernel/unprivileged_bpf_disabled")),
        jit(number("/proc/sys/net/core/bpf_jit_enable")),
        perf_events(number("/proc/sys/kernel/perf_event_paranoid")),
        ptrace_scope(number("/proc/sys/kernel/yama/ptrace_scope")),
        open_files(
            getrlimit(Resource::RLIMIT_NOFILE)
                .map(|(soft, _)| soft)
                .ok(),
        ),
        map_files(Path::new("/proc/self/map_files").exists()),
        tracefs(&read("/proc/self/mounts").unwrap_or_default()),
    ]
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<i64> {
    read(path)?.trim().parse().ok()
}

fn architecture(machine: &str) -> Finding {
    if machine == "x86_64" {
        Finding::ok("architecture", machine)
    } else {
        Finding::fail(
            "architecture",
            format!("{}; memtrace knows x86_64 only", Escaped(machine)),
            "run it on an x86_64 machine (not under `setarch` or an emulator)",
        )
    }
}

fn btf(present: bool, fields: bool) -> Finding {
    const REMEDY: &str =
        "run a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all distributions' are";
    const LOST: &str =
        "a call left by longjmp or an exception is then told by the stack pointer alone";
    match (present, fields) {
        (true, true) => Finding::ok(
            "BTF",
            "/sys/kernel/btf/vmlinux names the fields of return probes",
        ),
        (true, false) => Finding::warn(
            "BTF",
            format!("lacks task_struct.mm, uprobes_state.xol_area or xol_area.vaddr; {LOST}"),
            REMEDY,
        ),
        (false, _) => Finding::warn("BTF", format!("no /sys/kernel/btf/vmlinux; {LOST}"), REMEDY),
    }
}

/// The choice in brackets of a file like `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    let (choice, _) = rest.split_once(']')?;
    Some(choice)
}

fn lockdown(text: Option<&str>) -> Finding {
    let Some(text) = text else {
        return Finding::ok("lockdown", "not in this kernel, or not to be seen");
    };
    match chosen(text) {
        Some("none") => Finding::ok("lockdown", "off"),
        Some("integrity") => Finding::ok("lockdown", "integrity, which allows what memtrace does"),
        Some("confidentiality") => Finding::fail(
            "lockdown",
            "confidentiality, which keeps BPF programs from reading memory",
            "boot with lockdown=integrity",
        ),
        _ => Finding::warn(
            "lockdown",
            format!("not in the known form: {}", Escaped(text.trim())),
            "boot with lockdown=integrity if programs are refused below",
        ),
    }
}

fn unprivileged_bpf(value: Option<i64>) -> Finding {
    const SUBJECT: &str = "unprivileged BPF";
    Finding::ok(
        SUBJECT,
        match value {
            None => {
                "kernel.unprivileged_bpf_disabled is not there; memtrace has CAP_BPF".to_owned()
            }
            Some(0) => "allowed to all; memtrace needs its capabilities anyway".to_owned(),
            Some(value) => format!("disabled ({value}), which does not touch CAP_BPF"),
        },
    )
}

fn jit(value: Option<i64>) -> Finding {
    match value {
        Some(0) => Finding::warn(
            "BPF compiler",
            "off: programs are interpreted, each call of the target's takes several times as long",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok("BPF compiler", "on"),
        None => Finding::ok(
            "BPF compiler",
            "not known (net.core.bpf_jit_enable cannot be read)",
        ),
    }
}

fn perf_events(value: Option<i64>) -> Finding {
    Finding::ok(
        "perf events",
        match value {
            Some(value) => {
                format!("kernel.perf_event_paranoid={value}, which CAP_PERFMON passes by")
            }
            None => "kernel.perf_event_paranoid is not there; only Linux before 6.6 needs them"
                .to_owned(),
        },
    )
}

fn ptrace_scope(value: Option<i64>) -> Finding {
    match value {
        None => Finding::ok("ptrace scope", "Yama is not in this kernel"),
        Some(3) => Finding::fail(
            "ptrace scope",
            "kernel.yama.ptrace_scope=3: nobody may read a process's memory or hold a command",
            "set it to 2 or less in /etc/sysctl.d and boot again; it cannot be lowered while the kernel runs",
        ),
        Some(value) => Finding::ok(
            "ptrace scope",
            format!("kernel.yama.ptrace_scope={value}, which CAP_SYS_PTRACE passes by"),
        ),
    }
}

fn open_files(soft: Option<u64>) -> Finding {
    match soft {
        None => Finding::ok("open files", "the limit cannot be read"),
        Some(RLIM_INFINITY) => Finding::ok("open files", "no limit"),
        Some(soft) if soft >= OPEN_FILES => Finding::ok("open files", format!("up to {soft}")),
        Some(soft) => Finding::warn(
            "open files",
            format!(
                "up to {soft}; a target with many libraries needs up to {OPEN_FILES} to be named in full"
            ),
            format!("ulimit -n {OPEN_FILES}"),
        ),
    }
}

fn map_files(present: bool) -> Finding {
    if present {
        Finding::ok("mapped files", "/proc/PID/map_files is there")
    } else {
        Finding::warn(
            "mapped files",
            "no /proc/PID/map_files: replaced files and files on overlays may not be reached",
            "mount a proc file system without subset=pid",
        )
    }
}

/// Where a file system of this type is mounted, by the kernel's list of mounts.
fn mounted<'m>(mounts: &'m str, file_system: &str) -> Option<&'m str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == file_system).then_some(path)
    })
}

fn tracefs(mounts: &str) -> Finding {
    let told = |name| match mounted(mounts, name) {
        Some(path) => format!("{name} at {}", Escaped(path)),
        None => format!("{name} not mounted"),
    };
    Finding::ok(
        "tracefs, debugfs",
        format!(
            "{}, {}; memtrace needs neither",
            told("tracefs"),
            told("debugfs")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Status, *};

    /// Make sure that the kernel's choice of lockdown is read, and that only the strictest fails.
    #[test]
    fn lockdown_modes() {
        for (text, status) in [
            (None, Status::Ok),
            (Some("[none] integrity confidentiality\n"), Status::Ok),
            (Some("none [integrity] confidentiality\n"), Status::Ok),
            (Some("none integrity [confidentiality]\n"), Status::Fail),
            (Some("none integrity\n"), Status::Warn),
            (Some(""), Status::Warn),
        ] {
            assert_eq!(lockdown(text).status, status, "{text:?}");
        }
    }

    /// Make sure that a mount is found by its type, not by a name.
    #[test]
    fn mounts() {
        let text = "proc /proc proc rw 0 0\ntracefs /x ext4 rw 0 0\nnone /sys/kernel/tracing tracefs rw 0 0\n";
        assert_eq!(mounted(text, "tracefs"), Some("/sys/kernel/tracing"));
        assert_eq!(mounted(text, "debugfs"), None);
        assert_eq!(mounted("garbage", "tracefs"), None);
    }

    /// Make sure that settings that stand in the way are told as such, and others are not.
    #[test]
    fn settings() {
        assert_eq!(ptrace_scope(Some(2)).status, Status::Ok);
        assert_eq!(ptrace_scope(Some(3)).status, Status::Fail);
        assert_eq!(jit(Some(0)).status, Status::Warn);
        assert_eq!(jit(Some(1)).status, Status::Ok);
        assert_eq!(open_files(Some(256)).status, Status::Warn);
        assert_eq!(open_files(Some(RLIM_INFINITY)).status, Status::Ok);
        assert_eq!(architecture("i686").status, Status::Fail);
        assert_eq!(btf(false, false).status, Status::Warn);
        assert_eq!(unprivileged_bpf(Some(2)).status, Status::Ok);
    }
}
