//! The few bpf(2) commands that aya 0.14 has no call for: programs and links of type `uprobe_multi` and
//! `uprobe_session`, arrays for arrays of maps, batched map reads, and a program's run-time statistics.
//!
//! Field order and sizes are those of `union bpf_attr` in the kernel's `include/uapi/linux/bpf.h`.
#![expect(unsafe_code, reason = "system calls")]

mod link;
mod map;
mod program;

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

pub use program::RunStats;
pub(super) use {
    link::{MultiLink, link_multi},
    map::{
        MapKind, create_inner_array, create_trial_map, for_each_entry, update_array,
        update_array_of_maps, update_array_words,
    },
    program::{FunctionTypes, MultiProgram, btf_of, load_multi_program, run_stats},
};

/// How a program is attached to many points by one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MultiAttach {
    /// `BPF_TRACE_UPROBE_MULTI` (Linux 6.6).
    Multi = 48,
    /// `BPF_TRACE_UPROBE_SESSION` (Linux 6.13): one program sees the entry and, if it asks for it, the return.
    Session = 57,
}

/// Calls bpf(2) with an attribute that is fully initialised, padding included.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is a live, initialised, repr(C) value of the size given; the pointers inside are to
    // memory that the callers in this file keep alive over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the commands that this is called for return a new file descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T: ?Sized>(value: *const T) -> u64 {
    value.cast::<()>() as u64
}

fn length<T>(slice: &[T]) -> io::Result<u32> {
    u32::try_from(slice.len()).map_err(io::Error::other)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
