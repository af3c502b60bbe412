//! C++ exceptions that leave a traced call: `operator new` throws when it has no memory.
//!
//! An unwinder knows no code at the return probe's trampoline, and a program whose exception meets it is ended. So
//! the return address is put back where it was before the unwinder looks, as if the probe had never been there. The
//! kernel forgets the probe's record as it does after a longjmp.
//!
//! A program may not write to the target's memory on a kernel that is locked down (as with Secure Boot), so the
//! collector does it, while the thread waits here.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_ktime_get_ns, bpf_loop, bpf_probe_read_user},
};
use tracer_common::{counters::Counter, limits::RETURN_WAIT_NS, wire::ReturnSlot};

use super::{call::Call, live, pending::holds_trampoline};
use crate::{maps::RETURNS, stats::count, thread};

/// Looks at the clock and at the stack; each takes some 50 ns, so the time runs out first.
const MOST_LOOKS: u32 = 1 << 20;

/// What a wait looks at.
#[repr(C)]
struct Wait {
    slot: ReturnSlot,
    deadline_ns: u64,
}

/// The unwinder begins: gives up the pending call, if there is one below which it runs.
#[inline(always)]
pub(crate) fn unwind_begin(call: &Call) {
    let Some(slot) = thread::existing_slot() else {
        return;
    };
    if slot.sp == 0 || call.sp() > slot.sp || !holds_trampoline(slot) {
        return;
    }
    let mut wait = Wait {
        slot: ReturnSlot {
            address: slot.sp,
            value: slot.return_address,
        },
        // SAFETY: the helper takes no arguments.
        deadline_ns: unsafe { bpf_ktime_get_ns() } + RETURN_WAIT_NS,
    };
    if RETURNS.output(wait.slot, 0).is_ok() {
        // SAFETY: the callback is a function of this object, and `wait` lives until the helper returns.
        unsafe { bpf_loop(MOST_LOOKS, look as *mut c_void, (&raw mut wait).cast(), 0) };
    }
    if is_back(&wait.slot) {
        count(Counter::LeftByException);
    } else {
        count(Counter::ExceptionNotHelped);
    }
    live::put_old_back(slot);
    slot.sp = 0;
}

/// One look of a wait; 1 ends it. The kernel takes only a private function for this.
extern "C" fn look(_index: u64, wait: *mut Wait) -> u64 {
    // SAFETY: the pointer that was handed to the helper.
    let wait = unsafe { &*wait };
    // SAFETY: the helper takes no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    u64::from(is_back(&wait.slot) || now > wait.deadline_ns)
}

#[inline(always)]
fn is_back(slot: &ReturnSlot) -> bool {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    let there = unsafe { bpf_probe_read_user(slot.address as *const u64) };
    there == Ok(slot.value)
}
