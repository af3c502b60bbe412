//! Ways for a run to end: the report is there, nothing stays behind, and it is quick.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::{
    code::changed_bytes,
    fixture::{self, Link},
    lines::PATIENCE,
    memtrace::Memtrace,
    need,
    needs::{self, Missing},
    report::Comparison,
    scenario::{Allocator, PLAIN},
    target::Target,
    turn::Turn,
};

fn functions() -> Result<Target, Missing> {
    let program = fixture::c("functions", Link::Dynamic)?;
    Ok(Target::start(&mut Command::new(program)))
}

/// Make sure that a target that is killed in the middle leaves a report of what was seen.
#[test]
fn target_is_killed() {
    let _turn = need!(Turn::shared());
    let mut target = need!(functions());
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    target.signal(Signal::KILL);
    target.wait();
    Comparison::of(&books, &memtrace.wait().report())
        .nothing_elsewhere()
        .exact();
}

/// Make sure that a target that ends by itself ends the run, with its stacks still named.
#[test]
fn target_ends() {
    let _turn = need!(Turn::shared());
    let mut target = need!(functions());
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    target.end();
    Comparison::of(&books, &memtrace.wait().report())
        .nothing_elsewhere()
        .exact();
}

/// Make sure that a stopped target does not stop memtrace, and goes on afterwards.
#[test]
fn target_is_stopped() {
    let _turn = need!(Turn::shared());
    let mut target = need!(functions());
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    target.signal(Signal::STOP);
    let ended = memtrace.stop();
    target.signal(Signal::CONT);
    Comparison::of(&books, &ended.report())
        .nothing_elsewhere()
        .exact();
    assert_eq!(changed_bytes(target.pid()), 0, "breakpoints are gone");
    target.end();
}

/// Make sure that the duration ends a run, and SIGTERM does.
#[test]
fn duration_and_sigterm() {
    let _turn = need!(Turn::shared());
    let mut target = need!(functions());
    let timed = Memtrace::on(target.pid(), &["--duration", "1s"]);
    let report = timed.wait().report();
    assert!(
        (0.9..30.0).contains(&report.duration_seconds),
        "recorded for {} s",
        report.duration_seconds
    );
    let terminated = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    terminated.signal(Signal::TERM);
    Comparison::of(&books, &terminated.wait().report()).exact();
    target.end();
}

/// Make sure that an idle target gives a report that says that there was nothing.
#[test]
fn idle_target_is_not_silently_empty() {
    let _turn = need!(Turn::shared());
    let target = need!(functions());
    let ended = Memtrace::on(target.pid(), &["-d", "1s"]).wait();
    let report = ended.report();
    assert_eq!(report.stacks.len(), 0, "{:?}", report.stacks);
    let said = ended.output.join("\n");
    assert!(
        said.contains(&target.pid().to_string()),
        "names the target:\n{said}"
    );
    assert!(said.contains("0 B"), "says that nothing is live:\n{said}");
    target.work_and_end();
}

/// Make sure that memtrace says so while it runs when the target grows and no probe fires.
#[test]
fn allocator_that_nobody_knows_is_reported() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("hidden", Link::Dynamic));
    let mut target = Target::start(&mut Command::new(program));
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    memtrace.wait_for("no allocator call");
    let ended = memtrace.stop();
    assert!(!ended.report().warnings.is_empty(), "the report warns, too");
    target.go();
    target.books();
    target.end();
}

/// A file system of one page, and its end.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Result<Self, Missing> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mounted = Command::new(needs::program("mount")?)
            .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
            .arg(folder.path())
            .status();
        match mounted {
            Ok(status) if status.success() => Ok(Self { folder }),
            other => Err(format!("cannot mount a tmpfs: {other:?}")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Left over at worst: a mount point of one page.
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

/// Make sure that a full disk costs the file, not the report on stdout, and shows in the exit code.
#[test]
fn disk_is_full() {
    let _turn = need!(Turn::shared());
    let disk = need!(SmallDisk::mount());
    let svg = disk.folder.path().join("out.svg");
    let mut target = need!(functions());
    let memtrace = Memtrace::on(target.pid(), &["-o".as_ref(), svg.as_os_str()]);
    target.go();
    let books = target.books();
    let ended = memtrace.stop();
    assert_eq!(ended.code, Some(1), "{:?}", ended.errors);
    assert!(
        ended.errors.iter().any(|line| line.contains("out.svg")),
        "names the file: {:?}",
        ended.errors
    );
    assert!(
        ended.output.join("\n").contains("site_malloc"),
        "the report is on stdout"
    );
    // The other files are written as ever.
    Comparison::of(&books, &ended.report_with_code(1)).exact();
    target.end();
}

/// Ids of BPF programs and links that a process holds, as the kernel shows them for its file descriptors.
fn kernel_objects(pid: u32, what: &str) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(what).map(str::to_owned));
            line?.trim_start_matches(':').trim().parse().ok()
        })
        .collect()
}

/// Those of `ids` that the kernel still lists.
fn still_listed(bpftool: &Path, kind: &str, ids: &BTreeSet<u32>) -> Vec<u32> {
    ids.iter()
        .copied()
        .filter(|id| {
            Command::new(bpftool)
                .args([kind, "show", "id", &id.to_string()])
                .output()
                .is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
        })
        .collect()
}

fn killed_memtrace_leaves_nothing(allocator: Allocator) -> Result<(), Missing> {
    let bpftool = needs::program("bpftool")?;
    let program = fixture::c("functions", Link::Dynamic)?;
    let mut target = Target::start(&mut allocator.command(&program)?);
    assert_eq!(changed_bytes(target.pid()), 0, "no breakpoints before");
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    let programs = kernel_objects(memtrace.pid(), "prog_id");
    let links = kernel_objects(memtrace.pid(), "link_id");
    assert!(!programs.is_empty(), "memtrace holds BPF programs");
    assert_eq!(
        still_listed(&bpftool, "prog", &programs).len(),
        programs.len()
    );
    assert!(
        changed_bytes(target.pid()) > 0,
        "breakpoints while it traces"
    );
    memtrace.signal(Signal::KILL);
    assert_eq!(memtrace.wait().code, None, "killed");
    // The kernel takes its programs and breakpoints away in its own time.
    let end = Instant::now() + PATIENCE;
    loop {
        let left = (
            still_listed(&bpftool, "prog", &programs),
            still_listed(&bpftool, "link", &links),
            changed_bytes(target.pid()),
        );
        if left == (Vec::new(), Vec::new(), 0) {
            break;
        }
        assert!(
            Instant::now() < end,
            "programs, links and changed bytes of code left: {left:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    target.go();
    assert!(target.books().sum().total_count > 1000, "it works on");
    target.end();
    Ok(())
}

/// Make sure that after SIGKILL no program, link or breakpoint of memtrace is left, and the target works on.
#[test]
fn memtrace_is_killed() {
    let _turn = need!(Turn::shared());
    need!(killed_memtrace_leaves_nothing(Allocator::Glibc));
    need!(killed_memtrace_leaves_nothing(Allocator::Jemalloc));
}

fn time_to_prompt(allocator: Allocator) -> Result<Duration, Missing> {
    let program = fixture::cxx("operators")?;
    let mut target = Target::start(&mut allocator.command(&program)?);
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    let start = Instant::now();
    let ended = memtrace.stop();
    let took = start.elapsed();
    assert_eq!(changed_bytes(target.pid()), 0, "breakpoints are gone");
    assert!(ended.report().totals.total_count >= books.sum().total_count);
    target.end();
    Ok(took)
}

/// Make sure that it takes less than a second from Ctrl-C to the prompt, with jemalloc's 40 functions, too. The best of
/// three counts, since the machine may be busy.
#[test]
fn prompt_is_back_in_a_second() {
    let _turn = need!(Turn::alone());
    for allocator in [Allocator::Glibc, Allocator::Jemalloc, Allocator::Mimalloc] {
        let mut times = Vec::new();
        for _ in 0..3 {
            times.push(need!(time_to_prompt(allocator)));
        }
        assert!(
            times.iter().min() < Some(&Duration::from_secs(1)),
            "{allocator:?}: {times:?}"
        );
    }
}

/// Make sure that the probes are removed in order when nobody reads the report, as in `memtrace … | head -1`.
#[test]
fn nobody_reads_the_report() {
    let _turn = need!(Turn::shared());
    let memtrace = need!(needs::memtrace());
    let target = need!(functions());
    let status = Command::new("sh")
        .args(["-c", "\"$0\" -p \"$1\" -d 1 2>&- | true"])
        .arg(memtrace)
        .arg(target.pid().to_string())
        .status()
        .expect("sh runs");
    assert!(status.success(), "{status}");
    // The shell has waited for both ends of its pipe.
    assert_eq!(changed_bytes(target.pid()), 0, "breakpoints are gone");
    target.work_and_end();
}
