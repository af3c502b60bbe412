//! Rules in the order of their addresses, written into a table's pages.

use tracer_common::unwind::{
    row::{Row, Rule},
    search::{CHUNK_WORDS, IndexEntry, PAGE_BYTES},
};

use super::{Table, TableStats};

/// Chunks in a table, at most: 128 MiB.
pub(super) const MAX_CHUNKS: usize = 4096;

/// Collects the rows of one page after the other.
pub(super) struct PageWriter {
    base: u64,
    /// The pages' index entries.
    index: Vec<u64>,
    /// The rows of the pages that are done, in whole chunks but for the last.
    rows: Vec<u64>,
    /// Chunks that the index takes.
    index_chunks: usize,
    /// The rows of the page that is being written.
    page: Vec<Row>,
    /// The pages that the text has.
    pages: usize,
    /// What the table is made of, as far as it is.
    pub(super) stats: TableStats,
}

impl PageWriter {
    /// A writer for text from `base`, a page's start, up to `end`.
    pub(super) fn new(base: u64, end: u64) -> Self {
        let pages = end.saturating_sub(base).div_ceil(PAGE_BYTES);
        let pages = usize::try_from(pages).unwrap_or(0);
        Self {
            base,
            index: Vec::with_capacity(pages),
            rows: Vec::new(),
            index_chunks: pages.div_ceil(CHUNK_WORDS),
            page: row(0, Rule::NO_INFO).into_iter().collect(),
            pages,
            stats: TableStats::default(),
        }
    }

    /// From `address` on, `rule` holds. The next address is this one or a higher one; the last rule for an address
    /// counts.
    pub(super) fn push(&mut self, address: u64, rule: Rule) {
        let distance = address.saturating_sub(self.base);
        let page = usize::try_from(distance / PAGE_BYTES).unwrap_or(usize::MAX);
        while self.index.len() < page.min(self.pages) {
            self.finish_page();
        }
        if self.index.len() == self.pages {
            return;
        }
        let start = (distance % PAGE_BYTES) as u16;
        let Some(row) = row(start, rule) else {
            return;
        };
        if row.rule() == Rule::UNSUPPORTED {
            self.stats.unsupported += 1;
        }
        if self.page.last().is_some_and(|last| last.start() == start) {
            self.page.pop();
        }
        if self.page.last().is_none_or(|last| !last.same_rule(row)) {
            self.page.push(row);
        }
    }

    /// Puts the page's rows into a chunk, and carries its last rule over to the next page.
    fn finish_page(&mut self) {
        let carried = self.page.last().map_or(Rule::NO_INFO, |last| last.rule());
        let entry = self.store_page();
        self.index.push(entry.0);
        self.page.clear();
        self.page.extend(row(0, carried));
    }

    fn store_page(&mut self) -> IndexEntry {
        const NONE: IndexEntry = IndexEntry(0);
        if self.page.iter().all(|row| row.rule() == Rule::NO_INFO) {
            return NONE;
        }
        if self.page.len() > CHUNK_WORDS {
            self.stats.dense_pages += 1;
            return NONE;
        }
        let mut first = self.rows.len() % CHUNK_WORDS;
        if first + self.page.len() > CHUNK_WORDS {
            self.rows
                .resize(self.rows.len().next_multiple_of(CHUNK_WORDS), 0);
            first = 0;
        }
        let chunk = self.index_chunks + self.rows.len() / CHUNK_WORDS;
        let (Ok(number), Ok(first), Ok(count)) = (
            u32::try_from(chunk),
            u16::try_from(first),
            u16::try_from(self.page.len()),
        ) else {
            return NONE;
        };
        if chunk >= MAX_CHUNKS {
            self.stats.dropped_pages += 1;
            return NONE;
        }
        self.stats.rows += u64::from(count);
        self.rows.extend(self.page.iter().map(|row| row.0));
        IndexEntry::new(number, first, count)
    }

    /// The table.
    pub(super) fn finish(mut self) -> Table {
        while self.index.len() < self.pages {
            self.finish_page();
        }
        let mut words = self.index;
        words.resize(self.index_chunks * CHUNK_WORDS, 0);
        words.append(&mut self.rows);
        words.resize(words.len().next_multiple_of(CHUNK_WORDS), 0);
        Table {
            base: self.base,
            words,
            stats: self.stats,
        }
    }
}

/// The row of a rule, which is unsupported when a number in it does not fit.
fn row(start: u16, rule: Rule) -> Option<Row> {
    Row::pack(start, rule).or_else(|| Row::pack(start, Rule::UNSUPPORTED))
}
