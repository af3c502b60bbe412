//! Every function of the C allocator, with its failures and zero sizes, on every allocator: the numbers are equal.

use std::{path::PathBuf, process::Command};

use tests::{
    fixture::{self, Link},
    need,
    needs::Missing,
    scenario::{Allocator, PLAIN, trace},
    turn::Turn,
};

fn functions(allocator: Allocator) -> Result<Command, Missing> {
    allocator.command(&fixture::c("functions", Link::Dynamic)?)
}

fn check(mut command: Command, threads: &str, kind: &str) {
    let traced = trace(command.arg(threads), &PLAIN);
    traced.assert_allocator(kind);
    // With one thread nothing but the sites allocates; threads take memory for themselves.
    if threads == "1" {
        traced.compare().nothing_elsewhere().exact();
    } else {
        traced.compare().exact();
    }
}

/// Make sure that every function of glibc is counted exactly.
#[test]
fn glibc() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Glibc)), "1", "glibc");
}

/// Make sure that 16 threads at once are counted exactly.
#[test]
fn glibc_with_16_threads() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Glibc)), "16", "glibc");
}

/// Make sure that every function of jemalloc is counted exactly.
#[test]
fn jemalloc() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Jemalloc)), "1", "jemalloc");
}

/// Make sure that 16 threads at once are counted exactly on jemalloc.
#[test]
fn jemalloc_with_16_threads() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Jemalloc)), "16", "jemalloc");
}

/// Make sure that every function of tcmalloc is counted exactly.
#[test]
fn tcmalloc() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Tcmalloc)), "1", "tcmalloc");
}

/// Make sure that 16 threads at once are counted exactly on tcmalloc.
#[test]
fn tcmalloc_with_16_threads() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Tcmalloc)), "16", "tcmalloc");
}

/// Make sure that every function of mimalloc is counted exactly.
#[test]
fn mimalloc() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Mimalloc)), "1", "mimalloc");
}

/// Make sure that 16 threads at once are counted exactly on mimalloc.
#[test]
fn mimalloc_with_16_threads() {
    let _turn = need!(Turn::shared());
    check(need!(functions(Allocator::Mimalloc)), "16", "mimalloc");
}

/// Make sure that a static program on glibc is traced by the symbols of its own file.
#[test]
fn static_glibc() {
    let _turn = need!(Turn::shared());
    let program: PathBuf = need!(fixture::c("functions", Link::StaticGlibc));
    check(Command::new(&program), "1", "glibc");
    check(Command::new(&program), "16", "glibc");
}

/// Make sure that a static program on musl is traced by the symbols of its own file.
#[test]
fn static_musl() {
    let _turn = need!(Turn::shared());
    let program: PathBuf = need!(fixture::c("functions", Link::StaticMusl));
    check(Command::new(&program), "1", "musl");
    check(Command::new(&program), "16", "musl");
}

/// Make sure that an executable that defines malloc itself is found, and that its calloc and realloc, which enter its
/// malloc, are one allocation each.
#[test]
fn executable_that_defines_malloc() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("own_malloc", Link::Dynamic));
    let traced = trace(&mut Command::new(program), &PLAIN);
    traced.compare().nothing_elsewhere().exact();
    assert!(
        traced.report.counter("nested_call") > 0,
        "its realloc calls its malloc"
    );
}

/// How older kernels attach: exact as well, with several threads.
fn attached_by(way: &str) -> Result<(), Missing> {
    let mut command = functions(Allocator::Glibc)?;
    let traced = trace(command.arg("4"), &["--attach", way]);
    traced.assert_allocator("glibc");
    traced.compare().exact();
    Ok(())
}

/// Make sure that the way of Linux 6.6 counts exactly.
#[test]
fn attached_by_uprobe_multi() {
    let _turn = need!(Turn::shared());
    need!(attached_by("multi"));
}

/// Make sure that the way of kernels before that counts exactly.
#[test]
fn attached_by_perf_events() {
    let _turn = need!(Turn::shared());
    need!(attached_by("perf-event"));
}
