//! Functions that allocate or resize.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_common::{
    call::{CallFlags, CallShape},
    counters::Counter,
};

use super::{IGNORE_RETURN, WATCH_RETURN, call::Call, live, pending};
use crate::{
    config::MIN_SIZE_BYTES,
    maps::STATE,
    stats::{count, count_enter, count_exit},
    thread, unwind,
};

/// No address space is as large as this; a product beyond it might not fit into 64 bits either.
const IMPOSSIBLE_BYTES: u64 = 1 << 57;

/// Whether calls are recorded now.
#[inline(always)]
pub(crate) fn recording() -> bool {
    // SAFETY: a value of the map that was just looked up; a torn read of a u32 does not exist.
    STATE.get_ptr(0).is_some_and(
        |state| unsafe { core::ptr::read_volatile(&raw const (*state).recording) } != 0,
    )
}

/// The entry: keeps the arguments and the stack in the thread's slot.
#[inline(always)]
pub(crate) fn enter(call: &Call) -> u32 {
    if !recording() {
        count(Counter::NotRecording);
        return IGNORE_RETURN;
    }
    let Some(slot) = thread::slot() else {
        return IGNORE_RETURN;
    };
    let sp = call.sp();
    if pending::is_inside(slot, sp) {
        return IGNORE_RETURN;
    }
    let cookie = call.cookie();
    let (shape, site) = Call::shape(cookie);
    count_enter(site);
    let size_bytes = requested_bytes(call, shape);
    let ptr = call.arg(shape.ptr);
    // A resize to a small block still ends the large one.
    if size_bytes < MIN_SIZE_BYTES.load() && ptr == 0 {
        count(Counter::TooSmall);
        return IGNORE_RETURN;
    }
    if !unwind::walk(call, slot) {
        count(Counter::ReturnLost);
        return IGNORE_RETURN;
    }
    slot.sp = sp;
    slot.cookie = cookie;
    slot.size_bytes = size_bytes;
    slot.out = call.arg(shape.out);
    slot.freed_ptr = 0;
    slot.ptr = ptr;
    slot.old_valid = 0;
    if ptr != 0 {
        live::take_old(slot);
    }
    WATCH_RETURN
}

/// The return: books the block if there is one.
#[inline(always)]
pub(crate) fn exit(call: &Call) {
    let Some(slot) = thread::existing_slot() else {
        return;
    };
    // A return moves the stack pointer above the return address; other values belong to inner calls.
    if slot.sp == 0 || call.sp() != slot.sp + 8 {
        return;
    }
    slot.sp = 0;
    let (shape, site) = Call::shape(slot.cookie);
    count_exit(site);
    if shape.is_free() {
        return;
    }
    if !recording() {
        // The books are closed: what the call took out of them goes back, and what it brings does not count.
        live::put_old_back(slot);
        return;
    }
    let address = block_address(shape, call.result(), slot.size_bytes, slot.ptr, slot.out);
    if address != 0 {
        live::release_old(slot);
        if slot.size_bytes < MIN_SIZE_BYTES.load() {
            count(Counter::TooSmall);
        } else {
            live::insert(slot, address);
        }
        return;
    }
    let resized_to_nothing = slot.ptr != 0 && slot.size_bytes == 0;
    if !resized_to_nothing {
        count(Counter::AllocFailed);
    }
    if resized_to_nothing || shape.flags.contains(CallFlags::FREES_ON_FAILURE) {
        live::release_old(slot);
    } else {
        live::put_old_back(slot);
    }
}

/// Bytes asked for; the largest number where the product does not fit, as in a call that must fail.
#[inline(always)]
fn requested_bytes(call: &Call, shape: CallShape) -> u64 {
    let size = call.arg(shape.size);
    if !shape.count.is_some() {
        return size;
    }
    let count = call.arg(shape.count);
    if count != 0 && size > IMPOSSIBLE_BYTES / count {
        u64::MAX
    } else {
        size * count
    }
}

/// Address of the new block, 0 when the call failed.
#[inline(always)]
fn block_address(shape: CallShape, result: u64, size_bytes: u64, ptr: u64, out: u64) -> u64 {
    if shape.flags.contains(CallFlags::IN_PLACE) {
        return if result >= size_bytes { ptr } else { 0 };
    }
    if !shape.out.is_some() {
        return result;
    }
    // The result is an `int`: 0 or an error number.
    if result as u32 != 0 {
        return 0;
    }
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    let Ok(address) = (unsafe { bpf_probe_read_user(out as *const u64) }) else {
        count(Counter::OutUnreadable);
        return 0;
    };
    address
}
