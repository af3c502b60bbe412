//! memtrace's BPF programs: entry points only; what they do is in the modules.
//!
//! A program is named for what it sees. `alloc_session` and `free_session` serve an entry and its return in one
//! program (Linux 6.13); before that, `alloc_enter` and `alloc_exit` are attached as a pair.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "atomic addition has no stable form for the BPF target"
)]
#![expect(
    unsafe_code,
    reason = "helpers, contexts and map values are raw pointers"
)]
#![expect(
    clippy::inline_always,
    reason = "a call costs what these programs cannot spare, and the stack of each call chain is bounded"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the kernel packs two 32-bit numbers into one, and counts are far below 2^32"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry points have the signatures that aya calls"
)]

mod config;
mod heap;
mod lifecycle;
mod maps;
mod stack;
mod stats;
mod thread;
mod trampoline;

use aya_ebpf::{
    cty::c_void,
    macros::{raw_tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};

use crate::heap::{IGNORE_RETURN, WATCH_RETURN, call::Call};

/// Entry of a function that allocates.
#[uprobe]
fn alloc_enter(ctx: ProbeContext) -> u32 {
    heap::alloc::enter(&Call::at_entry(&ctx))
}

/// Return of a function that allocates.
#[uretprobe]
fn alloc_exit(ctx: RetProbeContext) -> u32 {
    heap::alloc::exit(&Call::at_return(&ctx));
    0
}

/// Entry and return of a function that allocates.
// aya's `uprobe` attribute drops the result, which tells the kernel whether the return matters.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_session(ctx: *mut c_void) -> u32 {
    let call = Call::at_entry(&ProbeContext::new(ctx));
    if call.is_return() {
        heap::alloc::exit(&call);
        return IGNORE_RETURN;
    }
    heap::alloc::enter(&call)
}

/// Entry of a function that releases.
#[uprobe]
fn free_enter(ctx: ProbeContext) -> u32 {
    heap::free::enter(&Call::at_entry(&ctx));
    0
}

/// Entry and return of a function that releases and may call another one on its way.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn free_session(ctx: *mut c_void) -> u32 {
    let call = Call::at_entry(&ProbeContext::new(ctx));
    if call.is_return() {
        heap::alloc::exit(&call);
        return IGNORE_RETURN;
    }
    if heap::free::enter(&call) {
        WATCH_RETURN
    } else {
        IGNORE_RETURN
    }
}

/// The C++ runtime begins to unwind the stack for an exception.
#[uprobe(sleepable)]
fn unwind_begin(ctx: ProbeContext) -> u32 {
    heap::exception::unwind_begin(&Call::at_entry(&ctx));
    0
}

/// The dynamic loader's announcement that the list of loaded objects changed.
#[uprobe]
fn objects_changed(_ctx: ProbeContext) -> u32 {
    lifecycle::objects_changed();
    0
}

/// Nothing at an entry: what the kernel itself takes for a probe, for benchmarks.
#[uprobe]
fn empty(_ctx: ProbeContext) -> u32 {
    0
}

/// Nothing at a return.
#[uretprobe]
fn empty_exit(_ctx: RetProbeContext) -> u32 {
    0
}

/// Nothing at an entry and its return.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn empty_session(_ctx: *mut c_void) -> u32 {
    WATCH_RETURN
}

/// A task executes another image.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn task_exec(_ctx: RawTracePointContext) -> i32 {
    lifecycle::exec();
    0
}

/// A thread exits.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn task_exit(_ctx: RawTracePointContext) -> i32 {
    lifecycle::exit();
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The kernel gives the helpers that these programs need only to GPL-compatible ones.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
