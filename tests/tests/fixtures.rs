//! The fixtures by themselves, without root and without memtrace: that they run, and that their books are sound.

use std::{path::Path, process::Command};

use tests::{
    books::Books,
    fixture::{self, Link},
    need,
    scenario::Allocator,
    target::Target,
};

/// Runs a fixture to its end.
fn books_of(command: &mut Command) -> Books {
    let mut target = Target::start(command);
    target.go();
    let books = target.books();
    target.end();
    for (site, counts) in &books.sites {
        assert!(
            counts.live_count <= counts.total_count,
            "{site}: {counts:?}"
        );
        assert!(
            counts.live_bytes <= counts.total_bytes,
            "{site}: {counts:?}"
        );
    }
    books
}

fn total_count(books: &Books, site: &str) -> u64 {
    books.sites[site].total_count
}

fn functions_under(program: &Path, allocator: Allocator) -> Result<Books, String> {
    Ok(books_of(allocator.command(program)?.arg("4")))
}

/// Make sure that the calls that must fail do, under every allocator, and the others do not.
#[test]
fn every_function_does_what_the_fixture_expects() {
    let program = need!(fixture::c("functions", Link::Dynamic));
    for allocator in [
        Allocator::Glibc,
        Allocator::Jemalloc,
        Allocator::Tcmalloc,
        Allocator::Mimalloc,
    ] {
        let books = need!(functions_under(&program, allocator));
        for failing in [
            "site_malloc_huge",
            "site_calloc_overflow",
            "site_realloc_huge",
            "site_reallocarray_overflow",
            "site_posix_memalign_bad",
            "site_posix_memalign_huge",
        ] {
            assert_eq!(
                total_count(&books, failing),
                0,
                "{failing} under {allocator:?}"
            );
        }
        assert_eq!(
            total_count(&books, "site_malloc_zero"),
            4 * 60,
            "{allocator:?}"
        );
        assert_eq!(
            total_count(&books, "site_realloc_shrink"),
            4 * 60,
            "{allocator:?}"
        );
    }
}

/// Make sure that the static builds work as the dynamic one does.
#[test]
fn static_programs_keep_the_same_books() {
    let dynamic = books_of(&mut Command::new(need!(fixture::c(
        "functions",
        Link::Dynamic
    ))));
    for link in [Link::StaticGlibc, Link::StaticMusl] {
        let books = books_of(&mut Command::new(need!(fixture::c("functions", link))));
        for site in [
            "site_malloc",
            "site_calloc",
            "site_realloc_grow",
            "site_posix_memalign",
        ] {
            assert_eq!(
                books.sites[site], dynamic.sites[site],
                "{site} with {link:?}"
            );
        }
    }
}

/// Make sure that the C++ fixture works under every allocator.
#[test]
fn every_operator_runs_under_every_allocator() {
    let program = need!(fixture::cxx("operators"));
    for allocator in [
        Allocator::Glibc,
        Allocator::Jemalloc,
        Allocator::Tcmalloc,
        Allocator::Mimalloc,
    ] {
        let books = books_of(&mut need!(allocator.command(&program)));
        assert_eq!(total_count(&books, "site_new_huge"), 0, "{allocator:?}");
        assert_eq!(
            total_count(&books, "site_new_array_aligned_nothrow"),
            60,
            "{allocator:?}"
        );
    }
}

/// Make sure that failing allocations throw where the tests count on it. (Debian's mimalloc, built as C, aborts.)
#[test]
fn allocations_throw() {
    let program = need!(fixture::cxx("exceptions"));
    for allocator in [Allocator::Glibc, Allocator::Jemalloc, Allocator::Tcmalloc] {
        for mode in ["absurd", "limit", "none"] {
            let books = books_of(need!(allocator.command(&program)).arg(mode));
            assert_eq!(
                books.extra, 50,
                "exceptions caught under {allocator:?}, {mode}"
            );
        }
    }
}

/// Make sure that no jump, fork or storm upsets the books themselves.
#[test]
fn control_flow_keeps_the_books_sound() {
    let jumps = need!(fixture::c("jumps", Link::Dynamic));
    for place in ["between", "same", "higher", "deeper"] {
        let books = books_of(Command::new(&jumps).arg(place));
        assert_eq!(total_count(&books, "site_before"), 100, "{place}");
        assert_eq!(total_count(&books, "site_left"), 0, "{place}");
    }
    let forks = books_of(&mut Command::new(need!(fixture::c("forks", Link::Dynamic))));
    assert_eq!(
        (forks.extra, total_count(&forks, "site_child")),
        (0, 0),
        "the child's status, its blocks"
    );
    let threads = need!(fixture::c("thread_exits", Link::Dynamic));
    for way in ["exit", "pthread"] {
        assert_eq!(
            total_count(&books_of(Command::new(&threads).arg(way)), "site_ends"),
            0,
            "{way}"
        );
    }
    let storm =
        books_of(Command::new(need!(fixture::c("storm", Link::Dynamic))).args(["16", "2000"]));
    assert_eq!(storm.sum().live_count, 64, "one block per slot");
}

/// Make sure that the Rust fixture builds both ways and keeps sound books.
#[test]
fn rust_programs_run() {
    for jemalloc in [false, true] {
        let books = books_of(&mut Command::new(need!(fixture::rust(jemalloc))));
        assert_eq!(
            total_count(&books, "site_grow"),
            400,
            "jemalloc: {jemalloc}"
        );
    }
}
