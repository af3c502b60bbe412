//! longjmp, exceptions, fork, exec and dlopen: the numbers are equal, and the target works as it does untraced.

use std::process::Command;

use tests::{
    fixture::{self, Link},
    memtrace::Memtrace,
    need,
    needs::{self, Missing},
    report::Comparison,
    scenario::{Allocator, PLAIN, trace},
    target::Target,
    turn::Turn,
};

fn jump(place: &str, left_calls: u64) -> Result<(), Missing> {
    let program = fixture::c("jumps", Link::Dynamic)?;
    let options = [
        "--alloc",
        "jumps:own_alloc(size=1)",
        "--free",
        "jumps:own_free(ptr=1)",
    ];
    let traced = trace(Command::new(program).arg(place), &options);
    traced
        .compare()
        .allowing("return_not_seen")
        .nothing_elsewhere()
        .exact();
    assert_eq!(
        traced.report.counter("return_not_seen"),
        left_calls,
        "calls that never returned"
    );
    Ok(())
}

/// Make sure that a longjmp out of a signal handler between two allocations changes nothing.
#[test]
fn longjmp_between_allocations() {
    let _turn = need!(Turn::shared());
    need!(jump("between", 0));
}

/// Make sure that after a longjmp out of an allocation the next one at the same depth is counted.
#[test]
fn longjmp_out_of_an_allocation() {
    let _turn = need!(Turn::shared());
    need!(jump("same", 100));
}

/// Make sure that after a longjmp out of an allocation the next one higher up the stack is counted.
#[test]
fn longjmp_out_of_an_allocation_below() {
    let _turn = need!(Turn::shared());
    need!(jump("higher", 100));
}

/// Make sure that after a longjmp out of an allocation the next one further down the stack is counted, and not taken
/// for a part of the one that was left.
#[test]
fn longjmp_out_of_an_allocation_above() {
    let _turn = need!(Turn::shared());
    need!(jump("deeper", 100));
}

fn throw(allocator: Allocator, mode: &str) -> Result<(), Missing> {
    let program = fixture::cxx("exceptions")?;
    let traced = trace(allocator.command(&program)?.arg(mode), &PLAIN);
    assert_eq!(traced.books.extra, 50, "exceptions caught");
    traced
        .compare()
        .allowing("return_not_seen")
        .ignoring("__cxa_allocate_exception")
        .exact();
    Ok(())
}

/// Make sure that a traced program still catches `bad_alloc` for a size that cannot exist.
#[test]
fn bad_alloc_for_an_absurd_size() {
    let _turn = need!(Turn::shared());
    for allocator in [Allocator::Glibc, Allocator::Jemalloc, Allocator::Tcmalloc] {
        need!(throw(allocator, "absurd"));
    }
}

/// Make sure that a traced program still catches `bad_alloc` for a size that the system refuses, on glibc.
#[test]
fn bad_alloc_at_a_limit_on_glibc() {
    let _turn = need!(Turn::shared());
    need!(throw(Allocator::Glibc, "limit"));
}

/// Make sure that a traced program still catches `bad_alloc` for a size that the system refuses, on jemalloc, whose
/// operator new throws itself.
#[test]
fn bad_alloc_at_a_limit_on_jemalloc() {
    let _turn = need!(Turn::shared());
    need!(throw(Allocator::Jemalloc, "limit"));
}

/// Make sure that a traced program still catches `bad_alloc` for a size that the system refuses, on tcmalloc, whose
/// operator new throws itself.
#[test]
fn bad_alloc_at_a_limit_on_tcmalloc() {
    let _turn = need!(Turn::shared());
    need!(throw(Allocator::Tcmalloc, "limit"));
}

/// Make sure that exceptions that have nothing to do with the allocator pass, under every allocator.
#[test]
fn other_exceptions() {
    let _turn = need!(Turn::shared());
    for allocator in [
        Allocator::Glibc,
        Allocator::Jemalloc,
        Allocator::Tcmalloc,
        Allocator::Mimalloc,
    ] {
        need!(throw(allocator, "none"));
    }
}

/// Make sure that a forked child, which frees what it inherited and allocates at the same addresses, leaves the
/// parent's numbers alone.
#[test]
fn fork() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("forks", Link::Dynamic));
    let traced = trace(&mut Command::new(program), &PLAIN);
    assert_eq!(traced.books.extra, 0, "the child's wait status");
    traced.compare().nothing_elsewhere().exact();
}

/// Make sure that an exec in the middle ends the recording, with a report of what was seen before it, named by the
/// image that is gone.
#[test]
fn exec() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("execs", Link::Dynamic));
    let other = need!(fixture::c("functions", Link::Dynamic));
    let mut target = Target::start(Command::new(program).arg(other));
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    // The exec, then the other image's `ready`, then its work: none of it may show.
    target.go();
    let ended = memtrace.wait();
    Comparison::of(&books, &ended.report())
        .nothing_elsewhere()
        .exact();
    let said = ended.output.join("\n");
    assert!(
        said.contains("exec"),
        "the report says why it ended:\n{said}"
    );
}

/// Make sure that an allocator that is loaded in the middle is attached to and counted exactly from then on.
#[test]
fn dlopen_of_another_allocator() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("opens", Link::Dynamic));
    let library = need!(needs::library("libjemalloc.so.2"));
    let mut command = Command::new(program);
    // Debian's jemalloc has more thread-local data than glibc leaves room for in a dlopen.
    command
        .arg(library)
        .args(["mallocx", "dallocx"])
        .env("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384");
    let mut target = Target::start(&mut command);
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    target.wait_for("opened");
    let attached = memtrace.wait_for("attached to");
    assert!(attached.contains("jemalloc"), "{attached}");
    target.go();
    let books = target.books();
    let ended = memtrace.stop();
    let report = ended.report();
    Comparison::of(&books, &report).exact();
    assert!(
        report
            .allocator
            .iter()
            .any(|allocator| allocator.kind == "jemalloc")
    );
    target.end();
}
