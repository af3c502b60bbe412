//! The books' view of a stack: named by the hash of its frames, stored once.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_common::{
    counters::Counter,
    wire::{STACK_NOT_STORED, Stack, StackTotals, ThreadSlot},
};

use crate::{
    maps::{STACKS, TOTALS},
    stats::count,
};

/// The id under which the slot's stack is booked, and its totals. Stores the stack when it is new.
#[inline(always)]
pub(crate) fn totals(slot: &ThreadSlot) -> Option<(u64, *mut StackTotals)> {
    if let Some(totals) = TOTALS.get_ptr_mut(slot.stack_id) {
        return Some((slot.stack_id, totals));
    }
    let id = if store(slot.stack_id, &slot.stack) {
        slot.stack_id
    } else {
        count(Counter::StackTableFull);
        STACK_NOT_STORED
    };
    TOTALS.get_ptr_mut(id).map(|totals| (id, totals))
}

/// Stores a stack that has no totals yet; false when a table is full.
#[inline(always)]
fn store(id: u64, stack: &Stack) -> bool {
    const EEXIST: i32 = -17;
    // Another thread may store the same stack at the same time.
    let stored = |result: Result<(), i32>| matches!(result, Ok(()) | Err(EEXIST));
    stored(STACKS.insert(id, stack, u64::from(BPF_NOEXIST)))
        && stored(TOTALS.insert(id, StackTotals::default(), u64::from(BPF_NOEXIST)))
}
