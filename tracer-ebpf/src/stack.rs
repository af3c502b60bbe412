//! The stack of a call: walked at the function's entry, named by the hash of its frames, stored once.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_probe_read_user};
use tracer_common::{
    counters::Counter,
    limits::MAX_FRAMES,
    stack_id::StackHasher,
    stop::StopReason,
    wire::{STACK_NOT_STORED, Stack, StackTotals, ThreadSlot},
};

use crate::{
    heap::call::Call,
    maps::{STACKS, TOTALS},
    stats::count,
};

/// First address that no user-space mapping can have, with five-level page tables.
const USER_ADDRESSES_END: u64 = 1 << 56;
/// Nothing is ever mapped below `vm.mmap_min_addr`, which is at least a page.
const USER_ADDRESSES_START: u64 = 4096;

/// Walks the stack of `call` by frame pointers into the slot, and returns the stack's id.
///
/// The first frame is the return address on top of the stack, which a walk that starts at the frame pointer
/// would miss.
#[inline(always)]
pub(crate) fn walk(call: &Call, slot: &mut ThreadSlot) -> u64 {
    let stack = &mut slot.stack;
    stack.frames[0] = slot.return_address;
    let mut hash = StackHasher::new().frame(slot.return_address);
    let mut fp = call.fp();
    let mut above = call.sp();
    let mut depth = 1;
    let mut stop = StopReason::TooDeep;
    while depth < MAX_FRAMES {
        if fp == 0 {
            stop = StopReason::Complete;
            break;
        }
        if fp <= above || fp & 7 != 0 {
            stop = StopReason::BadFramePointer;
            break;
        }
        // SAFETY: the helper checks the address and fails on one that cannot be read.
        let Ok([caller_fp, return_address]) =
            (unsafe { bpf_probe_read_user(fp as *const [u64; 2]) })
        else {
            stop = StopReason::Unreadable;
            break;
        };
        if return_address == 0 {
            stop = StopReason::Complete;
            break;
        }
        if !(USER_ADDRESSES_START..USER_ADDRESSES_END).contains(&return_address) {
            stop = StopReason::BadReturnAddress;
            break;
        }
        stack.frames[depth] = return_address;
        hash = hash.frame(return_address);
        above = fp;
        fp = caller_fp;
        depth += 1;
    }
    stack.frame_count = depth as u32;
    stack.stop = stop as u32;
    hash.finish(stop)
}

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
