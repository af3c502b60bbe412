//! Counters, exact although programs preempt each other: atomic on the CPU's own copy.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use tracer_common::counters::Counter;

use crate::maps::{SITES, STATS};

/// Adds to a field of a map's value.
///
/// # Safety
///
/// `field` points into a map's value, which the verifier has seen checked, and is 8-byte aligned.
#[inline(always)]
pub(crate) unsafe fn add(field: *mut u64, amount: u64) {
    // `AtomicU64::fetch_add` does not exist for this target, which has no compare-and-swap before Linux 5.12.
    // SAFETY: the caller's promise; all writers of the field are atomic.
    let _previous = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(field, amount) };
}

/// Counts one.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    count_many(counter, 1);
}

/// Counts `amount`.
#[inline(always)]
pub(crate) fn count_many(counter: Counter, amount: u64) {
    if let Some(value) = STATS.get_ptr_mut(counter as u32) {
        // SAFETY: a value of the map that was just looked up.
        unsafe { add(value, amount) };
    }
}

/// Counts a hit of a site's entry.
#[inline(always)]
pub(crate) fn count_enter(site: u32) {
    if let Some(calls) = SITES.get_ptr_mut(site) {
        // SAFETY: a value of the map that was just looked up.
        unsafe { add(&raw mut (*calls).enters, 1) };
    }
}

/// Counts a hit of a site's return.
#[inline(always)]
pub(crate) fn count_exit(site: u32) {
    if let Some(calls) = SITES.get_ptr_mut(site) {
        // SAFETY: a value of the map that was just looked up.
        unsafe { add(&raw mut (*calls).exits, 1) };
    }
}
