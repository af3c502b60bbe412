//! C++ exceptions that leave a traced call: `operator new` throws when it has no memory.
//!
//! An unwinder knows no code at the return probe's trampoline, and a program whose exception meets it is ended. So
//! the return address is put back where it was before the unwinder looks, as if the probe had never been there. The
//! kernel forgets the probe's record as it does after a longjmp.

use aya_ebpf::helpers::bpf_probe_write_user;
use tracer_common::counters::Counter;

use super::{call::Call, live, pending::holds_trampoline};
use crate::{stats::count, thread};

/// The unwinder begins: gives up the pending call, if there is one below which it runs.
#[inline(always)]
pub(crate) fn unwind_begin(call: &Call) {
    let Some(slot) = thread::existing_slot() else {
        return;
    };
    if slot.sp == 0 || call.sp() > slot.sp || !holds_trampoline(slot) {
        return;
    }
    // SAFETY: the helper checks the address. The word is the return address of a call that this very thread is in,
    // and it gets the value that it had when the call was made.
    let restored = unsafe { bpf_probe_write_user(slot.sp as *mut u64, &slot.return_address) };
    if restored.is_err() {
        return;
    }
    count(Counter::LeftByException);
    live::put_old_back(slot);
    slot.sp = 0;
}
