//! Which call a thread is in: only the outermost one is an allocation.

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_log_ebpf::debug;
use tracer_common::{counters::Counter, wire::ThreadSlot};

use crate::{heap::live, stats::count, trampoline};

/// Whether a call at stack pointer `sp` is made by the pending call of the thread. A pending call that was left
/// without a return (longjmp, an exception) is given up on the way.
///
/// While the pending call runs, its return address on the stack is replaced by the trampoline of the return
/// probe. A function that another one jumps to in its last instruction finds the same stack pointer, and the
/// trampoline there, too.
#[inline(always)]
pub(crate) fn is_inside(slot: &mut ThreadSlot, sp: u64) -> bool {
    if slot.sp == 0 {
        return false;
    }
    if sp <= slot.sp && holds_trampoline(slot) {
        count(Counter::Nested);
        return true;
    }
    count(Counter::ReturnLost);
    debug!(
        (),
        "return not seen: call at sp {:x}, next call at sp {:x}", slot.sp, sp
    );
    live::give_up(slot);
    slot.sp = 0;
    false
}

#[inline(always)]
pub(super) fn holds_trampoline(slot: &ThreadSlot) -> bool {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    let Ok(there) = (unsafe { bpf_probe_read_user(slot.sp as *const u64) }) else {
        return false;
    };
    match trampoline::address() {
        Some(trampoline) => there == trampoline,
        None => there != slot.return_address,
    }
}
