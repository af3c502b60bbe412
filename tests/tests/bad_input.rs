//! Bad input: one clear line on stderr, exit code 2, nothing on stdout, nothing attached.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tests::{
    code::changed_bytes,
    fixture::{self, Link},
    lines::PATIENCE,
    memtrace::{self, Ended, Memtrace},
    need,
    needs::{self, Missing},
    target::{Target, copy},
    turn::Turn,
};

/// Makes sure that memtrace refused: the line on stderr contains one of `words`.
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(2), "{:?}", ended.errors);
    assert_eq!(
        ended.errors.len(),
        1,
        "one line on stderr: {:#?}",
        ended.errors
    );
    let line = &ended.errors[0];
    assert!(line.starts_with("memtrace: "), "names the program: {line}");
    let lower = line.to_lowercase();
    assert!(
        words
            .iter()
            .any(|word| lower.contains(&word.to_lowercase())),
        "one of {words:?} in: {line}"
    );
    assert!(
        ended.output.is_empty(),
        "nothing on stdout: {:?}",
        ended.output
    );
    assert!(
        ended.json.as_deref().unwrap_or_default().is_empty(),
        "no JSON"
    );
}

fn refuse_pid(pid: u32, words: &[&str]) {
    assert_refused(&memtrace::run(&["-p", &pid.to_string(), "-d", "1s"]), words);
}

fn functions() -> Result<Target, Missing> {
    let program = fixture::c("functions", Link::Dynamic)?;
    Ok(Target::start(&mut Command::new(program)))
}

/// Make sure that a user without rights is told which ones are missing.
#[test]
fn not_root() {
    let _turn = need!(Turn::shared());
    let target = need!(functions());
    // The build may be in a folder that only its owner can read.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let binary = folder.path().join("memtrace");
    copy(&need!(needs::memtrace()), &binary);
    for path in [folder.path(), &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights for others");
    }
    let output = Command::new(&binary)
        .args(["-p", &target.pid().to_string(), "-d", "1s"])
        .uid(65_534)
        .gid(65_534)
        .output()
        .expect("memtrace as nobody");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert_eq!(errors.lines().count(), 1, "one line: {errors}");
    assert!(
        ["root", "cap_"]
            .iter()
            .any(|word| errors.to_lowercase().contains(word)),
        "says what is missing: {errors}"
    );
    assert!(output.stdout.is_empty());
    target.work_and_end();
}

/// Make sure that a process that does not exist is named.
#[test]
fn no_such_process() {
    let _turn = need!(Turn::shared());
    let mut child = Command::new("true").spawn().expect("a process");
    let pid = child.id();
    child.wait().expect("its end");
    refuse_pid(pid, &["no such process", "no process", "does not exist"]);
    // More than the kernel ever gives out.
    refuse_pid(
        4_194_305,
        &["no such process", "no process", "does not exist"],
    );
}

/// Make sure that a pid that is no number is a usage error.
#[test]
fn pid_that_is_no_number() {
    let _turn = need!(Turn::shared());
    let ended = memtrace::run(&["-p", "redis"]);
    assert_eq!(ended.code, Some(2), "{:?}", ended.errors);
    assert!(ended.output.is_empty(), "{:?}", ended.output);
}

/// Make sure that a kernel thread is called one.
#[test]
fn kernel_thread() {
    let _turn = need!(Turn::shared());
    let name = fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if name.trim() != "kthreadd" {
        return need!(Err::<(), _>("no kernel threads to be seen here".to_owned()));
    }
    refuse_pid(2, &["kernel thread"]);
}

/// Make sure that a zombie is called one.
#[test]
fn zombie() {
    let _turn = need!(Turn::shared());
    let mut child = Command::new("true").spawn().expect("a process");
    let stat = format!("/proc/{}/stat", child.id());
    let end = Instant::now() + PATIENCE;
    while !fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z ")) {
        assert!(Instant::now() < end, "it does not become a zombie");
        thread::sleep(Duration::from_millis(2));
    }
    refuse_pid(child.id(), &["zombie", "has exited", "already ended"]);
    child.wait().expect("its end");
}

/// Make sure that a 32-bit process is refused as such.
#[test]
fn process_of_32_bits() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::without_allocator(32));
    let runs = Command::new(&program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    need!(runs.map_err(|error| format!("the kernel runs no 32-bit programs: {error}")));
    let target = Target::start(&mut Command::new(program));
    refuse_pid(target.pid(), &["32-bit", "32 bit"]);
    target.end();
}

/// Make sure that a process without any allocator is refused as such.
#[test]
fn process_without_an_allocator() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::without_allocator(64));
    let target = Target::start(&mut Command::new(program));
    refuse_pid(target.pid(), &["no allocator", "allocator"]);
    assert_eq!(changed_bytes(target.pid()), 0);
    target.end();
}

/// Make sure that a wrong `--alloc` is refused before anything is attached: an unknown symbol, an unknown object, an
/// argument that is none.
#[test]
fn wrong_user_functions() {
    let _turn = need!(Turn::shared());
    let target = need!(functions());
    let pid = target.pid().to_string();
    for (option, spec, word) in [
        (
            "--alloc",
            "libc.so.6:no_such_function(size=1)",
            "no_such_function",
        ),
        (
            "--free",
            "libc.so.6:no_such_function(ptr=1)",
            "no_such_function",
        ),
        ("--alloc", "libnothere.so:take(size=1)", "libnothere.so"),
    ] {
        assert_refused(&memtrace::run(&["-p", &pid, option, spec]), &[word]);
        assert_eq!(
            changed_bytes(target.pid()),
            0,
            "nothing attached for {spec}"
        );
    }
    for (option, spec) in [
        ("--alloc", "libc.so.6:malloc(size=0)"),
        ("--alloc", "libc.so.6:malloc(size=9)"),
        ("--alloc", "libc.so.6:malloc(ptr=1)"),
        ("--alloc", "malloc(size=1)"),
        ("--free", "libc.so.6:free(size=1)"),
        ("--free", "libc.so.6:free(ptr=x)"),
    ] {
        assert_refused(&memtrace::run(&["-p", &pid, option, spec]), &[spec]);
    }
    target.work_and_end();
}

/// Make sure that an output that cannot be written is found before tracing: a folder, a missing folder, a file system
/// that takes no files.
#[test]
fn output_that_cannot_be_written() {
    let _turn = need!(Turn::shared());
    let target = need!(functions());
    let pid = target.pid().to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().to_str().expect("a path in UTF-8");
    for option in ["-o", "--folded"] {
        for path in [folder, "/nonexistent/folder/out.svg", "/proc/out.svg"] {
            assert_refused(&memtrace::run(&["-p", &pid, option, path]), &[path]);
            assert_eq!(
                changed_bytes(target.pid()),
                0,
                "nothing attached for {path}"
            );
        }
    }
    // The last `--json` is the one that counts; memtrace may also refuse a second one.
    let ended = Memtrace::start(|command| {
        command.args(["-p", &pid, "--json", "/nonexistent/folder/out.json"]);
    })
    .wait();
    assert_eq!(ended.code, Some(2), "{:?}", ended.errors);
    target.work_and_end();
}

/// Make sure that neither a pid nor a command, and both at once, are usage errors.
#[test]
fn nothing_or_too_much_to_trace() {
    let _turn = need!(Turn::shared());
    assert_eq!(memtrace::run::<&str>(&[]).code, Some(2));
    assert_eq!(memtrace::run(&["-p", "1", "--", "true"]).code, Some(2));
    assert_eq!(
        memtrace::run(&["-p", "1", "--duration", "soon"]).code,
        Some(2)
    );
    assert_eq!(
        memtrace::run(&["-p", "1", "--no-such-option"]).code,
        Some(2)
    );
}
