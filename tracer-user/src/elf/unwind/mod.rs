//! An object's unwind information, read into the table that the BPF program searches.

mod fdes;
mod pages;
mod rule;
mod section;
pub mod stored;

#[cfg(test)]
mod tests;

use std::ops::Range;

use object::ReadRef;
use sha2::{Digest as _, Sha256};
use tracer_common::unwind::{
    row::Row,
    search::{CHUNK_WORDS, Chunk, PAGE_BYTES, Place, find},
};

use self::{pages::PageWriter, section::Frames};
use super::object_file::{ElfObject, Segment};

/// Text that a table covers, at most. The largest browsers have 250 MB.
const MAX_TEXT_BYTES: u64 = 2 << 30;

/// A SHA-256 digest of a [`Description`].
pub type Digest = [u8; 32];

/// Why an object has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwindError {
    /// No segment is executable.
    #[error("no executable segment")]
    NoCode,
    /// There is no `.eh_frame` and no readable `.debug_frame`.
    #[error("no unwind information")]
    NoFrames,
}

/// What a table was made of, and what it lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Descriptions of functions that were used.
    pub fdes: u64,
    /// Rows in the table.
    pub rows: u64,
    /// Rules that rows cannot express: walks end there.
    pub unsupported: u64,
    /// Descriptions that could not be read to their end.
    pub malformed: u64,
    /// Descriptions of code outside of the executable segments, or too many.
    pub ignored: u64,
    /// Pages with more rows than a chunk holds: they have none.
    pub dense_pages: u64,
    /// Pages without rows because the table had reached its largest size.
    pub dropped_pages: u64,
}

/// An object's unwind table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The virtual address, before relocation, from which pages are counted.
    pub base: u64,
    /// First the chunks of the index, then those of the rows; a multiple of [`CHUNK_WORDS`] words.
    pub words: Vec<u64>,
    /// What it was made of.
    pub stats: TableStats,
}

/// All that a table is made of: where the code lies, and what is said about it.
pub struct Description<'data> {
    base: u64,
    text: Range<u64>,
    frames: Frames<'data>,
}

impl<'data> Description<'data> {
    /// Finds an object's `.eh_frame`, and its `.debug_frame` for code that is not in the other.
    ///
    /// # Errors
    ///
    /// When the object has no code or no unwind information.
    pub fn locate<R: ReadRef<'data>>(
        object: &ElfObject<'data, R>,
        segments: &[Segment],
    ) -> Result<Self, UnwindError> {
        let code = segments
            .iter()
            .filter(|segment| segment.executable && segment.file_bytes > 0);
        let start = code.clone().map(|segment| segment.address).min();
        let end = code
            .map(|segment| segment.address.saturating_add(segment.file_bytes))
            .max();
        let (Some(start), Some(end)) = (start, end) else {
            return Err(UnwindError::NoCode);
        };
        let base = start & !(PAGE_BYTES - 1);
        Ok(Self {
            base,
            text: start..end.min(base.saturating_add(MAX_TEXT_BYTES)),
            frames: Frames::locate(object).ok_or(UnwindError::NoFrames)?,
        })
    }

    /// The bytes of `.eh_frame`.
    #[cfg(test)]
    pub(crate) fn eh_frame(&self) -> &'data [u8] {
        use gimli::Section as _;

        let section = self.frames.eh.as_ref();
        section.map_or(&[], |section| section.reader().slice())
    }

    /// The table that the description makes.
    #[must_use]
    pub fn convert(&self) -> Table {
        let mut pages = PageWriter::new(self.base, self.text.end);
        fdes::convert(&self.frames, self.text.clone(), &mut pages);
        pages.finish()
    }

    /// Tells the description, and the code that converts it, apart from all others: equal digests make equal tables.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(env!("MEMTRACE_TABLE_MAKERS"));
        for word in [self.base, self.text.start, self.text.end] {
            hasher.update(word.to_le_bytes());
        }
        self.frames.hash(&mut hasher);
        hasher.finalize().into()
    }
}

impl Table {
    /// Reads an object's table.
    ///
    /// # Errors
    ///
    /// When the object has no code or no unwind information.
    pub fn read<'data, R: ReadRef<'data>>(
        object: &ElfObject<'data, R>,
    ) -> Result<Self, UnwindError> {
        Description::locate(object, &object.facts().segments).map(|found| found.convert())
    }

    /// The table's chunks, each the value of one element of the BPF array.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        self.words.as_chunks::<CHUNK_WORDS>().0
    }

    /// The row for a virtual address before relocation; `None` where there is no unwind information.
    #[must_use]
    pub fn row(&self, address: u64) -> Option<Row> {
        let place = Place::of(address.checked_sub(self.base)?);
        let chunk = |number: u64| self.chunks().get(usize::try_from(number).ok()?);
        let entry = place.entry(chunk(place.index_chunk)?);
        find(entry, chunk(entry.chunk().into())?, place.offset)
    }
}
