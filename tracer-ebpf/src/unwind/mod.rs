//! The walk of a stack, from the caller of the probed function to the thread's start.
//!
//! A step is the pure one of tracer-common; here are the loop, the memory and the tables that it needs.

mod memory;
mod tables;

use aya_ebpf::{cty::c_void, helpers::bpf_loop};
use tracer_common::{
    limits::MAX_FRAMES,
    stack_id::StackHasher,
    stop::StopReason,
    unwind::step::{Frame, FrameAddress, Thread as _, step, step_by_frame_pointer},
    wire::ThreadSlot,
};

use self::{
    memory::StackMemory,
    tables::{Rules, Way},
};
use crate::{config::UNWIND_BY_TABLES, heap::call::Call};

/// What one turn of the loop hands to the next. Plain words and pointers, which the verifier can follow through the
/// memory that they are kept in.
#[repr(C)]
struct Walk {
    slot: *mut ThreadSlot,
    rules: Rules,
    pc: u64,
    sp: u64,
    fp: u64,
    /// 1 when `pc` is the instruction that a signal interrupted, not a return address.
    interrupted: u64,
    hash: StackHasher,
    memory: StackMemory,
    frame_count: u64,
    stop: u64,
}

/// Walks the stack of `call` into the slot, with its return address and its id. False when the stack cannot be read.
///
/// The walk begins behind the call, at the return address on top of the stack: the probed function itself is left
/// out, and needs no rule.
#[inline(always)]
pub(crate) fn walk(call: &Call, slot: &mut ThreadSlot) -> bool {
    let mut memory = StackMemory::empty();
    let top = call.sp();
    let Some(return_address) = memory.of(&mut slot.window, top).word(top) else {
        return false;
    };
    slot.return_address = return_address;
    let Some(rules) = Rules::now() else {
        return false;
    };
    slot.stack.frames[0] = return_address;
    let mut walk = Walk {
        slot,
        rules,
        pc: return_address,
        sp: top + 8,
        fp: call.fp(),
        interrupted: 0,
        hash: StackHasher::new().frame(return_address),
        memory,
        frame_count: 1,
        stop: StopReason::TooDeep as u64,
    };
    // SAFETY: the callback is a function of this object, and `walk` lives until the helper returns.
    unsafe {
        bpf_loop(
            MAX_FRAMES as u32 - 1,
            turn as *mut c_void,
            (&raw mut walk).cast(),
            0,
        )
    };
    slot.stack.frame_count = walk.frame_count as u32;
    slot.stack.stop = walk.stop as u32;
    slot.stack_id = walk.hash.finish_with(walk.stop as u32);
    true
}

/// Goes from one frame to its caller; 1 ends the loop. The kernel takes only a private function for this.
extern "C" fn turn(index: u64, walk: *mut Walk) -> u64 {
    // SAFETY: the pointer that was handed to the helper.
    let walk = unsafe { &mut *walk };
    // The first frame is there already. `index` is below this bound by the loop's length; the verifier is shown.
    let depth = index + 1;
    if depth >= MAX_FRAMES as u64 {
        return 1;
    }
    // SAFETY: the slot that was handed to `walk`, in use by this thread only.
    let slot = unsafe { &mut *walk.slot };
    match caller(walk, slot) {
        Ok(caller) => {
            let pc = caller.address.pc();
            slot.stack.frames[depth as usize] = pc;
            walk.hash = walk.hash.frame(pc);
            walk.frame_count = depth + 1;
            walk.interrupted = u64::from(matches!(caller.address, FrameAddress::Interrupted(_)));
            walk.pc = pc;
            walk.sp = caller.sp;
            walk.fp = caller.fp;
            0
        }
        Err(stop) => {
            walk.stop = stop as u64;
            1
        }
    }
}

#[inline(always)]
fn caller(walk: &mut Walk, slot: &mut ThreadSlot) -> Result<Frame, StopReason> {
    let frame = Frame {
        address: if walk.interrupted == 0 {
            FrameAddress::Return(walk.pc)
        } else {
            FrameAddress::Interrupted(walk.pc)
        },
        sp: walk.sp,
        fp: walk.fp,
    };
    let mut thread = walk.memory.of(&mut slot.window, frame.sp);
    if UNWIND_BY_TABLES.load() == 0 {
        if frame.fp == 0 {
            return Err(StopReason::Complete);
        }
        return step_by_frame_pointer(&frame, &mut thread);
    }
    match walk.rules.way(frame.address.lookup())? {
        Way::Rule(rule) => step(rule, &frame, &mut thread),
        Way::FramePointer => step_by_frame_pointer(&frame, &mut thread),
    }
}
