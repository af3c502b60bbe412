//! Functions that release.

use tracer_common::{call::CallFlags, counters::Counter};

use super::{alloc::recording, call::Call, live, pending};
use crate::{
    stats::{count, count_enter},
    thread,
};

/// The entry: the block is gone from here on, before the allocator can hand its address out again.
///
/// Returns whether the return is of interest: releases that the user named may call another release inside.
#[inline(always)]
pub(crate) fn enter(call: &Call) -> bool {
    if !recording() {
        count(Counter::NotRecording);
        return false;
    }
    let cookie = call.cookie();
    let (shape, site) = Call::shape(cookie);
    let Some(slot) = thread::slot() else {
        return false;
    };
    let sp = call.sp();
    if pending::is_inside(slot, sp) {
        return false;
    }
    count_enter(site);
    let address = call.arg(shape.ptr);
    if address == 0 {
        return false;
    }
    // `operator delete` may hand the block on to `free` in a call or a jump: one release, seen twice.
    let handed_on = slot.freed_ptr == address && sp <= slot.freed_sp;
    if !live::release(address) && !handed_on {
        count(Counter::FreeUnseen);
    }
    slot.freed_ptr = address;
    slot.freed_sp = sp;
    if !shape.flags.contains(CallFlags::NESTS) {
        return false;
    }
    let Some(return_address) = call.return_address() else {
        return false;
    };
    slot.sp = sp;
    slot.return_address = return_address;
    slot.cookie = cookie;
    slot.ptr = 0;
    slot.old_valid = 0;
    true
}
