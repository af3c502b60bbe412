//! What the running kernel can do, found out by trying, never by its version.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use aya_obj::generated::bpf_insn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    Kernel, LoadOptions, Programs,
    btf::{self, TrampolineOffsets},
    sys::{
        MapKind, MultiAttach, MultiLink, MultiProgram, create_trial_map, for_each_entry,
        link_multi, load_multi_program,
    },
};
use crate::target::Site;

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
        [Self::Session, Self::Multi]
            .into_iter()
            .find(|backend| backend.try_on(offset).is_ok())
            .unwrap_or(Self::PerfEvent)
    }

    /// Attaches a program by this mechanism to memtrace itself, at `offset` of its executable, and detaches it.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn try_on(self, offset: u64) -> io::Result<()> {
        let attach = match self {
            Self::Session => MultiAttach::Session,
            Self::Multi => MultiAttach::Multi,
            Self::PerfEvent => return try_perf_event(offset),
        };
        let program = nothing_program(attach)?;
        link_nothing(&program, attach, offset, false).map(drop)
    }
}

/// Attaches a program of the object, since aya loads none but those of an object.
fn try_perf_event(offset: u64) -> io::Result<()> {
    let mut kernel = Kernel::load(LoadOptions {
        tgid: std::process::id(),
        max_live: 1,
        min_size_bytes: 0,
        unwind_by_tables: true,
        log: false,
        programs: Programs::Record,
        at_entry: false,
        backend: Backend::PerfEvent,
    })
    .map_err(io::Error::other)?;
    let site = Site {
        entry_offset: offset,
        file_offset: offset,
        instruction: String::new(),
        emulated: true,
    };
    kernel.attach_loader(Path::new("/proc/self/exe"), &site)
}

/// Tries bpf(2) as such: makes a map of one element.
///
/// # Errors
///
/// What the kernel said; mostly that memtrace is not permitted.
pub fn try_bpf() -> io::Result<()> {
    create_trial_map(MapKind::Array, 4, 8).map(drop)
}

/// Whether the kernel charges maps to the limit of locked memory, as it did before Linux 5.11: makes a map while
/// the limit is zero.
///
/// # Errors
///
/// When the limit cannot be changed.
pub fn locked_memory_counts() -> io::Result<bool> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, hard)?;
    let made = create_trial_map(MapKind::Array, 4, 8);
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    Ok(made.is_err())
}

/// Tries the types of programs that memtrace loads; names the one that is missing.
///
/// # Errors
///
/// When the kernel refused for another reason than not to know the type.
pub fn missing_program_type() -> io::Result<Option<&'static str>> {
    for (name, program_type) in [
        ("kprobe", ProgramType::KProbe),
        ("raw_tracepoint", ProgramType::RawTracePoint),
    ] {
        if !is_program_supported(program_type).map_err(io::Error::other)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether the kernel has ring buffers.
///
/// # Errors
///
/// When the kernel refused for another reason than not to know the type.
pub fn has_ring_buffers() -> io::Result<bool> {
    is_map_supported(MapType::RingBuf).map_err(io::Error::other)
}

/// The helper functions that the programs call, by the kernel's names; but for the program for exceptions, without
/// which memtrace works.
const HELPERS: [(&str, BpfHelper); 14] = [
    ("bpf_map_lookup_elem", BpfHelper::BPF_FUNC_map_lookup_elem),
    ("bpf_map_update_elem", BpfHelper::BPF_FUNC_map_update_elem),
    ("bpf_map_delete_elem", BpfHelper::BPF_FUNC_map_delete_elem),
    ("bpf_ktime_get_ns", BpfHelper::BPF_FUNC_ktime_get_ns),
    (
        "bpf_get_current_pid_tgid",
        BpfHelper::BPF_FUNC_get_current_pid_tgid,
    ),
    ("bpf_get_current_task", BpfHelper::BPF_FUNC_get_current_task),
    ("bpf_probe_read_user", BpfHelper::BPF_FUNC_probe_read_user),
    (
        "bpf_probe_read_kernel",
        BpfHelper::BPF_FUNC_probe_read_kernel,
    ),
    ("bpf_ringbuf_output", BpfHelper::BPF_FUNC_ringbuf_output),
    ("bpf_ringbuf_reserve", BpfHelper::BPF_FUNC_ringbuf_reserve),
    ("bpf_ringbuf_submit", BpfHelper::BPF_FUNC_ringbuf_submit),
    ("bpf_ringbuf_discard", BpfHelper::BPF_FUNC_ringbuf_discard),
    ("bpf_get_func_ip", BpfHelper::BPF_FUNC_get_func_ip),
    (
        "bpf_get_attach_cookie",
        BpfHelper::BPF_FUNC_get_attach_cookie,
    ),
];

/// How many helper functions of the kernel memtrace's programs call, and which of them the kernel lacks.
///
/// # Errors
///
/// When a helper could not be tried.
pub fn missing_helpers() -> io::Result<(usize, Vec<&'static str>)> {
    let mut missing = Vec::new();
    for (name, helper) in HELPERS {
        if !is_helper_supported(ProgramType::KProbe, helper).map_err(io::Error::other)? {
            missing.push(name);
        }
    }
    Ok((HELPERS.len(), missing))
}

/// Reads a map in a batch.
///
/// # Errors
///
/// What the kernel said.
pub fn try_batch_reads() -> io::Result<()> {
    let map = create_trial_map(MapKind::Hash, 8, 8)?;
    for_each_entry(map.as_fd(), 1, |_: &u64, _: &u64| {})
}

/// Whether the kernel describes its own types.
#[must_use]
pub fn has_btf() -> bool {
    Path::new(btf::VMLINUX).exists()
}

/// Whether that description names the fields that lead to the trampoline of return probes.
#[must_use]
pub fn has_trampoline_fields() -> bool {
    TrampolineOffsets::of_kernel().is_some()
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
        sleepable: false,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kernel::object;

    /// Helpers that only the program for exceptions calls.
    const FOR_EXCEPTIONS: [BpfHelper; 3] = [
        BpfHelper::BPF_FUNC_loop,
        BpfHelper::BPF_FUNC_copy_from_user_task,
        BpfHelper::BPF_FUNC_get_current_task_btf,
    ];

    /// Make sure that the list of helpers is that of the object: no helper missing, none too many.
    #[test]
    fn helpers_of_the_object() {
        const CALL: u8 = 0x85;
        let object = aya_obj::Object::parse(object::BYTES).expect("the embedded object");
        let called: BTreeSet<i32> = object
            .functions
            .values()
            .flat_map(|function| &function.instructions)
            .filter(|insn| insn.code == CALL && insn.src_reg() == 0)
            .map(|insn| insn.imm)
            .collect();
        let listed: BTreeSet<i32> = HELPERS
            .iter()
            .map(|(_, helper)| *helper)
            .chain(FOR_EXCEPTIONS)
            .map(|helper| helper as i32)
            .collect();
        assert_eq!(listed, called);
    }
}
