//! An object with bytes changed: its table is bounded, and whatever row a look-up finds lies in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_common::unwind::search::{CHUNK_WORDS, PAGE_BYTES};

// Only this folder, which is pure: the library around it needs the BPF object.
#[expect(dead_code, unreachable_pub, reason = "a part of a library")]
#[path = "../../tracer-user/src/elf/mod.rs"]
mod elf;

use elf::{object_file::ElfObject, unwind::Table};

/// The largest table.
const MAX_CHUNKS: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = ElfObject::parse(bytes) else {
        return;
    };
    let Ok(table) = Table::read(&object) else {
        return;
    };
    assert_eq!(table.words.len() % CHUNK_WORDS, 0);
    assert!(table.chunks().len() <= MAX_CHUNKS);
    for step in 0..64 {
        let offset = step * (PAGE_BYTES - 5);
        if let Some(row) = table.row(table.base.wrapping_add(offset)) {
            assert!(u64::from(row.start()) <= offset % PAGE_BYTES);
            assert!(table.words.contains(&row.0));
        }
    }
});
