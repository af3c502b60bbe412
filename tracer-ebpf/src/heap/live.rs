//! The books: live blocks and the totals of their stacks, always changed together.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use aya_log_ebpf::debug;
use tracer_common::{
    counters::Counter,
    wire::{LiveBlock, LiveKey, ThreadSlot},
};

use crate::{
    config::TARGET_TGID,
    maps::{LIVE, TOTALS},
    stack,
    stats::{add, count, count_many},
};

const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

#[inline(always)]
fn key(address: u64) -> LiveKey {
    LiveKey {
        address,
        tgid: TARGET_TGID.load(),
        reserved: 0,
    }
}

/// Takes a block out of the table. Exactly one of several callers gets it.
#[inline(always)]
fn take(address: u64) -> Option<LiveBlock> {
    let key = key(address);
    // SAFETY: the value is copied at once. Its memory may be reused meanwhile only if another caller removed it,
    // and then the removal below fails and the copy is dropped.
    let block = unsafe { *LIVE.get_ptr(key)? };
    LIVE.remove(key).ok()?;
    Some(block)
}

/// Subtracts a released block from its stack.
#[inline(always)]
fn book_release(block: &LiveBlock) {
    if let Some(totals) = TOTALS.get_ptr_mut(block.stack_id) {
        // SAFETY: a value of the map that was just looked up.
        unsafe {
            add(&raw mut (*totals).freed_bytes, block.size_bytes);
            add(&raw mut (*totals).freed_count, 1);
        }
    }
}

/// Releases a block; false when it is not tracked.
#[inline(always)]
pub(crate) fn release(address: u64) -> bool {
    match take(address) {
        Some(block) => {
            book_release(&block);
            true
        }
        None => false,
    }
}

/// Takes the block that a call resizes out of the table while the call runs: as soon as the allocator has
/// released it, another thread can be handed its address.
#[inline(always)]
pub(crate) fn take_old(slot: &mut ThreadSlot) {
    if let Some(block) = take(slot.ptr) {
        slot.old = block;
        slot.old_valid = 1;
    }
}

/// The resize worked: the old block is gone.
#[inline(always)]
pub(crate) fn release_old(slot: &ThreadSlot) {
    if slot.old_valid != 0 {
        book_release(&slot.old);
    } else if slot.ptr != 0 {
        count(Counter::FreeUnseen);
    }
}

/// The resize failed: the old block lives on.
#[inline(always)]
pub(crate) fn put_old_back(slot: &ThreadSlot) {
    if slot.old_valid != 0
        && LIVE
            .insert(key(slot.ptr), slot.old, u64::from(BPF_ANY))
            .is_err()
    {
        count(Counter::LiveFull);
        count_many(Counter::LiveFullBytes, slot.old.size_bytes);
        book_release(&slot.old);
    }
}

/// The call was left without a return: what it did to the old block is not known, and keeping it would be a leak
/// that is none.
#[inline(always)]
pub(crate) fn give_up(slot: &ThreadSlot) {
    if slot.old_valid != 0 {
        book_release(&slot.old);
    }
}

/// Books a new block for the slot's stack.
#[inline(always)]
pub(crate) fn insert(slot: &ThreadSlot, address: u64) {
    let Some((stack_id, totals)) = stack::totals(slot) else {
        count(Counter::LiveNoMemory);
        count_many(Counter::LiveNoMemoryBytes, slot.size_bytes);
        return;
    };
    let key = key(address);
    let block = LiveBlock {
        size_bytes: slot.size_bytes,
        stack_id,
        // SAFETY: the helper takes no arguments.
        born_ns: unsafe { bpf_ktime_get_ns() },
    };
    match LIVE.insert(key, block, u64::from(BPF_NOEXIST)) {
        Ok(()) => {}
        Err(EEXIST) => {
            // The address was released in a way that no probe saw.
            count(Counter::ReleaseMissed);
            debug!(
                (),
                "block {:x} was handed out again, its release was not seen", address
            );
            if let Some(stale) = take(address) {
                book_release(&stale);
            }
            if LIVE.insert(key, block, u64::from(BPF_ANY)).is_err() {
                count_lost(E2BIG, slot.size_bytes);
                return;
            }
        }
        Err(error) => {
            count_lost(error, slot.size_bytes);
            return;
        }
    }
    // SAFETY: a value of the map that was just looked up.
    unsafe {
        add(&raw mut (*totals).allocated_bytes, slot.size_bytes);
        add(&raw mut (*totals).allocated_count, 1);
    }
}

#[inline(always)]
fn count_lost(error: i32, size_bytes: u64) {
    if error == E2BIG {
        count(Counter::LiveFull);
        count_many(Counter::LiveFullBytes, size_bytes);
    } else {
        count(Counter::LiveNoMemory);
        count_many(Counter::LiveNoMemoryBytes, size_bytes);
    }
}
