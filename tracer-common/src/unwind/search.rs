//! Where an address's row is: its page's entry in the index, then a binary search in one chunk.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of a word"
)]

use super::row::Row;

/// Bytes of text per page of a table.
pub const PAGE_BYTES: u64 = 1 << PAGE_BITS;
/// Words in a chunk.
pub const CHUNK_WORDS: usize = 1 << CHUNK_BITS;

const PAGE_BITS: u32 = 14;
const CHUNK_BITS: u32 = 12;
const CHUNK_MASK: usize = CHUNK_WORDS - 1;

/// 32 KiB of index entries or of rows: the value of a BPF array's element.
pub type Chunk = [u64; CHUNK_WORDS];

/// Where an address belongs in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The page's index entry is in this chunk of the table…
    pub index_chunk: u64,
    /// …in this word.
    pub index_word: usize,
    /// Bytes from the page's start.
    pub offset: u16,
}

impl Place {
    /// The place of an address, as its distance from the table's base.
    #[inline(always)]
    #[must_use]
    pub const fn of(distance: u64) -> Self {
        let page = distance >> PAGE_BITS;
        Self {
            index_chunk: page >> CHUNK_BITS,
            index_word: page as usize & CHUNK_MASK,
            offset: (distance & (PAGE_BYTES - 1)) as u16,
        }
    }

    /// The page's entry, where `index` is the table's chunk [`Self::index_chunk`].
    #[inline(always)]
    #[must_use]
    pub const fn entry(self, index: &Chunk) -> IndexEntry {
        IndexEntry(index[self.index_word & CHUNK_MASK])
    }
}

/// Where a page's rows are; zero when it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct IndexEntry(pub u64);

impl IndexEntry {
    /// `count` rows from word `first` of the table's chunk `chunk` on.
    #[must_use]
    pub const fn new(chunk: u32, first: u16, count: u16) -> Self {
        Self((chunk as u64) << 32 | (first as u64) << 16 | count as u64)
    }

    /// The chunk of the rows, counted from the table's first chunk.
    #[inline(always)]
    #[must_use]
    pub const fn chunk(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the page has no rows: there is no unwind information in it.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 as u16 == 0
    }

    const fn first(self) -> usize {
        (self.0 >> 16) as u16 as usize
    }

    const fn count(self) -> usize {
        self.0 as u16 as usize
    }
}

/// The row for a byte of the page whose rows `entry` names in `chunk`: the last row that starts at or before it.
///
/// A turn has no jump but the one that ends the search, so the verifier follows one way and not each outcome.
#[inline(always)]
#[must_use]
pub fn find(entry: IndexEntry, chunk: &Chunk, offset: u16) -> Option<Row> {
    if entry.is_empty() {
        return None;
    }
    // The row is among the `count` rows from `first` on.
    let mut first = entry.first() & CHUNK_MASK;
    let mut count = entry.count();
    let mut turn = 0;
    while turn < CHUNK_BITS && count > 1 {
        let half = count >> 1;
        let middle = (first + half) & CHUNK_MASK;
        first = later_if(
            u64::from(Row(chunk[middle]).start()),
            u64::from(offset),
            first as u64,
            middle as u64,
        ) as usize;
        count -= half;
        turn += 1;
    }
    Some(Row(chunk[first & CHUNK_MASK]))
}

/// `later` if `start <= key`, else `earlier`, without a jump: the verifier would follow both ways at every turn of a
/// search. `start` and `key` are below 2^63.
#[inline(always)]
#[must_use]
pub fn later_if(start: u64, key: u64, earlier: u64, later: u64) -> u64 {
    // All ones where the difference is negative.
    let before = opaque(key.wrapping_sub(start)).cast_signed() >> 63;
    later ^ ((later ^ earlier) & before.cast_unsigned())
}

/// The same value, of which the compiler knows nothing: it would see a comparison, and make a jump of it.
#[inline(always)]
#[cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "an instruction that keeps the value in its register"
    )
)]
fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: copies the register to itself. (No instruction at all would leave two lines of the source at one
        // address, which the kernel refuses.)
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(value)
}

#[cfg(test)]
#[expect(clippy::large_stack_arrays, reason = "a chunk has a test's stack")]
mod tests {
    use super::{
        super::row::{Cfa, RSP, Rule},
        *,
    };

    fn row(start: u16) -> Row {
        let offset = i64::from(start) * 8;
        let cfa = Cfa::Register {
            number: RSP,
            offset,
        };
        Row::pack(start, Rule::only(cfa)).unwrap()
    }

    /// Make sure that for pages of any number of rows, anywhere in the chunk, each byte gets the last row at or
    /// before it.
    #[test]
    fn finds_the_last_row_before() {
        for count in [
            1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 1000, 2047, 2049, 4095, 4096,
        ] {
            for first in [0, 1, 17, 4096 - count] {
                if first + count > 4096 {
                    continue;
                }
                // Words that are not the page's would be found by a search that leaves it.
                let mut chunk = [u64::MAX; CHUNK_WORDS];
                for index in 0..count {
                    chunk[usize::from(first + index)] = row(index * 3).0;
                }
                let entry = IndexEntry::new(9, first, count);
                assert_eq!(entry.chunk(), 9);
                for offset in 0..count * 3 + 5 {
                    let expected = (offset / 3).min(count - 1) * 3;
                    let found = find(entry, &chunk, offset).unwrap();
                    assert_eq!(found, row(expected), "{offset} of {count} rows at {first}");
                }
            }
        }
    }

    /// Make sure that a page without rows has none, and that no entry leads out of the chunk.
    #[test]
    fn empty_and_garbled_entries() {
        let chunk = [row(0).0; CHUNK_WORDS];
        assert_eq!(find(IndexEntry(0), &chunk, 7), None);
        assert_eq!(find(IndexEntry::new(3, 5, 0), &chunk, 7), None);
        for entry in [u64::MAX, 0xffff_ffff, 0x0fff_ffff, 0xffff_0001] {
            assert_eq!(find(IndexEntry(entry), &chunk, 7), Some(row(0)));
        }
    }

    /// Make sure that an address is split into page and offset.
    #[test]
    fn places() {
        let place = Place::of((4096 + 5) * PAGE_BYTES + 77);
        let mut index = [0; CHUNK_WORDS];
        index[5] = IndexEntry::new(2, 3, 4).0;
        assert_eq!(
            (place.index_chunk, place.index_word, place.offset),
            (1, 5, 77)
        );
        assert_eq!(place.entry(&index), IndexEntry::new(2, 3, 4));
    }
}
