//! Maps: making, writing, and reading many entries at once.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{address, bpf, bpf_fd, raw};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

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
pub(in crate::kernel) enum MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
}

/// Makes a map of one element that nobody will use. Unlike aya's way, this one never raises the limit of locked
/// memory.
pub(in crate::kernel) fn create_trial_map(
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

/// Creates an array that can be an element of an array of maps, whatever its length (Linux 5.10).
pub(in crate::kernel) fn create_inner_array(
    value_bytes: usize,
    entries: usize,
) -> io::Result<OwnedFd> {
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
pub(in crate::kernel) fn update_array<V: Plain>(
    map: BorrowedFd<'_>,
    index: u32,
    value: &V,
) -> io::Result<()> {
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
pub(in crate::kernel) fn update_array_words(
    map: BorrowedFd<'_>,
    index: u32,
    value: &[u64],
) -> io::Result<()> {
    update_element(map, index, address(value.as_ptr()))
}

/// Puts maps into an array of maps, from an index on.
///
/// The kernel waits, 10 ms and more, until no program uses what was there: once for all of them where it takes them at
/// once, once for each on kernels that do not.
pub(in crate::kernel) fn update_array_of_maps(
    map: BorrowedFd<'_>,
    first: u32,
    inner: &[OwnedFd],
) -> io::Result<()> {
    let values: Vec<u32> = inner.iter().map(|inner| raw(inner.as_fd())).collect();
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    let mut attr = MapBatch {
        keys: address(keys.as_ptr()),
        values: address(values.as_ptr()),
        count: u32::try_from(values.len()).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..MapBatch::default()
    };
    if bpf(BPF_MAP_UPDATE_BATCH, &mut attr).is_ok() {
        return Ok(());
    }
    keys.iter()
        .zip(&values)
        .try_for_each(|(key, value)| update_array(map, *key, value))
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
pub(in crate::kernel) unsafe trait Plain: Copy {}

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
pub(in crate::kernel) fn for_each_entry<K: Plain, V: Plain>(
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
