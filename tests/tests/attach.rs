//! Attaching to a process as it is found: old blocks, threads at work, in a container.

use std::{fs, path::Path, process::Command};

use tests::{
    fixture::{self, Link},
    memtrace::Memtrace,
    need, needs,
    report::Comparison,
    scenario::{PLAIN, trace},
    target::{Target, copy},
    turn::Turn,
};

/// Make sure that blocks older than the trace are in no row, and that their release and their resizing are noted.
#[test]
fn older_blocks() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("older", Link::Dynamic));
    let traced = trace(&mut Command::new(program), &PLAIN);
    traced.compare().nothing_elsewhere().exact();
    assert_eq!(
        traced.report.counter("free_of_untracked_block"),
        traced.books.extra,
        "releases and resizes of older blocks"
    );
}

/// Make sure that 16 threads that allocate all the time stand memtrace's coming and going, and that nothing is lost
/// at either end.
#[test]
fn busy_target() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("storm", Link::Dynamic));
    let mut target = Target::start(Command::new(program).args(["16", "4000000000"]));
    target.go();
    for _ in 0..5 {
        let report = Memtrace::on(target.pid(), &["-d", "300ms"]).wait().report();
        assert!(
            report.losses.values().all(|count| *count == 0),
            "{:?}",
            report.losses
        );
        assert!(report.totals.total_count > 1000, "{:?}", report.totals);
        // 64 slots; every block that is live was born in one of them, and each thread may hold one more.
        assert!(report.totals.live_count <= 64 + 16, "{:?}", report.totals);
    }
    assert!(target.is_alive(), "the target works on");
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Make sure that a process in namespaces of its own, whose files are in an overlay that nobody else sees, is traced
/// from outside by its outer pid.
#[test]
fn container() {
    let _turn = need!(Turn::shared());
    let unshare = need!(needs::program("unshare"));
    let program = need!(fixture::c("functions", Link::StaticGlibc));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "mount -t tmpfs tmpfs \"$1\" && cd \"$1\" && mkdir lower upper work merged && cp \"$2\" lower/program \
                  && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged \
                  && exec merged/program";
    let works = Command::new(&unshare)
        .args([
            "--mount",
            "--pid",
            "--fork",
            "sh",
            "-c",
            &script.replace("exec merged/program", "true"),
            "sh",
        ])
        .arg(folder.path())
        .arg(&program)
        .output();
    let works = need!(works.map_err(|error| error.to_string()));
    if !works.status.success() {
        let reason = String::from_utf8_lossy(&works.stderr).into_owned();
        return need!(Err::<(), _>(format!(
            "no namespaces or no overlayfs: {reason}"
        )));
    }
    let mut command = Command::new(unshare);
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(folder.path())
        .arg(program);
    let mut target = Target::start(&mut command);
    let pid = child_of(target.pid()).expect("the process in the container");
    assert!(
        !folder.path().join("merged").exists(),
        "its files cannot be seen from outside"
    );
    let memtrace = Memtrace::on(pid, &PLAIN);
    target.go();
    let books = target.books();
    let ended = memtrace.stop();
    Comparison::of(&books, &ended.report())
        .nothing_elsewhere()
        .exact();
    target.end();
}

/// Make sure that a program whose file is gone since it started is traced.
#[test]
fn deleted_program() {
    let _turn = need!(Turn::shared());
    let original = need!(fixture::c("functions", Link::StaticGlibc));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("program");
    copy(&original, &program);
    let mut target = Target::start(&mut Command::new(&program));
    fs::remove_file(&program).expect("to remove the copy");
    assert!(!Path::new(&program).exists());
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    let ended = memtrace.stop();
    Comparison::of(&books, &ended.report())
        .nothing_elsewhere()
        .exact();
    target.end();
}
