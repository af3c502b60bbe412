//! Real objects with bytes changed at random: whatever comes out, it is bounded and it comes soon.

use std::fs;

use super::{super::Table, vdso};
use crate::elf::object_file::ElfObject;

/// A small generator of pseudo-random numbers (xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Make sure that no change to an object makes the reader panic or its table large.
#[test]
fn changed_bytes() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for whole in [vdso(), fs::read("/lib64/ld-linux-x86-64.so.2").unwrap()] {
        for turn in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(40) {
                let at = random.below(if turn % 2 == 0 { 1024 } else { bytes.len() });
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
            bytes.truncate(bytes.len() - random.below(4) * random.below(bytes.len() / 4));
            let Ok(object) = ElfObject::parse(bytes.as_slice()) else {
                continue;
            };
            if let Ok(table) = Table::read(&object) {
                let index = table.words.len() - usize::try_from(table.stats.rows).unwrap();
                assert!(
                    table.stats.rows < 1 << 18 && index < 1 << 19,
                    "{:?}",
                    table.stats
                );
            }
        }
    }
}
