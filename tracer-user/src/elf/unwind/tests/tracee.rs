//! A program that is stepped through, with a list of its open calls kept from the call and return instructions.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tracer_common::{
    stop::StopReason,
    unwind::{
        row::{Row, Rule},
        step::{Frame, FrameAddress, Thread, step},
    },
};

use super::{super::Table, vdso};
use crate::{elf::object_file::ElfObject, target::maps};

/// What walks a program through its life gave.
#[derive(Debug, Default)]
pub(super) struct Walks {
    /// How they ended.
    pub(super) ends: HashMap<StopReason, u64>,
    /// Frames of the deepest.
    pub(super) deepest: usize,
    /// Signals that were handled.
    pub(super) signals: u32,
}

/// Code in the program's memory, and its table.
struct Code64 {
    start: u64,
    end: u64,
    /// Address at run time less virtual address.
    bias: u64,
    table: Table,
}

pub(super) struct Tracee {
    child: Child,
    memory: File,
    code: Vec<Code64>,
    /// The frames above the one that executes, the innermost last.
    open: Vec<FrameAddress>,
}

/// The stopped thread, as a walk sees it.
struct Stopped<'a> {
    memory: &'a File,
    registers: &'a libc::user_regs_struct,
}

impl Thread for Stopped<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        read_word(self.memory, address)
    }

    fn register(&mut self, number: u8) -> Option<u64> {
        let registers = self.registers;
        Some(match number {
            0 => registers.rax,
            1 => registers.rdx,
            2 => registers.rcx,
            3 => registers.rbx,
            4 => registers.rsi,
            5 => registers.rdi,
            8 => registers.r8,
            9 => registers.r9,
            10 => registers.r10,
            11 => registers.r11,
            12 => registers.r12,
            13 => registers.r13,
            14 => registers.r14,
            15 => registers.r15,
            _ => return None,
        })
    }
}

fn read_word(memory: &File, address: u64) -> Option<u64> {
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, address).ok()?;
    Some(u64::from_le_bytes(word))
}

impl Tracee {
    /// Starts a program and runs it up to its own entry, where all its libraries are loaded.
    pub(super) fn start(launcher: &Path, program: &Path) -> Self {
        let child = Command::new(launcher)
            .arg(program)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        // The stop of the traced `execv`.
        assert!(matches!(
            waitpid(pid, None),
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP))
        ));
        let entry = entry(child.id(), program);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .unwrap();
        let mut byte = [0];
        memory.read_exact_at(&mut byte, entry).unwrap();
        memory.write_all_at(&[0xcc], entry).unwrap();
        ptrace::cont(pid, None).unwrap();
        assert!(matches!(
            waitpid(pid, None),
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP))
        ));
        memory.write_all_at(&byte, entry).unwrap();
        let mut registers = ptrace::getregs(pid).unwrap();
        assert_eq!(registers.rip, entry + 1);
        registers.rip = entry;
        ptrace::setregs(pid, registers).unwrap();
        Self {
            code: code(child.id()),
            child,
            memory,
            open: Vec::new(),
        }
    }

    /// Steps to the program's end, and walks at each instruction.
    pub(super) fn follow(mut self) -> Walks {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let mut walks = Walks::default();
        let mut signal = None;
        loop {
            let registers = ptrace::getregs(pid).unwrap();
            self.check(&registers, &mut walks);
            let mut bytes = [0; 16];
            let read = self.memory.read_at(&mut bytes, registers.rip).unwrap();
            let instruction =
                Decoder::with_ip(64, &bytes[..read], registers.rip, DecoderOptions::NONE).decode();
            let delivered = signal.is_some();
            ptrace::step(pid, signal.take()).unwrap();
            match waitpid(pid, None).unwrap() {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                WaitStatus::Stopped(_, other) => {
                    // The instruction is not done yet, or is a system call that is.
                    signal = Some(other);
                    continue;
                }
                WaitStatus::Exited(_, 0) => return walks,
                status => panic!("{status:?}"),
            }
            let after = ptrace::getregs(pid).unwrap();
            if delivered {
                // The handler's first instruction; its caller is the trampoline that the kernel pushed.
                walks.signals += 1;
                self.open.push(FrameAddress::Interrupted(registers.rip));
                self.push_return_address(after.rsp);
                continue;
            }
            match instruction.flow_control() {
                FlowControl::Call | FlowControl::IndirectCall
                    if instruction.code() != Code::Syscall =>
                {
                    self.push_return_address(after.rsp);
                }
                FlowControl::Return => {
                    let returned = self.open.pop();
                    assert_eq!(returned, Some(FrameAddress::Return(after.rip)));
                }
                _ if self.open.last() == Some(&FrameAddress::Interrupted(after.rip))
                    && instruction.code() == Code::Syscall =>
                {
                    self.open.pop();
                }
                _ => {}
            }
        }
    }

    fn push_return_address(&mut self, sp: u64) {
        let pc = read_word(&self.memory, sp).unwrap();
        self.open.push(FrameAddress::Return(pc));
    }

    /// Walks the stack, and compares frame by frame.
    fn check(&self, registers: &libc::user_regs_struct, walks: &mut Walks) {
        let mut thread = Stopped {
            memory: &self.memory,
            registers,
        };
        let mut frame = Frame {
            address: FrameAddress::First(registers.rip),
            sp: registers.rsp,
            fp: registers.rbp,
        };
        let mut expected = self.open.iter().rev();
        let mut depth = 0;
        let end = loop {
            match step(self.rule(frame.address.lookup()), &frame, &mut thread) {
                Ok(caller) => frame = caller,
                Err(reason) => break reason,
            }
            depth += 1;
            assert_eq!(
                Some(&frame.address),
                expected.next(),
                "frame {depth} of a walk from {:#x}: {:x?}",
                registers.rip,
                self.open
            );
        };
        if end == StopReason::Complete {
            assert_eq!(
                expected.next(),
                None,
                "from {:#x}: {:x?}",
                registers.rip,
                self.open
            );
        }
        walks.deepest = walks.deepest.max(depth);
        *walks.ends.entry(end).or_default() += 1;
    }

    fn rule(&self, address: u64) -> Rule {
        self.code
            .iter()
            .find(|code| (code.start..code.end).contains(&address))
            .and_then(|code| code.table.row(address - code.bias))
            .map_or(Rule::NO_INFO, Row::rule)
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the program begins to execute, at run time.
fn entry(pid: u32, program: &Path) -> u64 {
    let bytes = fs::read(program).unwrap();
    let facts = ElfObject::parse(bytes.as_slice()).unwrap().facts();
    if facts.fixed_address {
        return facts.entry;
    }
    let mappings = maps::read(pid).unwrap();
    let first = mappings
        .iter()
        .find(|mapping| Path::new(&mapping.path) == program)
        .unwrap();
    first.start + facts.entry
}

/// The program's code and its tables.
fn code(pid: u32) -> Vec<Code64> {
    let executable = maps::read(pid)
        .unwrap()
        .into_iter()
        .filter(|mapping| mapping.executable && !mapping.path.is_empty());
    let mut code = Vec::new();
    for mapping in executable {
        let bytes = match mapping.path.as_encoded_bytes() {
            b"[vdso]" => vdso(),
            b"[vsyscall]" => continue,
            _ => fs::read(&mapping.path).unwrap(),
        };
        let object = ElfObject::parse(bytes.as_slice()).unwrap();
        let segments = object.facts().segments;
        let segment = segments
            .iter()
            .find(|segment| {
                segment.executable && segment.offset & !0xfff == mapping.offset & !0xfff
            })
            .unwrap();
        code.push(Code64 {
            start: mapping.start,
            end: mapping.end,
            bias: mapping.start - (segment.address & !0xfff),
            table: Table::read(&object).unwrap(),
        });
    }
    code
}
