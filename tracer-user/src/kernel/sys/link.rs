//! Links: one program at many points of a file.

use std::{
    ffi::CStr,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use super::{MultiAttach, address, bpf_fd, length, raw};

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct LinkCreateUprobeMulti {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    reserved: u32,
}

/// What a `uprobe_multi` link connects.
pub(in crate::kernel) struct MultiLink<'a> {
    /// The program, loaded with the same `attach`.
    pub(in crate::kernel) program: BorrowedFd<'a>,
    /// How the program was loaded.
    pub(in crate::kernel) attach: MultiAttach,
    /// Whether the program runs at the functions' returns instead of their entries (not with `Session`).
    pub(in crate::kernel) at_return: bool,
    /// The file to probe.
    pub(in crate::kernel) path: &'a CStr,
    /// Offsets in the file.
    pub(in crate::kernel) offsets: &'a [u64],
    /// A cookie for each offset.
    pub(in crate::kernel) cookies: &'a [u64],
    /// The process to probe.
    pub(in crate::kernel) pid: u32,
}

/// Attaches a program to many points of a file, for one process.
pub(in crate::kernel) fn link_multi(link: &MultiLink<'_>) -> io::Result<OwnedFd> {
    let MultiLink {
        program,
        attach,
        at_return,
        path,
        offsets,
        cookies,
        pid,
    } = *link;
    if offsets.len() != cookies.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = LinkCreateUprobeMulti {
        prog_fd: raw(program),
        attach_type: attach as u32,
        path: address(path.as_ptr()),
        offsets: address(offsets.as_ptr()),
        cookies: address(cookies.as_ptr()),
        cnt: length(offsets)?,
        multi_flags: if at_return {
            BPF_F_UPROBE_MULTI_RETURN
        } else {
            0
        },
        pid,
        ..LinkCreateUprobeMulti::default()
    };
    bpf_fd(BPF_LINK_CREATE, &mut attr)
}
