//! Waiting for a file descriptor in the event loop.
#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the descriptor's owner"
)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use tokio::io::unix::AsyncFd;

use crate::kernel::Events;

/// Types whose descriptor stays the same, and open, for as long as the value lives.
///
/// # Safety
///
/// `as_raw_fd` returns the same open descriptor until the value is dropped.
pub(super) unsafe trait StableFd: AsRawFd {}

// SAFETY: owns one descriptor, which nothing but its drop closes.
unsafe impl StableFd for OwnedFd {}
// SAFETY: owns the descriptor of one map, which nothing but its drop closes.
unsafe impl StableFd for Events {}

/// Makes a descriptor something to wait for.
pub(super) fn readable<T: StableFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the trait's promise.
    unsafe { AsyncFd::register(owner) }.map_err(|error| error.into_parts().1)
}
