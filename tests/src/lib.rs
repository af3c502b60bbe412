//! What the tests on the live kernel share: fixtures, processes with a handshake, memtrace's output, comparisons.
//!
//! The tests need root. A test whose prerequisites are missing says so by name and passes, unless
//! `MEMTRACE_NO_SKIP=1` asks that it fail.

#![expect(
    clippy::expect_used,
    reason = "all of this runs in tests, and a panic is how a test fails"
)]
#![expect(
    clippy::must_use_candidate,
    reason = "waiting for a line is a use of its own"
)]

pub mod books;
pub mod chains;
pub mod code;
pub mod fixture;
pub mod gdb;
pub mod lines;
pub mod memtrace;
pub mod needs;
pub mod report;
pub mod scenario;
pub mod target;
pub mod turn;

/// The value of a prerequisite, or an early return from the test after a line that names it and the reason.
#[macro_export]
macro_rules! need {
    ($prerequisite:expr) => {
        match $prerequisite {
            Ok(value) => value,
            Err(reason) => {
                fn here() {}
                return $crate::needs::skip(std::any::type_name_of_val(&here), &reason);
            }
        }
    };
}
