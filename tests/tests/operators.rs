//! C++'s operators in every form, jemalloc's own functions, and prefixed ones: the numbers are equal.

use std::process::Command;

use tests::{
    fixture::{self, Link},
    need,
    needs::{self, Missing},
    scenario::{Allocator, PLAIN, trace},
    turn::Turn,
};

/// libstdc++'s aligned operator uses the frame pointer for other things, so the callers of these sites are not seen
/// by a walk along frame pointers.
const ALIGNED: [&str; 4] = [
    "site_new_aligned",
    "site_new_array_aligned",
    "site_new_aligned_nothrow",
    "site_new_array_aligned_nothrow",
];

fn check(allocator: Allocator) -> Result<(), Missing> {
    let program = fixture::cxx("operators")?;
    for threads in ["1", "16"] {
        let traced = trace(allocator.command(&program)?.arg(threads), &PLAIN);
        traced.assert_allocator(allocator.kind());
        if allocator == Allocator::Glibc {
            // libstdc++'s nothrow operators throw inside when malloc fails.
            traced
                .compare()
                .merging(&ALIGNED, "align_val_t")
                .ignoring("__cxa_allocate_exception")
                .exact();
        } else {
            traced.compare().exact();
        }
    }
    Ok(())
}

/// Make sure that libstdc++'s operators on glibc's malloc are one allocation each.
#[test]
fn glibc() {
    let _turn = need!(Turn::shared());
    need!(check(Allocator::Glibc));
}

/// Make sure that jemalloc's operators are counted exactly.
#[test]
fn jemalloc() {
    let _turn = need!(Turn::shared());
    need!(check(Allocator::Jemalloc));
}

/// Make sure that tcmalloc's operators are counted exactly.
#[test]
fn tcmalloc() {
    let _turn = need!(Turn::shared());
    need!(check(Allocator::Tcmalloc));
}

/// Make sure that mimalloc's operators are counted exactly.
#[test]
fn mimalloc() {
    let _turn = need!(Turn::shared());
    need!(check(Allocator::Mimalloc));
}

/// Make sure that mallocx, rallocx, xallocx, sallocx, dallocx and sdallocx are counted exactly.
#[test]
fn jemalloc_api() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("jemalloc_api", Link::Dynamic));
    let traced = trace(&mut need!(Allocator::Jemalloc.command(&program)), &PLAIN);
    assert!(traced.books.extra > 0, "some xallocx resized in place");
    traced.compare().nothing_elsewhere().exact();
}

fn check_prefixed(allocator: Allocator, prefix: &str) -> Result<(), Missing> {
    let program = fixture::c("prefixed_api", Link::Dynamic)?;
    let library = needs::library(allocator.library().unwrap_or_default())?;
    let traced = trace(Command::new(program).arg(library).arg(prefix), &PLAIN);
    traced.assert_allocator(allocator.kind());
    traced.assert_allocator("glibc");
    traced.compare().exact();
    Ok(())
}

/// Make sure that a program that calls `mi_malloc` beside glibc's malloc has both counted.
#[test]
fn prefixed_mimalloc_beside_glibc() {
    let _turn = need!(Turn::shared());
    need!(check_prefixed(Allocator::Mimalloc, "mi_"));
}

/// Make sure that a program that calls `tc_malloc` beside glibc's malloc has both counted.
#[test]
fn prefixed_tcmalloc_beside_glibc() {
    let _turn = need!(Turn::shared());
    need!(check_prefixed(Allocator::Tcmalloc, "tc_"));
}
