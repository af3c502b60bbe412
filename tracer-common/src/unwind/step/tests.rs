//! The step on stacks made by hand.

use super::*;

const STACK: u64 = 0x7ffd_0000_1000;
const CODE: u64 = 0x5555_0000_2000;
const CALLER_FP: u64 = 0x7ffd_0000_8000;

/// Words from [`STACK`] on, and the registers of the first frame.
struct Fake {
    words: [u64; 64],
    registers: [u64; 16],
}

impl Fake {
    fn new(words: &[(usize, u64)]) -> Self {
        let mut fake = Self {
            words: [0; 64],
            registers: [0; 16],
        };
        for &(index, word) in words {
            fake.words[index] = word;
        }
        fake
    }
}

impl Thread for Fake {
    fn word(&mut self, address: u64) -> Option<u64> {
        let distance = usize::try_from(address.checked_sub(STACK)?).ok()?;
        self.words.get(distance / 8).copied()
    }

    fn register(&mut self, number: u8) -> Option<u64> {
        self.registers.get(usize::from(number)).copied()
    }
}

fn at(word: u64) -> u64 {
    STACK + word * 8
}

fn first(sp: u64, fp: u64) -> Frame {
    Frame {
        address: FrameAddress::First(CODE),
        sp,
        fp,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a step's result is compared")]
fn caller(sp: u64, fp: u64) -> Result<Frame, StopReason> {
    Ok(Frame {
        address: FrameAddress::Return(CODE + 7),
        sp,
        fp,
    })
}

fn rule(number: u8, offset: i64, fp: Fp) -> Rule {
    Rule {
        cfa: Cfa::Register { number, offset },
        fp,
    }
}

/// Make sure that a frame is found from rsp and from rbp, and rbp wherever it was saved.
#[test]
fn frames_from_registers() {
    let mut stack = Fake::new(&[(1, 0x11), (2, CALLER_FP), (3, CODE + 7)]);
    let cases = [
        (rule(RSP, 32, Fp::Unchanged), at(9)),
        (rule(RSP, 32, Fp::AtCfa(-16)), CALLER_FP),
        (rule(RSP, 32, Fp::AtCfa(-24)), 0x11),
        (rule(RSP, 32, Fp::AtFp(-56)), CALLER_FP),
        (rule(RSP, 32, Fp::AtFp(1 << 20)), 0),
        (rule(RSP, 32, Fp::Undefined), 0),
        (rule(RBP, -40, Fp::AtCfa(-16)), CALLER_FP),
    ];
    for (rule, fp) in cases {
        let stepped = step(rule, &first(at(0), at(9)), &mut stack);
        assert_eq!(stepped, caller(at(4), fp), "{rule:?}");
    }
}

/// Make sure that a register that calls do not keep counts in the first frame only, and an unknown rbp nowhere.
#[test]
fn registers_that_are_not_known() {
    let mut stack = Fake::new(&[(3, CODE + 7)]);
    stack.registers[10] = at(4);
    let from_r10 = rule(10, 0, Fp::Unchanged);
    assert_eq!(
        step(from_r10, &first(at(0), 5), &mut stack),
        caller(at(4), 5)
    );
    for address in [FrameAddress::Return(CODE), FrameAddress::Interrupted(CODE)] {
        let frame = Frame {
            address,
            ..first(at(0), 0)
        };
        assert_eq!(
            step(from_r10, &frame, &mut stack),
            Err(StopReason::UnknownRegister)
        );
    }
    assert_eq!(
        step(rule(RBP, 16, Fp::AtCfa(-16)), &first(at(0), 0), &mut stack),
        Err(StopReason::BadFramePointer)
    );
}

/// Make sure that realigned frames are found through the saved word.
#[test]
fn dereferenced_frames() {
    let mut stack = Fake::new(&[(2, at(10)), (6, CALLER_FP), (9, CODE + 7), (10, CODE + 7)]);
    let through_frame_pointer = Rule {
        cfa: Cfa::Deref {
            from_rbp: true,
            offset: -32,
            add: 0,
        },
        fp: Fp::AtFp(0),
    };
    let through_stack_pointer = Rule {
        cfa: Cfa::Deref {
            from_rbp: false,
            offset: 16,
            add: 8,
        },
        fp: Fp::AtCfa(-40),
    };
    let frame = first(at(0), at(6));
    assert_eq!(
        step(through_frame_pointer, &frame, &mut stack),
        caller(at(10), CALLER_FP)
    );
    assert_eq!(
        step(through_stack_pointer, &frame, &mut stack),
        caller(at(11), CALLER_FP)
    );
}

/// Make sure that a linkage stub's frame grows with its push.
#[test]
fn linkage_stubs() {
    let mut stack = Fake::new(&[(0, CODE + 7), (1, CODE + 7)]);
    let rule = Rule::only(Cfa::Plt { threshold: 11 });
    for (pc, words) in [(0, 1), (10, 1), (11, 2), (15, 2)] {
        let frame = Frame {
            address: FrameAddress::First(CODE + 0x40 + pc),
            ..first(at(0), 3)
        };
        assert_eq!(step(rule, &frame, &mut stack), caller(at(words), 3));
    }
}

/// Make sure that the registers that a signal interrupted are taken from its frame, on a stack below too.
#[test]
fn signal_frames() {
    let below = STACK - 0x10_0000;
    for sp in [at(50), below] {
        let mut stack = Fake::new(&[(15, CALLER_FP), (20, sp), (21, CODE)]);
        let stepped = step(
            Rule::only(Cfa::Signal),
            &Frame {
                address: FrameAddress::Return(CODE),
                ..first(at(0), 0)
            },
            &mut stack,
        );
        let expected = Frame {
            address: FrameAddress::Interrupted(CODE),
            sp,
            fp: CALLER_FP,
        };
        assert_eq!(stepped, Ok(expected));
        assert_eq!(expected.address.lookup(), CODE);
    }
    let mut loops = Fake::new(&[(20, at(0)), (21, CODE)]);
    assert_eq!(
        step(Rule::only(Cfa::Signal), &first(at(0), 0), &mut loops),
        Err(StopReason::BadStackPointer)
    );
}

/// Make sure that every dead end has its reason.
#[test]
fn dead_ends() {
    let mut stack = Fake::new(&[(0, 0), (1, 0x10), (2, u64::MAX), (3, CODE)]);
    let cases = [
        (Rule::NO_INFO, StopReason::NoUnwindInfo),
        (Rule::UNSUPPORTED, StopReason::UnsupportedRule),
        (Rule::only(Cfa::End), StopReason::Complete),
        (rule(RSP, 8, Fp::Unchanged), StopReason::Complete),
        (rule(RSP, 16, Fp::Unchanged), StopReason::BadReturnAddress),
        (rule(RSP, 24, Fp::Unchanged), StopReason::BadReturnAddress),
        (rule(RSP, 0, Fp::Unchanged), StopReason::BadStackPointer),
        (rule(RSP, -64, Fp::Unchanged), StopReason::BadStackPointer),
        (rule(RBP, 32, Fp::Unchanged), StopReason::BadStackPointer),
        (rule(RSP, 8 * 65, Fp::Unchanged), StopReason::Unreadable),
        (rule(RSP, 32, Fp::AtCfa(8 * 60)), StopReason::Unreadable),
    ];
    for (rule, reason) in cases {
        let stepped = step(rule, &first(at(0), 0x4141_4141_4141_4141), &mut stack);
        assert_eq!(stepped, Err(reason), "{rule:?}");
    }
    let odd = rule(RSP, 8, Fp::Unchanged);
    assert_eq!(
        step(odd, &first(at(0) + 4, 0), &mut stack),
        Err(StopReason::BadStackPointer)
    );
    let top = rule(RSP, 8, Fp::Unchanged);
    assert_eq!(
        step(top, &first(u64::MAX - 7, 0), &mut stack),
        Err(StopReason::BadStackPointer)
    );
}

/// Make sure that code without tables is walked by its frame pointer as long as that is one.
#[test]
fn frame_pointers() {
    let mut stack = Fake::new(&[
        (4, at(8)),
        (5, CODE + 7),
        (8, at(2)),
        (9, CODE + 7),
        (10, 1),
    ]);
    let up = step_by_frame_pointer(&first(at(0), at(4)), &mut stack);
    assert_eq!(up, caller(at(6), at(8)));
    let up = step_by_frame_pointer(&up.unwrap(), &mut stack);
    assert_eq!(up, caller(at(10), at(2)));
    let cases = [
        (up.unwrap(), StopReason::BadFramePointer),
        (first(at(0), 0), StopReason::BadFramePointer),
        (first(at(0), at(3) + 4), StopReason::BadFramePointer),
        (
            first(at(0), at(0) + MAX_FP_FRAME_BYTES + 8),
            StopReason::BadFramePointer,
        ),
        (first(at(0), at(64)), StopReason::Unreadable),
        (first(at(0), at(9)), StopReason::BadReturnAddress),
        (first(at(0), at(20)), StopReason::Complete),
    ];
    for (frame, reason) in cases {
        assert_eq!(
            step_by_frame_pointer(&frame, &mut stack),
            Err(reason),
            "{frame:?}"
        );
    }
}
