//! C++ exceptions that leave a traced call: `operator new` throws when it has no memory.
//!
//! An unwinder knows no code at the return probe's trampoline, and a program whose exception meets it is ended. So
//! the return address is put back where it was before the unwinder looks, as if the probe had never been there. The
//! kernel forgets the probe's record as it does after a longjmp.
//!
//! A program may not write to the target's memory on a kernel that is locked down (as with Secure Boot), so the
//! collector does it, while the thread waits here.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    cty::c_void,
    helpers::{bpf_copy_from_user_task, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_loop},
};
use tracer_common::{counters::Counter, limits::RETURN_WAIT_NS, wire::ReturnSlot};

use super::{call::Call, live, pending::holds_trampoline};
use crate::{maps::RETURNS, stats::count, thread};

/// Looks at the clock and at the stack, some 300 ns each: as many as the kernel lets a program loop.
const MOST_LOOKS: u32 = 1 << 23;

/// The unwinder begins: gives up the pending call, if there is one below which it runs.
#[inline(always)]
pub(crate) fn unwind_begin(call: &Call) {
    let Some(slot) = thread::existing_slot() else {
        return;
    };
    if slot.sp == 0 || call.sp() > slot.sp || !holds_trampoline(slot) {
        return;
    }
    let mut asked = ReturnSlot {
        address: slot.sp,
        value: slot.return_address,
        // SAFETY: the helper takes no arguments.
        asked_ns: unsafe { bpf_ktime_get_ns() },
    };
    if RETURNS
        .output(asked, u64::from(BPF_RB_FORCE_WAKEUP))
        .is_ok()
    {
        // SAFETY: the callback is a function of this object, and `asked` lives until the helper returns.
        unsafe { bpf_loop(MOST_LOOKS, look as *mut c_void, (&raw mut asked).cast(), 0) };
    }
    if is_back(&asked) {
        count(Counter::LeftByException);
    } else {
        count(Counter::ExceptionNotHelped);
    }
    live::put_old_back(slot);
    slot.sp = 0;
}

/// One look of a wait; 1 ends it. The kernel takes only a private function for this.
///
/// A look must let others run, or the collector might wait for this very CPU. Reading by way of the task does.
extern "C" fn look(_index: u64, asked: *mut ReturnSlot) -> u64 {
    // SAFETY: the pointer that was handed to the helper.
    let asked = unsafe { &*asked };
    // SAFETY: the helper takes no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    u64::from(is_back(asked) || now - asked.asked_ns > RETURN_WAIT_NS)
}

#[inline(always)]
fn is_back(asked: &ReturnSlot) -> bool {
    let mut there = 0_u64;
    // SAFETY: `there` is as large as said, and the task is the current one, which stays; the helper checks the
    // address and fails on one that cannot be read.
    let read = unsafe {
        bpf_copy_from_user_task(
            (&raw mut there).cast(),
            size_of::<u64>() as u32,
            asked.address as *const c_void,
            bpf_get_current_task_btf(),
            0,
        )
    };
    read == 0 && there == asked.value
}
