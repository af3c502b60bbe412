//! Blocks that go from thread to thread, and threads that end in the middle of a call: the numbers are equal.

use std::process::Command;

use tests::{
    fixture::{self, Link},
    need,
    needs::Missing,
    scenario::{Allocator, PLAIN, trace},
    turn::Turn,
};

fn storm(allocator: Allocator, tunables: &str) -> Result<(), Missing> {
    let program = fixture::c("storm", Link::Dynamic)?;
    let mut command = allocator.command(&program)?;
    command
        .args(["16", "20000"])
        .env("GLIBC_TUNABLES", tunables);
    let traced = trace(&mut command, &PLAIN);
    assert_eq!(traced.books.sum().live_count, 64, "one block per slot");
    traced.compare().exact();
    Ok(())
}

/// Make sure that a realloc storm over 16 threads loses nothing: an address that one thread's realloc gives up is at
/// once another thread's new block. One arena without thread caches makes that happen most.
#[test]
fn realloc_storm_in_one_arena() {
    let _turn = need!(Turn::shared());
    need!(storm(
        Allocator::Glibc,
        "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0"
    ));
}

/// Make sure that a realloc storm over 16 threads loses nothing with glibc's defaults.
#[test]
fn realloc_storm_on_glibc() {
    let _turn = need!(Turn::shared());
    need!(storm(Allocator::Glibc, ""));
}

/// Make sure that a realloc storm over 16 threads loses nothing on jemalloc.
#[test]
fn realloc_storm_on_jemalloc() {
    let _turn = need!(Turn::shared());
    need!(storm(Allocator::Jemalloc, ""));
}

/// Make sure that a realloc storm over 16 threads loses nothing on tcmalloc.
#[test]
fn realloc_storm_on_tcmalloc() {
    let _turn = need!(Turn::shared());
    need!(storm(Allocator::Tcmalloc, ""));
}

/// Make sure that a realloc storm over 16 threads loses nothing on mimalloc.
#[test]
fn realloc_storm_on_mimalloc() {
    let _turn = need!(Turn::shared());
    need!(storm(Allocator::Mimalloc, ""));
}

fn ends_inside(way: &str) -> Result<(), Missing> {
    let program = fixture::c("thread_exits", Link::Dynamic)?;
    let options = [
        "--alloc",
        "thread_exits:own_alloc(size=1)",
        "--free",
        "thread_exits:own_free(ptr=1)",
    ];
    let traced = trace(Command::new(program).arg(way), &options);
    traced.compare().allowing("return_not_seen").exact();
    // A thread that unwinds is helped to pass its call, from when its C++ runtime is loaded.
    assert_eq!(
        traced.report.counter("return_not_seen") + traced.report.counter("left_by_exception"),
        100,
        "every second of 200 threads ended inside an allocation"
    );
    Ok(())
}

/// Make sure that a thread that the kernel ends inside an allocation leaves nothing to the next thread with its id or
/// its stack.
#[test]
fn thread_ends_inside_an_allocation() {
    let _turn = need!(Turn::shared());
    need!(ends_inside("exit"));
}

/// Make sure that `pthread_exit`, which unwinds, works from inside an allocation.
#[test]
fn pthread_exit_inside_an_allocation() {
    let _turn = need!(Turn::shared());
    need!(ends_inside("pthread"));
}
