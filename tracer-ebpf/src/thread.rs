//! The slot of the current thread.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use aya_log_ebpf::debug;
use tracer_common::{counters::Counter, wire::ThreadSlot};

use crate::{
    config::TARGET_TGID,
    maps::{THREADS, ZERO_SLOT},
    stats::count,
};

/// The slot of the current thread, if it has one.
#[inline(always)]
pub(crate) fn existing_slot() -> Option<&'static mut ThreadSlot> {
    let id = bpf_get_current_pid_tgid();
    if (id >> 32) as u32 != TARGET_TGID.load() {
        return None;
    }
    get(id as u32)
}

/// The slot of the current thread, made at its first call.
#[inline(always)]
pub(crate) fn slot() -> Option<&'static mut ThreadSlot> {
    let id = bpf_get_current_pid_tgid();
    if (id >> 32) as u32 != TARGET_TGID.load() {
        return None;
    }
    let tid = id as u32;
    if let Some(slot) = get(tid) {
        return Some(slot);
    }
    let zero = ZERO_SLOT.get(0)?;
    if THREADS.insert(tid, zero, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::ThreadTableFull);
        return None;
    }
    debug!((), "thread {} makes its first call", tid);
    get(tid)
}

#[inline(always)]
fn get(tid: u32) -> Option<&'static mut ThreadSlot> {
    // SAFETY: the slot of a thread is used by programs that run in that thread, which are never two at once, and
    // is removed when the thread exits, so no other reference to it lives.
    THREADS.get_ptr_mut(tid).map(|slot| unsafe { &mut *slot })
}
