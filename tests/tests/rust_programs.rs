//! Rust programs, on the system's allocator and on tikv-jemallocator: the numbers are equal.

use std::process::Command;

use tests::{
    fixture, need,
    needs::Missing,
    scenario::{PLAIN, trace},
    turn::Turn,
};

fn check(jemalloc: bool, kind: &str) -> Result<(), Missing> {
    let program = fixture::rust(jemalloc)?;
    let traced = trace(&mut Command::new(program), &PLAIN);
    traced.assert_allocator(kind);
    traced.compare().exact();
    Ok(())
}

/// Make sure that a plain Rust program is counted exactly.
#[test]
fn system_allocator() {
    let _turn = need!(Turn::shared());
    need!(check(false, "glibc"));
}

/// Make sure that a Rust program whose allocator is linked in under the prefix `_rjem_` is counted exactly.
#[test]
fn tikv_jemallocator() {
    let _turn = need!(Turn::shared());
    need!(check(true, "jemalloc"));
}
