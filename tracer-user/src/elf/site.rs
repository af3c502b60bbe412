//! Chooses the instruction of a function to probe: one that the kernel emulates, so that a hit costs one trap.
//!
//! Any instruction on the straight line from the entry will do, as long as the arguments are still in registers,
//! the stack pointer still points at the return address, and no jump leads back in between.

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Formatter, Instruction,
    InstructionInfoFactory, IntelFormatter, OpAccess, OpKind, Register,
};
use tracer_common::call::{Arg, CallShape};

use super::uprobe::{Support, is_long_nop5, support};

/// Farthest distance of the site from the entry, in bytes.
const MAX_DISTANCE: u64 = 64;

/// Largest function whose jumps are all looked at, in bytes. In a larger one only the entry is taken.
pub const MAX_FUNCTION_BYTES: u64 = 64 * 1024;

/// Integer argument registers of the System V x86-64 calling convention, in order.
const ARGUMENTS: [Register; Arg::REGISTERS as usize] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
];

/// A function's code.
#[derive(Clone, Copy, Debug)]
pub struct Function<'code> {
    /// Bytes from the entry on; less than `size_bytes` when the function is too large or the file is cut short.
    pub code: &'code [u8],
    /// Virtual address of the entry.
    pub address: u64,
    /// Size as the symbol says; 0 when it does not.
    pub size_bytes: u64,
}

/// Where to probe a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePoint {
    /// Distance of the instruction from the entry, in bytes.
    pub distance: u64,
    /// The instruction, disassembled.
    pub instruction: String,
    /// Whether the kernel emulates it.
    pub emulated: bool,
    /// How the function takes its arguments, as they lie in the registers at this instruction.
    pub shape: CallShape,
}

/// Why a function cannot be probed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// The entry holds no instruction.
    #[error("no code at the function's entry")]
    NoCode,
    /// The kernel accepts no probe at the entry, and nothing better follows.
    #[error("the kernel accepts no probe on `{0}`")]
    Refused(String),
}

/// Chooses the instruction to probe in a function that takes its arguments as `shape` says.
///
/// # Errors
///
/// When the entry is not code, or holds an instruction that the kernel refuses and nothing emulated follows.
pub fn choose(function: Function<'_>, shape: CallShape) -> Result<ProbePoint, SiteError> {
    if let Some(point) = first_emulated(function, shape)
        && (point.distance == 0 || !has_jump_into(function, point.distance))
    {
        return Ok(point);
    }
    let entry = decoder(function).decode();
    if entry.is_invalid() {
        return Err(SiteError::NoCode);
    }
    match support(&entry, bytes(function, &entry)) {
        Support::Refused => Err(SiteError::Refused(disassemble(&entry))),
        support => Ok(ProbePoint {
            distance: 0,
            instruction: disassemble(&entry),
            emulated: support == Support::Emulated,
            shape,
        }),
    }
}

/// The target of the jump that is the function's first instruction, if it is one: the function then is another
/// name for its target.
#[must_use]
pub fn forwards_to(function: Function<'_>) -> Option<u64> {
    let mut decoder = decoder(function);
    let mut first = decoder.decode();
    if first.code() == Opcode::Endbr64 {
        first = decoder.decode();
    }
    (first.flow_control() == FlowControl::UnconditionalBranch).then(|| first.near_branch_target())
}

/// The first emulated instruction on the straight line at which every argument can still be read.
fn first_emulated(function: Function<'_>, shape: CallShape) -> Option<ProbePoint> {
    let mut arguments = Arguments::at_entry();
    let mut factory = InstructionInfoFactory::new();
    let mut memory_written = false;
    for instruction in &mut decoder(function) {
        let distance = instruction.ip().wrapping_sub(function.address);
        if instruction.is_invalid() || distance > MAX_DISTANCE {
            return None;
        }
        let here = bytes(function, &instruction);
        // Linux 6.18 turns this nop into a call, which overwrites what lies below the stack pointer.
        let overwrites = memory_written && is_long_nop5(here);
        if support(&instruction, here) == Support::Emulated && !overwrites {
            return Some(ProbePoint {
                distance,
                instruction: disassemble(&instruction),
                emulated: true,
                shape: arguments.locate(shape)?,
            });
        }
        if instruction.flow_control() != FlowControl::Next {
            return None;
        }
        let info = factory.info(&instruction);
        let writes = |access| {
            matches!(
                access,
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            )
        };
        memory_written |= info.used_memory().iter().any(|used| writes(used.access()));
        let origin = arguments.moved_by(&instruction);
        for used in info.used_registers() {
            if !writes(used.access()) {
                continue;
            }
            let register = used.register().full_register();
            if register == Register::RSP {
                return None;
            }
            arguments.set(register, origin);
        }
        arguments.locate(shape)?;
    }
    None
}

/// Which of the function's arguments each argument register holds.
struct Arguments([Option<u8>; ARGUMENTS.len()]);

impl Arguments {
    const fn at_entry() -> Self {
        Self([Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)])
    }

    /// The argument that a plain 64-bit move copies.
    fn moved_by(&self, instruction: &Instruction) -> Option<u8> {
        let is_move = matches!(
            instruction.code(),
            Opcode::Mov_rm64_r64 | Opcode::Mov_r64_rm64
        ) && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register;
        let source = ARGUMENTS
            .iter()
            .position(|register| *register == instruction.op1_register())?;
        if is_move { self.0[source] } else { None }
    }

    fn set(&mut self, register: Register, argument: Option<u8>) {
        if let Some(index) = ARGUMENTS
            .iter()
            .position(|candidate| *candidate == register)
        {
            self.0[index] = argument;
        }
    }

    /// The shape with each argument where it is now; `None` when one is in no argument register any more.
    fn locate(&self, shape: CallShape) -> Option<CallShape> {
        let CallShape {
            size,
            count,
            ptr,
            out,
            flags,
        } = shape;
        Some(CallShape {
            size: self.find(size)?,
            count: self.find(count)?,
            ptr: self.find(ptr)?,
            out: self.find(out)?,
            flags,
        })
    }

    fn find(&self, argument: Arg) -> Option<Arg> {
        let Some(wanted) = argument.index() else {
            return Some(Arg::NONE);
        };
        if self.0[usize::from(wanted)] == Some(wanted) {
            return Some(argument);
        }
        let index = self.0.iter().position(|held| *held == Some(wanted))?;
        u8::try_from(index).ok().map(Arg::at)
    }
}

/// Whether a jump or call in the function leads behind its entry, up to and including `distance`; also true when
/// that cannot be known.
fn has_jump_into(function: Function<'_>, distance: u64) -> bool {
    let size = function.size_bytes;
    if size == 0 || size > MAX_FUNCTION_BYTES {
        return true;
    }
    let Some(code) = usize::try_from(size)
        .ok()
        .and_then(|size| function.code.get(..size))
    else {
        return true;
    };
    decoder(Function { code, ..function })
        .iter()
        .any(|instruction| {
            let into = instruction
                .near_branch_target()
                .wrapping_sub(function.address);
            instruction.is_invalid()
                || (instruction.flow_control() != FlowControl::Next
                    && (1..=distance).contains(&into))
        })
}

fn decoder(function: Function<'_>) -> Decoder<'_> {
    Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE)
}

fn bytes<'code>(function: Function<'code>, instruction: &Instruction) -> &'code [u8] {
    usize::try_from(instruction.ip().wrapping_sub(function.address))
        .ok()
        .and_then(|start| function.code.get(start..start + instruction.len()))
        .unwrap_or_default()
}

fn disassemble(instruction: &Instruction) -> String {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

#[cfg(test)]
mod tests;
