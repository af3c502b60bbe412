//! What the kernel does with a breakpoint on an instruction: `arch/x86/kernel/uprobes.c` as a table.

use iced_x86::Instruction;

/// How the kernel gets past a probed instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It computes the instruction's effect: one trap.
    Emulated,
    /// It runs a copy of the instruction and traps again behind it.
    Stepped,
    /// It refuses the probe.
    Refused,
}

/// No-operations that the kernel knows by their bytes (`x86_nops`), from one byte on.
const NOPS: [&[u8]; 8] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

const OPERAND_SIZE: u8 = 0x66;

/// Whether the bytes are the no-operation that Linux 6.18 and later replace by a call.
#[must_use]
pub fn is_long_nop5(bytes: &[u8]) -> bool {
    bytes == NOPS[4]
}

/// What the kernel does with a breakpoint on an instruction, given with its bytes.
#[must_use]
pub fn support(instruction: &Instruction, bytes: &[u8]) -> Support {
    if instruction.is_invalid() {
        return Support::Refused;
    }
    let prefixes = bytes.iter().take_while(|byte| is_prefix(**byte)).count();
    let (prefixes, rest) = bytes.split_at(prefixes);
    // LOCK and the four old segment prefixes.
    if prefixes
        .iter()
        .any(|prefix| matches!(prefix, 0xf0 | 0x26 | 0x2e | 0x36 | 0x3e))
    {
        return Support::Refused;
    }
    if NOPS.contains(&bytes) {
        return Support::Emulated;
    }
    let (rex, opcode) = match rest {
        [rex @ 0x40..=0x4f, opcode @ ..] => (Some(*rex), opcode),
        opcode => (None, opcode),
    };
    match *opcode {
        // A pause is taken for a nop; so would be `xchg r8, rax`, which it is not.
        [0x90] if rex.is_some_and(|rex| rex & 1 != 0) => Support::Refused,
        [0x90] => Support::Emulated,
        // Relative jumps and calls, short and near.
        [0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] => {
            if prefixes.contains(&OPERAND_SIZE) {
                Support::Refused
            } else {
                Support::Emulated
            }
        }
        // push of a register, the upper eight by their prefix.
        [0x50..=0x57] if prefixes.is_empty() && matches!(rex, None | Some(0x41)) => {
            Support::Emulated
        }
        // Breakpoints, port input and output, and AVX-512's encoding.
        [
            0xcc..=0xce | 0xf1 | 0x6c..=0x6f | 0xe4..=0xe7 | 0xec..=0xef | 0x62,
            ..,
        ] => Support::Refused,
        _ => Support::Stepped,
    }
}

const fn is_prefix(byte: u8) -> bool {
    matches!(
        byte,
        OPERAND_SIZE | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65
    )
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    fn of(bytes: &[u8]) -> Support {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        assert_eq!(
            instruction.len(),
            bytes.len(),
            "{bytes:x?} is one instruction"
        );
        support(&instruction, bytes)
    }

    /// Make sure that what the kernel emulates is known as such.
    #[test]
    fn emulated() {
        let mut all = NOPS.to_vec();
        all.extend::<[&[u8]; 10]>([
            &[0x55],                   // push rbp
            &[0x41, 0x54],             // push r12
            &[0xeb, 0x10],             // jmp short
            &[0xe9, 0, 1, 0, 0],       // jmp near
            &[0xf2, 0xe9, 0, 1, 0, 0], // bnd jmp
            &[0xe8, 0, 1, 0, 0],       // call
            &[0x74, 0x10],             // je short
            &[0x0f, 0x85, 0, 1, 0, 0], // jne near
            &[0xf3, 0x90],             // pause
            &[0x70, 0x01],             // jo short
        ]);
        for bytes in all {
            assert_eq!(of(bytes), Support::Emulated, "{bytes:x?}");
        }
    }

    /// Make sure that what the kernel must run itself is not taken for emulated.
    #[test]
    fn stepped() {
        let all: [&[u8]; 13] = [
            &[0xf3, 0x0f, 0x1e, 0xfa],                   // endbr64
            &[0x48, 0x83, 0xec, 0x08],                   // sub rsp, 8
            &[0x48, 0x89, 0xf8],                         // mov rax, rdi
            &[0x48, 0x8d, 0x47, 0x10],                   // lea rax, [rdi+16]
            &[0x48, 0x85, 0xff],                         // test rdi, rdi
            &[0xc3],                                     // ret
            &[0x5d],                                     // pop rbp
            &[0x31, 0xc0],                               // xor eax, eax
            &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], // mov rax, fs:[0]
            &[0x48, 0x8b, 0x05, 0x10, 0, 0, 0],          // mov rax, [rip+16]
            &[0xff, 0xe0],                               // jmp rax
            &[0xff, 0xf0],                               // push rax, the long form
            &[0x6a, 0x01],                               // push 1
        ];
        for bytes in all {
            assert_eq!(of(bytes), Support::Stepped, "{bytes:x?}");
        }
    }

    /// Make sure that instructions at which the kernel refuses a probe are known.
    #[test]
    fn refused() {
        let all: [&[u8]; 7] = [
            &[0xf0, 0x48, 0xff, 0x07],                      // lock inc [rdi]
            &[0x2e, 0x0f, 0x1f, 0x40, 0x00],                // nop with cs
            &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], // the ten-byte nop
            &[0x3e, 0xff, 0xe0],                            // notrack jmp rax
            &[0x66, 0x0f, 0x84, 0, 1, 0, 0],                // je with operand size
            &[0x49, 0x90],                                  // xchg r8, rax
            &[0xcc],                                        // int3
        ];
        for bytes in all {
            assert_eq!(of(bytes), Support::Refused, "{bytes:x?}");
        }
    }
}
