//! Programs: loading, and what the kernel knows of them.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya_obj::generated::{bpf_insn, bpf_prog_info};

use super::{MultiAttach, address, bpf, bpf_fd, length, raw};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_F_SLEEPABLE: u32 = 1 << 4;

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    reserved: u32,
}

/// A program to load for attachment by one link to many points.
pub(in crate::kernel) struct MultiProgram<'a> {
    /// Its name; the kernel keeps 15 bytes.
    pub(in crate::kernel) name: &'a str,
    /// Its instructions, relocated.
    pub(in crate::kernel) instructions: &'a [bpf_insn],
    /// Its licence.
    pub(in crate::kernel) license: &'a CStr,
    /// How it will be attached.
    pub(in crate::kernel) attach: MultiAttach,
    /// Whether it may sleep.
    pub(in crate::kernel) sleepable: bool,
    /// The types of its functions, which programs with callbacks must have.
    pub(in crate::kernel) types: Option<FunctionTypes<'a>>,
}

/// The types of a program's functions.
pub(in crate::kernel) struct FunctionTypes<'a> {
    /// The object's BTF in the kernel.
    pub(in crate::kernel) btf: BorrowedFd<'a>,
    /// Records of `struct bpf_func_info`.
    pub(in crate::kernel) records: &'a [u8],
    /// Bytes of one record.
    pub(in crate::kernel) record_bytes: u32,
}

/// Loads a uprobe program.
///
/// # Errors
///
/// What the kernel said, with the last part of the verifier's log.
pub(in crate::kernel) fn load_multi_program(program: &MultiProgram<'_>) -> io::Result<OwnedFd> {
    let MultiProgram {
        name,
        instructions,
        license,
        attach,
        sleepable,
        types,
    } = program;
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let mut attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: length(instructions)?,
        insns: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        prog_name,
        prog_flags: if *sleepable { BPF_F_SLEEPABLE } else { 0 },
        expected_attach_type: *attach as u32,
        ..ProgLoad::default()
    };
    if let Some(FunctionTypes {
        btf,
        records,
        record_bytes,
    }) = types
    {
        attr.prog_btf_fd = raw(*btf);
        attr.func_info_rec_size = *record_bytes;
        attr.func_info = address(records.as_ptr());
        attr.func_info_cnt = length(records)?.checked_div(*record_bytes).unwrap_or(0);
    }
    let error = match bpf_fd(BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Load again with the verifier's log, for the message; it stays empty when something else refused.
    let mut log = vec![0_u8; 1 << 20];
    attr.log_level = 1;
    attr.log_size = length(&log)?;
    attr.log_buf = address(log.as_mut_ptr());
    match bpf_fd(BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(fd),
        Err(_) => Err(io::Error::new(
            error.kind(),
            format!("{error}: {}", log_tail(&log)),
        )),
    }
}

fn log_tail(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default());
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(12)..)
        .unwrap_or_default()
        .join("\n")
}

#[repr(C)]
struct ObjInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
struct GetFdById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The BTF that a program was loaded with.
pub(in crate::kernel) fn btf_of(program: impl AsFd) -> io::Result<OwnedFd> {
    let info = program_info(program)?;
    bpf_fd(
        BPF_BTF_GET_FD_BY_ID,
        &mut GetFdById {
            id: info.btf_id,
            next_id: 0,
            open_flags: 0,
        },
    )
}

/// What the kernel measured of a program while statistics were enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Time in the program.
    pub run_ns: u64,
    /// Runs in that time.
    pub runs: u64,
}

/// Statistics of a program; zero before anyone enabled them.
pub(in crate::kernel) fn run_stats(program: impl AsFd) -> io::Result<RunStats> {
    let info = program_info(program)?;
    Ok(RunStats {
        run_ns: info.run_time_ns,
        runs: info.run_cnt,
    })
}

fn program_info(program: impl AsFd) -> io::Result<bpf_prog_info> {
    // SAFETY: a struct of integers and byte arrays; zeroes are a value.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = ObjInfo {
        bpf_fd: raw(program.as_fd()),
        info_len: u32::try_from(size_of_val(&info)).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}
