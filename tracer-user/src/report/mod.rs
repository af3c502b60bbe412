//! What a tracing run found, and its forms: text, JSON, folded stacks, flamegraph.
//!
//! Pure: each form takes a [`Report`] and a writer. Names come from the target and are hostile until escaped.

pub mod escape;
pub mod flamegraph;
pub mod folded;
pub mod json;
mod model;
#[cfg(test)]
mod sample;
mod sort;
pub mod text;
pub mod units;

pub use model::{
    AllocatorInfo, Calls, Cost, Frame, FrameKind, Report, StackRow, TargetInfo, Totals,
};
pub use sort::{SortKey, sort};
