//! From an address to its rule: the mapping that it lies in, the table of the mapping's object, the row.

use tracer_common::{
    limits::MAX_CODE_MAPPINGS,
    stop::StopReason,
    unwind::{
        row::{Row, Rule},
        search::{Place, find, later_if},
    },
    wire::{CodeKind, CodeMapping, CodeMappings},
};

use crate::maps::{MAPPINGS, MAPPINGS_IN_USE, TABLES};

const NO_ENTRY: u64 = u64::MAX;
const NO_ROW: u64 = u64::MAX;
const INDEX_MASK: u64 = MAX_CODE_MAPPINGS as u64 - 1;

/// The mappings that are in use.
#[inline(always)]
pub(super) fn mappings() -> Option<&'static CodeMappings> {
    let in_use = MAPPINGS_IN_USE.get(0)?;
    MAPPINGS.get(*in_use & 1)
}

/// The entry of the mappings that an address lies in, or [`NO_ENTRY`]; `last` is the entry of the frame before, where
/// most addresses lie again.
///
/// A global function: the verifier looks at it once, and not again for each way that leads to a call.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn find_mapping(address: u64, last: u64) -> u64 {
    let Some(mappings) = mappings() else {
        return NO_ENTRY;
    };
    let holds = |entry: u64| {
        let mapping = &mappings.entries[(entry & INDEX_MASK) as usize];
        address >= mapping.start && address < mapping.end
    };
    if holds(last) {
        return last & INDEX_MASK;
    }
    let mut first = 0;
    let mut count = mappings.count;
    let mut turn = 0;
    // Without jumps, as tracer-common's search for a row.
    while turn < MAX_CODE_MAPPINGS.ilog2() && count > 1 {
        let half = count >> 1;
        let middle = (first + half) & INDEX_MASK;
        first = later_if(
            mappings.entries[middle as usize].start,
            address,
            first,
            middle,
        );
        count -= half;
        turn += 1;
    }
    if holds(first) {
        first & INDEX_MASK
    } else {
        NO_ENTRY
    }
}

/// The row for an address, as its distance from the table's base, or [`NO_ROW`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn find_row(table: u32, distance: u64) -> u64 {
    let place = Place::of(distance);
    let Some(index) = TABLES.get_value(table, &(place.index_chunk as u32)) else {
        return NO_ROW;
    };
    let entry = place.entry(index);
    let Some(rows) = TABLES.get_value(table, &entry.chunk()) else {
        return NO_ROW;
    };
    match find(entry, rows, place.offset) {
        Some(Row(row)) => row,
        None => NO_ROW,
    }
}

/// The code at an address.
#[derive(Clone, Copy)]
pub(super) struct Code {
    origin: u64,
    table: u32,
    pub(super) kind: u32,
}

impl Code {
    /// The code at an address; `last` is the entry of the frame before, and becomes that of this one.
    #[inline(always)]
    pub(super) fn at(mappings: &CodeMappings, address: u64, last: &mut u64) -> Option<Self> {
        let entry = find_mapping(address, *last);
        if entry >= MAX_CODE_MAPPINGS as u64 {
            return None;
        }
        *last = entry;
        let CodeMapping {
            start: _,
            end: _,
            origin,
            table,
            kind,
        } = mappings.entries[entry as usize];
        Some(Self {
            origin,
            table,
            kind,
        })
    }

    /// The rule for an address of this code.
    #[inline(always)]
    pub(super) fn rule(self, address: u64) -> Result<Rule, StopReason> {
        if self.kind != CodeKind::Table as u32 {
            return Err(StopReason::NoUnwindInfo);
        }
        match find_row(self.table, address.wrapping_sub(self.origin)) {
            NO_ROW => Err(StopReason::NoUnwindInfo),
            row => Ok(Row(row).rule()),
        }
    }
}
