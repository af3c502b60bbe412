//! What happens to the target as a whole: exec, the exit of its threads, objects loaded.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_log_ebpf::{debug, info};
use tracer_common::{
    counters::Counter,
    wire::{Event, EventKind},
};

use crate::{
    config::TARGET_TGID,
    maps::{EVENTS, STATE, THREADS},
    stats::count,
};

/// Stops the recording when the target executes another image: its old heap is gone with the old image.
#[inline(always)]
pub(crate) fn exec() {
    let Some(tid) = target_tid() else { return };
    if let Some(state) = STATE.get_ptr_mut(0) {
        // SAFETY: a value of the map that was just looked up; an exec has one thread, and the collector writes
        // only `recording`.
        unsafe {
            (*state).recording = 0;
            (*state).execs += 1;
        }
    }
    info!((), "thread {} executes another image", tid);
    send(EventKind::Exec, tid);
}

/// Gives back the slot of a thread that exits.
#[inline(always)]
pub(crate) fn exit() {
    let Some(tid) = target_tid() else { return };
    if let Some(slot) = THREADS.get_ptr(tid) {
        debug!((), "thread {} exits", tid);
        // SAFETY: a value of the map that was just looked up, used only by its own thread, which is this one.
        if unsafe { (*slot).sp } != 0 {
            count(Counter::ReturnLost);
        }
        // A slot that is gone already needs no removal.
        let _absent = THREADS.remove(tid);
    }
}

/// Tells the collector that the loader mapped or unmapped objects.
#[inline(always)]
pub(crate) fn objects_changed() {
    if let Some(tid) = target_tid() {
        send(EventKind::ObjectsChanged, tid);
    }
}

#[inline(always)]
fn target_tid() -> Option<u32> {
    let id = bpf_get_current_pid_tgid();
    ((id >> 32) as u32 == TARGET_TGID.load()).then_some(id as u32)
}

#[inline(always)]
fn send(kind: EventKind, tid: u32) {
    let event = Event {
        kind: kind as u32,
        tid,
        // SAFETY: the helper takes no arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
    };
    // The collector reads the state and the maps file at every tick, so a full buffer only delays it.
    let _delayed = EVENTS.output(event, 0);
}
