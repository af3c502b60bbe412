//! The step from a frame to its caller, by a rule or by the frame pointer; pure, and sure to go up the stack.

use super::row::{Cfa, Fp, RBP, RSP, Rule};
use crate::stop::StopReason;

/// First address that no user-space mapping can have, with five-level page tables.
pub const USER_ADDRESSES_END: u64 = 1 << 56;
/// Nothing is ever mapped below `vm.mmap_min_addr`, which is at least a page.
pub const USER_ADDRESSES_START: u64 = 4096;
/// The largest frame that a frame pointer is believed to have.
pub const MAX_FP_FRAME_BYTES: u64 = 1 << 20;

/// Where a frame executes, and how it got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameAddress {
    /// The instruction at which the thread was stopped; all its registers are known.
    First(u64),
    /// The instruction that a signal interrupted.
    Interrupted(u64),
    /// The instruction behind a call, which may belong to the next function already.
    Return(u64),
}

impl FrameAddress {
    /// The program counter.
    #[inline(always)]
    #[must_use]
    pub const fn pc(self) -> u64 {
        match self {
            Self::First(pc) | Self::Interrupted(pc) | Self::Return(pc) => pc,
        }
    }

    /// The address whose rule and whose name are the frame's: inside the call, for a return address.
    #[inline(always)]
    #[must_use]
    pub const fn lookup(self) -> u64 {
        match self {
            Self::First(pc) | Self::Interrupted(pc) => pc,
            Self::Return(pc) => pc.wrapping_sub(1),
        }
    }
}

/// A frame: what is known of its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it executes.
    pub address: FrameAddress,
    /// The stack pointer.
    pub sp: u64,
    /// `rbp`; 0 when it is not known.
    pub fp: u64,
}

/// The thread whose stack is walked.
pub trait Thread {
    /// The word at an address of its memory; `None` when it cannot be read.
    fn word(&mut self, address: u64) -> Option<u64>;

    /// The word at an address and the one behind it.
    #[inline(always)]
    fn pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([self.word(address)?, self.word(address.wrapping_add(8))?])
    }

    /// The register with this number of DWARF's, at most 15, as it was in the first frame; `None` when it is not known.
    fn register(&mut self, number: u8) -> Option<u64>;
}

/// The caller of a frame whose rule is `rule`.
///
/// # Errors
///
/// Why the walk ends here: [`StopReason::Complete`] when the frame has no caller.
#[inline(always)]
pub fn step(rule: Rule, frame: &Frame, thread: &mut impl Thread) -> Result<Frame, StopReason> {
    let cfa = match rule.cfa {
        Cfa::NoInfo => return Err(StopReason::NoUnwindInfo),
        Cfa::Unsupported => return Err(StopReason::UnsupportedRule),
        Cfa::End => return Err(StopReason::Complete),
        Cfa::Signal => return interrupted(frame, thread),
        Cfa::Plt { threshold } => {
            let pushed = frame.address.pc() & 15 >= u64::from(threshold);
            frame.sp.wrapping_add(if pushed { 16 } else { 8 })
        }
        Cfa::Register { number, offset } => {
            register(number, frame, thread)?.wrapping_add_signed(offset)
        }
        Cfa::Deref {
            from_rbp,
            offset,
            add,
        } => {
            let base = register(if from_rbp { RBP } else { RSP }, frame, thread)?;
            let word = thread.word(base.wrapping_add_signed(offset));
            word.ok_or(StopReason::Unreadable)?.wrapping_add(add)
        }
    };
    if cfa <= frame.sp || cfa & 7 != 0 || cfa >= USER_ADDRESSES_END {
        return Err(StopReason::BadStackPointer);
    }
    // The usual place of rbp is next to the return address: one read for both.
    let (fp, pc) = if let Fp::AtCfa(-16) = rule.fp {
        let [fp, pc] = thread
            .pair(cfa.wrapping_sub(16))
            .ok_or(StopReason::Unreadable)?;
        (fp, pc)
    } else {
        let fp = match rule.fp {
            Fp::Unchanged => frame.fp,
            Fp::Undefined => 0,
            Fp::AtCfa(offset) => thread
                .word(cfa.wrapping_add_signed(offset))
                .ok_or(StopReason::Unreadable)?,
            // gcc names this place for one instruction too many, when rbp is the caller's again.
            Fp::AtFp(offset) => thread
                .word(frame.fp.wrapping_add_signed(offset))
                .unwrap_or(0),
        };
        let pc = thread.word(cfa.wrapping_sub(8));
        (fp, pc.ok_or(StopReason::Unreadable)?)
    };
    Ok(Frame {
        address: FrameAddress::Return(in_code(pc)?),
        sp: cfa,
        fp,
    })
}

/// The caller of a frame of code without unwind information that keeps a frame pointer, as compilers at run time
/// (JIT) emit it.
///
/// # Errors
///
/// Why the walk ends here.
#[inline(always)]
pub fn step_by_frame_pointer(frame: &Frame, thread: &mut impl Thread) -> Result<Frame, StopReason> {
    let Some(size) = frame.fp.checked_sub(frame.sp) else {
        return Err(StopReason::BadFramePointer);
    };
    if size > MAX_FP_FRAME_BYTES || frame.fp & 7 != 0 {
        return Err(StopReason::BadFramePointer);
    }
    let [fp, pc] = thread.pair(frame.fp).ok_or(StopReason::Unreadable)?;
    Ok(Frame {
        address: FrameAddress::Return(in_code(pc)?),
        sp: frame.fp.wrapping_add(16),
        fp,
    })
}

/// The value of a register that a frame address is counted from.
#[inline(always)]
fn register(number: u8, frame: &Frame, thread: &mut impl Thread) -> Result<u64, StopReason> {
    match (number, frame.address) {
        (RSP, _) => Ok(frame.sp),
        (RBP, _) if frame.fp == 0 => Err(StopReason::BadFramePointer),
        (RBP, _) => Ok(frame.fp),
        (_, FrameAddress::First(_)) => thread.register(number).ok_or(StopReason::UnknownRegister),
        _ => Err(StopReason::UnknownRegister),
    }
}

/// The frame that a signal interrupted, from the `ucontext` that the kernel put on the handler's stack: at `rsp`, when
/// the handler has returned into the trampoline. It may be on another stack (`sigaltstack`), above or below.
#[inline(always)]
fn interrupted(frame: &Frame, thread: &mut impl Thread) -> Result<Frame, StopReason> {
    // Offsets in `struct ucontext` of x86-64, an ABI of the kernel; rip follows rsp.
    const RBP_OFFSET: u64 = 120;
    const RSP_OFFSET: u64 = 160;
    let fp = thread.word(frame.sp.wrapping_add(RBP_OFFSET));
    let pair = thread.pair(frame.sp.wrapping_add(RSP_OFFSET));
    let (Some(fp), Some([sp, pc])) = (fp, pair) else {
        return Err(StopReason::Unreadable);
    };
    if sp & 7 != 0 || sp == frame.sp || sp >= USER_ADDRESSES_END {
        return Err(StopReason::BadStackPointer);
    }
    Ok(Frame {
        address: FrameAddress::Interrupted(in_code(pc)?),
        sp,
        fp,
    })
}

/// A program counter, checked: 0 stands for the end of the stack, and code is nowhere but in user space.
#[inline(always)]
const fn in_code(pc: u64) -> Result<u64, StopReason> {
    if pc == 0 {
        return Err(StopReason::Complete);
    }
    if pc < USER_ADDRESSES_START || pc >= USER_ADDRESSES_END {
        return Err(StopReason::BadReturnAddress);
    }
    Ok(pc)
}

#[cfg(test)]
mod tests;
