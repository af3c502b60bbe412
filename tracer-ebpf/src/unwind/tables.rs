//! From an address to its rule: the mapping that it lies in, the table of the mapping's object, the row.

use tracer_common::{
    limits::MAX_CODE_MAPPINGS,
    stop::StopReason,
    unwind::{
        row::Rule,
        search::{Chunk, Place, find},
    },
    wire::{CodeKind, CodeMapping, CodeMappings},
};

use crate::maps::{MAPPINGS, MAPPINGS_IN_USE, TABLES};

const INDEX_MASK: u64 = MAX_CODE_MAPPINGS as u64 - 1;

/// The mappings that are in use.
#[inline(always)]
pub(super) fn mappings() -> Option<&'static CodeMappings> {
    let in_use = MAPPINGS_IN_USE.get(0)?;
    MAPPINGS.get(*in_use & 1)
}

/// The code at an address.
#[derive(Clone, Copy)]
pub(super) struct Code {
    origin: u64,
    table: u32,
    pub(super) kind: u32,
}

impl Code {
    /// The code at an address; `last` is the entry of the frame before, where most addresses lie again.
    #[inline(always)]
    pub(super) fn at(mappings: &CodeMappings, address: u64, last: &mut u64) -> Option<Self> {
        let guess = &mappings.entries[(*last & INDEX_MASK) as usize];
        if address >= guess.start && address < guess.end {
            return Some(Self::of(guess));
        }
        // As many turns as a full table needs, each alike: see tracer-common's row search.
        let mut first = 0;
        let mut count = mappings.count;
        let mut turn = 0;
        while turn < MAX_CODE_MAPPINGS.ilog2() {
            let half = count >> 1;
            let middle = (first + half) & INDEX_MASK;
            if mappings.entries[middle as usize].start <= address {
                first = middle;
            }
            count -= half;
            turn += 1;
        }
        let first = first & INDEX_MASK;
        let found = &mappings.entries[first as usize];
        if address >= found.start && address < found.end {
            *last = first;
            Some(Self::of(found))
        } else {
            None
        }
    }

    #[inline(always)]
    fn of(mapping: &CodeMapping) -> Self {
        let CodeMapping {
            start: _,
            end: _,
            origin,
            table,
            kind,
        } = *mapping;
        Self {
            origin,
            table,
            kind,
        }
    }

    /// The rule for an address of this code.
    #[inline(always)]
    pub(super) fn rule(self, address: u64) -> Result<Rule, StopReason> {
        if self.kind != CodeKind::Table as u32 {
            return Err(StopReason::NoUnwindInfo);
        }
        let place = Place::of(address.wrapping_sub(self.origin));
        let entry = match self.chunk(place.index_chunk as u32) {
            Some(index) => place.entry(index),
            None => return Err(StopReason::NoUnwindInfo),
        };
        if entry.is_empty() {
            return Err(StopReason::NoUnwindInfo);
        }
        match self.chunk(entry.chunk()) {
            Some(rows) => match find(entry, rows, place.offset) {
                Some(row) => Ok(row.rule()),
                None => Err(StopReason::NoUnwindInfo),
            },
            None => Err(StopReason::NoUnwindInfo),
        }
    }

    #[inline(always)]
    fn chunk(&self, index: u32) -> Option<&'static Chunk> {
        TABLES.get_value(self.table, &index)
    }
}
