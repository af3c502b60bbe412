//! Allocators that the user names: `--alloc`, `--realloc`, `--free`.

use std::process::Command;

use tests::{
    books::Counts,
    fixture, need,
    scenario::{PLAIN, trace},
    turn::Turn,
};

const POOL: [&str; 6] = [
    "--alloc",
    "libpool.so:pool_alloc(size=2)",
    "--realloc",
    "libpool.so:pool_realloc(ptr=2,size=3)",
    "--free",
    "libpool.so:pool_free(ptr=2)",
];

/// Make sure that a pool's blocks are counted exactly, beside those of malloc, and that the chunks that the pool takes
/// from malloc on the way are not counted again.
#[test]
fn pool_in_a_shared_library() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::pool_user());
    let traced = trace(&mut Command::new(program), &POOL);
    traced.assert_allocator("user");
    traced.compare().nothing_elsewhere().exact();
    assert!(traced.books.extra > 0, "the pool took chunks");
    assert!(
        traced.report.counter("nested_call") >= traced.books.extra,
        "each chunk was a call inside the pool's"
    );
}

/// Make sure that without being told, memtrace sees the chunks that the pool takes, and nothing twice.
#[test]
fn pool_that_nobody_named() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::pool_user());
    let traced = trace(&mut Command::new(program), &PLAIN);
    let mut chunks = Counts::default();
    let mut own = Counts::default();
    for stack in &traced.report.stacks {
        if stack.passes_through("site_pool") {
            chunks += stack.counts;
        } else {
            own += stack.counts;
        }
    }
    assert_eq!(chunks.total_count, traced.books.extra, "chunks");
    assert_eq!(
        own, traced.books.sites["site_malloc"],
        "the program's own calls of malloc"
    );
}
