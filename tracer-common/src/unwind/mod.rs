//! Unwinding by tables: the row, how it is found, and the step from a frame to its caller; pure, for BPF and for tests.
//!
//! An object's table is a list of [chunks](search::Chunk). Its text is divided into [pages](search::PAGE_BYTES),
//! counted from the page of its first executable virtual address. The first chunks are the index, one
//! [entry](search::IndexEntry) per page; the others hold the rows, all rows of a page in one chunk, the first of them
//! for the page's first byte. So a look-up is one index entry, one chunk, and a search that never leaves it.
#![expect(
    clippy::inline_always,
    reason = "the BPF program is one function: the verifier follows bounds and pointers best without calls"
)]

pub mod row;
pub mod search;
pub mod step;
