//! What the running kernel can do, found out by trying, never by its version.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::sys::{MultiAttach, MultiLink, MultiProgram, link_multi, load_multi_program};

/// How probes are attached, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One link per object; a program serves entry and return, and decides at the entry whether the return
    /// matters (Linux 6.13).
    Session,
    /// One link per object and program (Linux 6.6).
    Multi,
    /// One perf event per probe (Linux 5.15). Detaching takes about 0.1 s for each.
    PerfEvent,
}

impl Backend {
    /// The name of the kernel's mechanism.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "uprobe_session",
            Self::Multi => "uprobe_multi",
            Self::PerfEvent => "perf_event",
        }
    }

    /// Tries the mechanisms on a function of memtrace itself, at `offset` of its executable.
    #[must_use]
    pub fn probe(offset: u64) -> Self {
        let works = |attach| {
            let program = nothing_program(attach)?;
            link_nothing(&program, attach, offset, false).map(drop)
        };
        if works(MultiAttach::Session).is_ok() {
            Self::Session
        } else if works(MultiAttach::Multi).is_ok() {
            Self::Multi
        } else {
            Self::PerfEvent
        }
    }
}

/// This executable, for probes on itself.
pub(super) const OWN_EXE: &CStr = c"/proc/self/exe";

/// A program that returns 0.
pub(super) fn nothing_program(attach: MultiAttach) -> io::Result<OwnedFd> {
    let insn = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    // r0 = 0; exit
    load_multi_program(&MultiProgram {
        name: "nothing",
        instructions: &[insn(0xb7), insn(0x95)],
        license: c"Dual MIT/GPL",
        attach,
        types: None,
    })
}

/// Attaches such a program to memtrace itself.
pub(super) fn link_nothing(
    program: &OwnedFd,
    attach: MultiAttach,
    offset: u64,
    at_return: bool,
) -> io::Result<OwnedFd> {
    link_multi(&MultiLink {
        program: program.as_fd(),
        attach,
        at_return,
        path: OWN_EXE,
        offsets: &[offset],
        cookies: &[0],
        pid: std::process::id(),
    })
}
