//! The heap lens: every call of the allocator's functions.

pub(crate) mod alloc;
pub(crate) mod call;
pub(crate) mod exception;
pub(crate) mod free;
mod live;
mod pending;

/// Result of an entry that wants to see the return. Only session programs (Linux 6.13) act on the difference.
pub(crate) const WATCH_RETURN: u32 = 0;
/// Result of an entry that does not want to see the return: the return address is left alone.
pub(crate) const IGNORE_RETURN: u32 = 1;
