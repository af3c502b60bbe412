//! Any row, any registers, any stack: a walk never goes down, and ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_common::unwind::{
    row::{Cfa, Row},
    search::{CHUNK_WORDS, IndexEntry, find},
    step::{
        Frame, FrameAddress, Thread, USER_ADDRESSES_END, USER_ADDRESSES_START, step,
        step_by_frame_pointer,
    },
};

/// Where the stack's words are.
const STACK: u64 = 0x7fff_0000_0000;

struct Words<'a>(&'a [u64]);

impl Thread for Words<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let index = usize::try_from(address.wrapping_sub(STACK) / 8).ok()?;
        self.0.get(index).copied()
    }

    fn register(&mut self, number: u8) -> Option<u64> {
        self.0.get(usize::from(number)).copied()
    }
}

fn check(frame: &Frame, caller: &Frame) {
    assert_eq!(caller.sp % 8, 0);
    assert!(caller.sp < USER_ADDRESSES_END + 16);
    assert!((USER_ADDRESSES_START..USER_ADDRESSES_END).contains(&caller.address.pc()));
    match caller.address {
        FrameAddress::Return(_) => assert!(caller.sp > frame.sp),
        FrameAddress::Interrupted(_) => assert_ne!(caller.sp, frame.sp),
        FrameAddress::First(_) => panic!("a caller is not the first frame"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .filter_map(|word| word.try_into().ok().map(u64::from_le_bytes))
        .collect();
    let [entry, pc, sp, fp, rest @ ..] = words.as_slice() else {
        return;
    };
    let mut chunk = [0; CHUNK_WORDS];
    for (to, from) in chunk.iter_mut().zip(rest) {
        *to = *from;
    }
    let mut frame = Frame {
        address: FrameAddress::First(*pc),
        sp: STACK + sp % 1024,
        fp: if fp % 2 == 0 { STACK + fp % 1024 } else { *fp },
    };
    let mut thread = Words(rest);
    for _ in 0..127 {
        if let Ok(caller) = step_by_frame_pointer(&frame, &mut thread) {
            check(&frame, &caller);
        }
        let offset = (frame.address.lookup() & 0x3fff) as u16;
        let Some(row) = find(IndexEntry(*entry), &chunk, offset) else {
            return;
        };
        let rule = row.rule();
        // What a row says is what it was packed from.
        let packed = Row::pack(row.start(), rule).map(Row::rule);
        assert!(packed.is_none_or(|packed| packed == rule));
        let Ok(caller) = step(rule, &frame, &mut thread) else {
            return;
        };
        check(&frame, &caller);
        assert_eq!(
            rule.cfa == Cfa::Signal,
            matches!(caller.address, FrameAddress::Interrupted(_))
        );
        frame = caller;
    }
});
