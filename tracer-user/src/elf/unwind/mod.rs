//! An object's unwind information, read into the table that the BPF program searches.

mod fdes;
mod pages;
mod rule;
mod section;

#[cfg(test)]
mod tests;

use object::ReadRef;
use tracer_common::unwind::{
    row::Row,
    search::{CHUNK_WORDS, Chunk, PAGE_BYTES, Place, find},
};

use self::{pages::PageWriter, section::Frames};
use super::object_file::ElfObject;

/// Text that a table covers, at most. The largest browsers have 250 MB.
const MAX_TEXT_BYTES: u64 = 2 << 30;

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

impl Table {
    /// Reads an object's `.eh_frame`, and its `.debug_frame` for code that is not in the other.
    ///
    /// # Errors
    ///
    /// When the object has no code or no unwind information.
    pub fn read<'data, R: ReadRef<'data>>(
        object: &ElfObject<'data, R>,
    ) -> Result<Self, UnwindError> {
        let segments = object.facts().segments;
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
        let text = start..end.min(base.saturating_add(MAX_TEXT_BYTES));
        let frames = Frames::locate(object).ok_or(UnwindError::NoFrames)?;
        let mut pages = PageWriter::new(base, text.end);
        fdes::convert(&frames, text, &mut pages);
        Ok(pages.finish())
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
