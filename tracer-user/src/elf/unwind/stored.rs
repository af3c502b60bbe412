//! A table as it is kept on disk: a header that says what it was made from, then its words.
//!
//! What is read back is untrusted until it is accepted: its length is bounded before memory is taken for it, and it
//! counts only if the header names the very description at hand, the checksum holds, and no entry of the index leads
//! out of the table.

use object::pod::bytes_of_slice;
use tracer_common::unwind::search::{CHUNK_WORDS, IndexEntry, PAGE_BYTES};

use super::{Description, Digest, Table, TableStats, pages::MAX_CHUNKS};

/// Words of a header.
pub const HEADER_WORDS: usize = 16;

/// The first word of every table. Another layout of the header takes another one.
const MAGIC: u64 = u64::from_le_bytes(*b"mtunwnd1");

/// Largest file that holds a table, in bytes.
pub const MAX_STORED_BYTES: u64 = ((HEADER_WORDS + MAX_CHUNKS * CHUNK_WORDS) * 8) as u64;

/// The header that stands before a table's words.
#[must_use]
pub fn header(table: &Table, digest: &Digest) -> [u64; HEADER_WORDS] {
    let TableStats {
        fdes,
        rows,
        unsupported,
        malformed,
        ignored,
        dense_pages,
        dropped_pages,
    } = table.stats;
    let [first, second, third, fourth] = digest_words(digest);
    let mut header = [
        MAGIC,
        first,
        second,
        third,
        fourth,
        table.words.len() as u64,
        table.base,
        fdes,
        rows,
        unsupported,
        malformed,
        ignored,
        dense_pages,
        dropped_pages,
        0,
        0,
    ];
    header[HEADER_WORDS - 1] = checksum(&header, &table.words);
    header
}

/// How many words follow a header; `None` if it is not that of a table made from the description with this digest.
#[must_use]
pub fn words_after(header: &[u64; HEADER_WORDS], digest: &Digest) -> Option<usize> {
    let [magic, first, second, third, fourth, words, ..] = *header;
    let words = usize::try_from(words).ok()?;
    (magic == MAGIC
        && [first, second, third, fourth] == digest_words(digest)
        && words.is_multiple_of(CHUNK_WORDS)
        && words <= MAX_CHUNKS * CHUNK_WORDS)
        .then_some(words)
}

/// The table whose header and words were read, if they are sound.
#[must_use]
pub fn accept(
    header: &[u64; HEADER_WORDS],
    words: Vec<u64>,
    description: &Description<'_>,
) -> Option<Table> {
    let [_, _, _, _, _, count, base, stats @ .., _, sum] = *header;
    let [
        fdes,
        rows,
        unsupported,
        malformed,
        ignored,
        dense_pages,
        dropped_pages,
    ] = stats;
    let sound = count == words.len() as u64
        && base == description.base
        && sum == checksum(header, &words)
        && index_is_sound(&words, description);
    sound.then_some(Table {
        base,
        words,
        stats: TableStats {
            fdes,
            rows,
            unsupported,
            malformed,
            ignored,
            dense_pages,
            dropped_pages,
        },
    })
}

/// Whether the index has an entry for each page of the text, and each leads to rows of the table.
fn index_is_sound(words: &[u64], description: &Description<'_>) -> bool {
    let text_bytes = description.text.end.saturating_sub(description.base);
    let Ok(pages) = usize::try_from(text_bytes.div_ceil(PAGE_BYTES)) else {
        return false;
    };
    let chunks = words.len() / CHUNK_WORDS;
    let index_chunks = pages.div_ceil(CHUNK_WORDS);
    let Some(index) = words.get(..index_chunks * CHUNK_WORDS) else {
        return false;
    };
    index.iter().enumerate().all(|(page, word)| {
        let entry = IndexEntry(*word);
        *word == 0
            || (page < pages
                && !entry.is_empty()
                && (index_chunks..chunks).contains(&(entry.chunk() as usize))
                && rows_fit(entry))
    })
}

/// Whether an entry's rows lie within one chunk. The fields are those that [`IndexEntry::new`] puts together.
fn rows_fit(entry: IndexEntry) -> bool {
    let field = |shift: u32| (entry.0 >> shift & 0xffff) as usize;
    field(16) + field(0) <= CHUNK_WORDS
}

fn digest_words(digest: &Digest) -> [u64; 4] {
    let (words, _) = digest.as_chunks::<8>();
    std::array::from_fn(|index| words.get(index).copied().map_or(0, u64::from_le_bytes))
}

/// CRC-32 of the header but its last word, and of the words. It finds what a disk or a crash did; against those who
/// would do it on purpose stands that only root writes the folder.
fn checksum(header: &[u64; HEADER_WORDS], words: &[u64]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes_of_slice(&header[..HEADER_WORDS - 1]));
    hasher.update(bytes_of_slice(words));
    u64::from(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::object_file::ElfObject;

    fn with_description(check: impl FnOnce(&Description<'_>, Table)) {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let object = ElfObject::parse(bytes.as_slice()).unwrap();
        let description = Description::locate(&object, &object.facts().segments).unwrap();
        let table = description.convert();
        check(&description, table);
    }

    /// Make sure that a table is read back as it was written.
    #[test]
    fn round_trip() {
        with_description(|description, table| {
            let digest = description.digest();
            let header = header(&table, &digest);
            assert_eq!(words_after(&header, &digest), Some(table.words.len()));
            assert_eq!(
                accept(&header, table.words.clone(), description),
                Some(table)
            );
        });
    }

    /// Make sure that any flipped bit, a missing word and another description's digest are refused.
    #[test]
    fn damaged() {
        with_description(|description, table| {
            let digest = description.digest();
            let good = header(&table, &digest);
            for bit in 0..HEADER_WORDS * 64 {
                let mut bad = good;
                bad[bit / 64] ^= 1 << (bit % 64);
                let refused = words_after(&bad, &digest) != Some(table.words.len())
                    || accept(&bad, table.words.clone(), description).is_none();
                assert!(refused, "bit {bit}");
            }
            for position in (0..table.words.len()).step_by(997) {
                let mut words = table.words.clone();
                words[position] ^= 1 << (position % 64);
                assert_eq!(accept(&good, words, description), None);
            }
            let short = table.words[..table.words.len() - CHUNK_WORDS].to_vec();
            assert_eq!(accept(&good, short, description), None);
            let mut other = digest;
            other[31] ^= 1;
            assert_eq!(words_after(&good, &other), None);
        });
    }

    /// Make sure that a table whose checksum is right is still refused if its index leads elsewhere.
    #[test]
    fn index_out_of_bounds() {
        with_description(|description, table| {
            let digest = description.digest();
            let chunks = u32::try_from(table.words.len() / CHUNK_WORDS).unwrap();
            let wrong = [
                IndexEntry::new(chunks, 0, 1),
                IndexEntry::new(0, 0, 1),
                IndexEntry::new(chunks - 1, 4095, 2),
                IndexEntry::new(chunks - 1, 0, 4097),
                IndexEntry::new(chunks - 1, u16::MAX, 1),
            ];
            for entry in wrong {
                let mut bad = table.clone();
                bad.words[0] = entry.0;
                let header = header(&bad, &digest);
                assert_eq!(accept(&header, bad.words, description), None, "{entry:?}");
            }
        });
    }

    /// Make sure that a header that promises more than a table can have is refused before memory is taken.
    #[test]
    fn absurd_length() {
        with_description(|description, table| {
            let digest = description.digest();
            let mut header = header(&table, &digest);
            for words in [u64::MAX, 1, (MAX_CHUNKS as u64 + 1) * CHUNK_WORDS as u64] {
                header[5] = words;
                assert_eq!(words_after(&header, &digest), None);
            }
        });
    }
}
