//! A view of an ELF file that refuses reads larger than any honest file needs.

use std::ops::Range;

use object::ReadRef;

/// Largest single read. The symbol names of the largest browsers and databases take less.
pub const MAX_READ_BYTES: u64 = 512 * 1024 * 1024;

/// Data whose reads are bounded, so that a sparse file of a hostile process cannot exhaust the memory.
#[derive(Clone, Copy, Debug)]
pub struct Bounded<R>(pub R);

impl<'data, R: ReadRef<'data>> ReadRef<'data> for Bounded<R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        if size > MAX_READ_BYTES {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}
