//! The few bpf(2) commands that aya 0.14 has no call for: programs and links of type `uprobe_multi` and
//! `uprobe_session`, batched map reads, and a program's run-time statistics.
//!
//! Field order and sizes are those of `union bpf_attr` in the kernel's `include/uapi/linux/bpf.h`.
#![expect(unsafe_code, reason = "system calls")]

use std::{
    ffi::CStr,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_insn, bpf_prog_info};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_F_SLEEPABLE: u32 = 1 << 4;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

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

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// The types of maps that are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
}

/// Makes a map of one element that nobody will use. Unlike aya's way, this one never raises the limit of locked
/// memory.
pub(super) fn create_trial_map(
    map_type: MapKind,
    key_size: u32,
    value_size: u32,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: map_type as u32,
        key_size,
        value_size,
        max_entries: 1,
        map_flags: 0,
    };
    bpf_fd(BPF_MAP_CREATE, &mut attr)
}

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
pub(super) struct MultiProgram<'a> {
    /// Its name; the kernel keeps 15 bytes.
    pub(super) name: &'a str,
    /// Its instructions, relocated.
    pub(super) instructions: &'a [bpf_insn],
    /// Its licence.
    pub(super) license: &'a CStr,
    /// How it will be attached.
    pub(super) attach: MultiAttach,
    /// Whether it may sleep.
    pub(super) sleepable: bool,
    /// The types of its functions, which programs with callbacks must have.
    pub(super) types: Option<FunctionTypes<'a>>,
}

/// The types of a program's functions.
pub(super) struct FunctionTypes<'a> {
    /// The object's BTF in the kernel.
    pub(super) btf: BorrowedFd<'a>,
    /// Records of `struct bpf_func_info`.
    pub(super) records: &'a [u8],
    /// Bytes of one record.
    pub(super) record_bytes: u32,
}

/// Loads a uprobe program.
///
/// # Errors
///
/// What the kernel said, with the last part of the verifier's log.
pub(super) fn load_multi_program(program: &MultiProgram<'_>) -> io::Result<OwnedFd> {
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
pub(super) struct MultiLink<'a> {
    /// The program, loaded with the same `attach`.
    pub(super) program: BorrowedFd<'a>,
    /// How the program was loaded.
    pub(super) attach: MultiAttach,
    /// Whether the program runs at the functions' returns instead of their entries (not with `Session`).
    pub(super) at_return: bool,
    /// The file to probe.
    pub(super) path: &'a CStr,
    /// Offsets in the file.
    pub(super) offsets: &'a [u64],
    /// A cookie for each offset.
    pub(super) cookies: &'a [u64],
    /// The process to probe.
    pub(super) pid: u32,
}

/// Attaches a program to many points of a file, for one process.
pub(super) fn link_multi(link: &MultiLink<'_>) -> io::Result<OwnedFd> {
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

/// Creates an array that can be an element of an array of maps, whatever its length (Linux 5.10).
pub(super) fn create_inner_array(value_bytes: usize, entries: usize) -> io::Result<OwnedFd> {
    const BPF_F_INNER_MAP: u32 = 1 << 12;
    let small = |size: usize| u32::try_from(size).map_err(io::Error::other);
    bpf_fd(
        BPF_MAP_CREATE,
        &mut MapCreate {
            map_type: MapKind::Array as u32,
            key_size: small(size_of::<u32>())?,
            value_size: small(value_bytes)?,
            max_entries: small(entries)?,
            map_flags: BPF_F_INNER_MAP,
        },
    )
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes an element of an array whose values are of this type.
pub(super) fn update_array<V: Plain>(map: BorrowedFd<'_>, index: u32, value: &V) -> io::Result<()> {
    update_element(map, index, address(std::ptr::from_ref(value)))
}

fn update_element(map: BorrowedFd<'_>, index: u32, value: u64) -> io::Result<()> {
    bpf(
        BPF_MAP_UPDATE_ELEM,
        &mut MapUpdate {
            map_fd: raw(map),
            reserved: 0,
            key: address(&raw const index),
            value,
            flags: 0,
        },
    )
    .map(drop)
}

/// Writes an element of an array whose values are this long.
pub(super) fn update_array_words(map: BorrowedFd<'_>, index: u32, value: &[u64]) -> io::Result<()> {
    update_element(map, index, address(value.as_ptr()))
}

/// Puts a map into an array of maps.
pub(super) fn update_array_of_maps(
    map: BorrowedFd<'_>,
    index: u32,
    inner: BorrowedFd<'_>,
) -> io::Result<()> {
    update_array(map, index, &raw(inner))
}

#[repr(C)]
#[derive(Default)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Plain old data: any bytes are a value, and there is no padding.
///
/// # Safety
///
/// The type is `repr(C)` or an integer, holds only integers, and its fields leave no gap.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: integers in a row.
unsafe impl Plain for tracer_common::unwind::search::Chunk {}
// SAFETY: the wire types are repr(C) with explicit padding; their sizes are asserted in tracer-common.
unsafe impl Plain for tracer_common::wire::LiveKey {}
// SAFETY: as above.
unsafe impl Plain for tracer_common::wire::LiveBlock {}
// SAFETY: as above.
unsafe impl Plain for tracer_common::wire::StackTotals {}
// SAFETY: as above.
unsafe impl Plain for tracer_common::wire::Stack {}

/// Visits every entry of a hash map, `chunk` entries per system call (Linux 5.6).
///
/// The map may change meanwhile: an entry that stays is visited once, one that comes or goes may be missed.
pub(super) fn for_each_entry<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    chunk: usize,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut chunk = chunk.max(1);
    let mut keys: Vec<K> = Vec::with_capacity(chunk);
    let mut values: Vec<V> = Vec::with_capacity(chunk);
    let mut position = 0_u64;
    let mut first = true;
    loop {
        let mut next = 0_u64;
        let mut attr = MapBatch {
            in_batch: if first {
                0
            } else {
                address(&raw const position)
            },
            out_batch: address(&raw mut next),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: u32::try_from(chunk).map_err(io::Error::other)?,
            map_fd: raw(map),
            ..MapBatch::default()
        };
        let last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                // One bucket holds more entries than the chunk; nothing was copied of it.
                chunk *= 2;
                keys.reserve(chunk);
                values.reserve(chunk);
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = (attr.count as usize).min(chunk);
        // SAFETY: the kernel wrote `count` entries, not more than the capacity, and any bytes are a value.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.iter().zip(&values) {
            visit(key, value);
        }
        keys.clear();
        values.clear();
        if last {
            return Ok(());
        }
        position = next;
        first = false;
    }
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
pub(super) fn btf_of(program: impl AsFd) -> io::Result<OwnedFd> {
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
pub(super) fn run_stats(program: impl AsFd) -> io::Result<RunStats> {
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
