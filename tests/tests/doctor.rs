//! `memtrace doctor`: what it finds on this machine and in a process, and that it leaves nothing behind.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Output},
};

use tests::{
    code::changed_bytes,
    fixture::{self, Link},
    need, needs,
    needs::Missing,
    scenario::Allocator,
    target::Target,
    turn::Turn,
};

/// A finished run of `memtrace doctor`.
struct Checkup {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Checkup {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn run(arguments: &[&str]) -> Result<Self, Missing> {
        let output = Command::new(needs::memtrace()?)
            .arg("doctor")
            .args(arguments)
            .output()
            .map_err(|error| format!("memtrace: {error}"))?;
        Ok(Self::of(&output))
    }

    /// Makes sure that a line begins with these words, however they are aligned, and returns all of its words.
    fn line(&self, words: &[&str]) -> Vec<&str> {
        self.output
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|found| found.starts_with(words))
            .unwrap_or_else(|| panic!("no line {words:?} in:\n{}", self.output))
    }

    /// Makes sure that the table's first row of a function has these words.
    fn row(&self, function: &str, words: &[&str]) {
        let row = self.line(&[function]);
        for word in words {
            assert!(row.contains(word), "{word} in {row:?}");
        }
    }

    /// Makes sure that the lines are readable: no control characters, no more than 100 columns.
    fn assert_readable(&self) {
        for line in self.output.lines() {
            assert!(line.chars().count() <= 100, "too long: {line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    fn assert_refused(&self, words: &str) {
        assert_eq!(self.code, Some(2), "{}", self.errors);
        assert_eq!(self.errors.lines().count(), 1, "one line: {}", self.errors);
        assert!(self.errors.contains(words), "{}", self.errors);
        assert!(self.output.is_empty(), "{}", self.output);
    }
}

/// A fixture on an allocator, at rest.
fn functions(allocator: Allocator) -> Result<Target, Missing> {
    let program = fixture::c("functions", Link::Dynamic)?;
    Ok(Target::start(&mut allocator.command(&program)?))
}

/// Make sure that a machine on which the other tests can run is found fit.
#[test]
fn machine() {
    let _turn = need!(Turn::shared());
    let checkup = need!(Checkup::run(&[]));
    assert_eq!(
        checkup.code,
        Some(0),
        "{}{}",
        checkup.output,
        checkup.errors
    );
    for subject in [
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "pid",
        "architecture",
        "kernel",
        "lockdown",
        "bpf(2)",
        "locked",
        "program",
        "helper",
        "ring",
        "batched",
        "perf_event",
        "BPF",
    ] {
        checkup.line(&["ok", subject]);
    }
    assert!(checkup.output.contains("tracefs"), "{}", checkup.output);
    assert!(checkup.output.contains("BTF"), "{}", checkup.output);
    assert!(
        checkup.output.contains("cost of a trap"),
        "{}",
        checkup.output
    );
    let sum = checkup.output.lines().last().unwrap_or_default();
    assert!(sum.ends_with(" 0 failed"), "{sum}");
    assert!(checkup.errors.is_empty(), "{}", checkup.errors);
    checkup.assert_readable();
}

/// Make sure that glibc's functions are shown with the sites at which a probe costs one trap, that the kernel takes the
/// probes, and that none is left.
#[test]
fn glibc_process() {
    let _turn = need!(Turn::shared());
    let target = need!(functions(Allocator::Glibc));
    let checkup = need!(Checkup::run(&["-p", &target.pid().to_string()]));
    assert_eq!(changed_bytes(target.pid()), 0, "nothing stays attached");
    assert_eq!(
        checkup.code,
        Some(0),
        "{}{}",
        checkup.output,
        checkup.errors
    );
    checkup.line(&["ok", "process", "functions"]);
    checkup.line(&["ok", "allocator", "glibc:"]);
    checkup.row("malloc", &["+0", "emulated", "size=1", "push"]);
    // `test rdi, rdi` stands at the entry: the jump behind it is probed.
    checkup.row("free", &["+3", "emulated", "ptr=1", "je"]);
    checkup.row("calloc", &["size=1*2"]);
    checkup.row("posix_memalign", &["emulated", "out=1,size=3"]);
    checkup.line(&["ok", "probes"]);
    checkup.line(&["ok", "loader"]);
    checkup.assert_readable();
    target.work_and_end();
}

/// Make sure that a preloaded allocator is shown before the C library, each with its own functions.
#[test]
fn preloaded_allocators() {
    let _turn = need!(Turn::shared());
    for (allocator, operator) in [
        (Allocator::Jemalloc, Some("_ZdlPvm")),
        (Allocator::Tcmalloc, None),
        (Allocator::Mimalloc, None),
    ] {
        let target = need!(functions(allocator));
        let checkup = need!(Checkup::run(&["-p", &target.pid().to_string()]));
        assert_eq!(
            checkup.code,
            Some(0),
            "{}{}",
            checkup.output,
            checkup.errors
        );
        assert_eq!(changed_bytes(target.pid()), 0, "nothing stays attached");
        let place = |kind| {
            let head = checkup
                .line(&["ok", "allocator", &format!("{kind}:")])
                .join(" ");
            let line = |line: &str| line.split_whitespace().eq(head.split(' '));
            checkup.output.lines().position(line)
        };
        assert!(
            place(allocator.kind()) < place("glibc"),
            "{}",
            checkup.output
        );
        for function in ["malloc", "free", "calloc", "realloc", "posix_memalign"] {
            checkup.row(function, &[]);
        }
        if let Some(operator) = operator {
            checkup.row(operator, &["ptr=1"]);
        }
        checkup.assert_readable();
        target.work_and_end();
    }
}

/// Make sure that functions that the user names are shown like those that were found.
#[test]
fn user_functions() {
    let _turn = need!(Turn::shared());
    let target = Target::start(&mut Command::new(need!(fixture::pool_user())));
    let pid = target.pid().to_string();
    let checkup = need!(Checkup::run(&[
        "-p",
        &pid,
        "--alloc",
        "libpool.so:pool_alloc(size=2)",
        "--free",
        "libpool.so:pool_free(ptr=2)",
    ]));
    assert_eq!(
        checkup.code,
        Some(0),
        "{}{}",
        checkup.output,
        checkup.errors
    );
    checkup.line(&["ok", "allocator", "user:"]);
    checkup.row("pool_alloc", &["size=2"]);
    checkup.row("pool_free", &["ptr=2"]);
    need!(Checkup::run(&[
        "-p",
        &pid,
        "--alloc",
        "libpool.so:no_such(size=1)"
    ]))
    .assert_refused("no_such");
    need!(Checkup::run(&["--alloc", "libpool.so:pool_alloc(size=2)"])).assert_refused("-p PID");
    target.work_and_end();
}

/// Make sure that a target that cannot be traced is refused as a run refuses it.
#[test]
fn bad_target() {
    let _turn = need!(Turn::shared());
    need!(Checkup::run(&["-p", "4194305"])).assert_refused("no process");
    let program = need!(fixture::without_allocator(64));
    let target = Target::start(&mut Command::new(program));
    need!(Checkup::run(&["-p", &target.pid().to_string()])).assert_refused("allocator");
    target.end();
}

/// Make sure that a user without rights is told all that is missing, not only the first of it.
#[test]
fn not_root() {
    let _turn = need!(Turn::shared());
    // The build may be in a folder that only its owner can read.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let binary = folder.path().join("memtrace");
    fs::copy(need!(needs::memtrace()), &binary).expect("a copy of memtrace");
    for path in [folder.path(), &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights for others");
    }
    let output = Command::new(&binary)
        .arg("doctor")
        .uid(65_534)
        .gid(65_534)
        .output()
        .expect("memtrace as nobody");
    let checkup = Checkup::of(&output);
    assert_eq!(
        checkup.code,
        Some(1),
        "{}{}",
        checkup.output,
        checkup.errors
    );
    for subject in [
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "bpf(2)",
    ] {
        checkup.line(&["fail", subject]);
    }
    checkup.line(&["ok", "architecture"]);
    assert!(checkup.output.contains("to fix: "), "{}", checkup.output);
    assert!(checkup.errors.is_empty(), "{}", checkup.errors);
    checkup.assert_readable();
}
