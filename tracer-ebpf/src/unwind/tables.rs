//! From an address to its rule: the mapping that it lies in, the table of the mapping's object, the row.

use tracer_common::{
    limits::{MAX_CODE_MAPPINGS, RULE_CACHE_ENTRIES},
    stop::StopReason,
    unwind::{
        row::{Row, Rule},
        search::{Place, find, later_if},
        step::USER_ADDRESSES_END,
    },
    wire::{CachedRule, CodeKind, CodeMapping, CodeMappings, RuleCache},
};

use crate::maps::{MAPPINGS, MAPPINGS_TOLD, RULES, TABLES};

const NO_ENTRY: u64 = u64::MAX;
const NO_ROW: u64 = u64::MAX;
/// No row's value: stands for code that is unwound by frame pointers.
const BY_FRAME_POINTER: u64 = u64::MAX - 1;
const INDEX_MASK: u64 = MAX_CODE_MAPPINGS as u64 - 1;

/// The mappings that are in use.
#[inline(always)]
fn mappings() -> Option<&'static CodeMappings> {
    let told = MAPPINGS_TOLD.get(0)?;
    MAPPINGS.get(*told & 1)
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

/// How the code at an address is unwound.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// By this rule.
    Rule(Rule),
    /// By the frame pointer.
    FramePointer,
}

/// The rules that were looked up before, and what they are found by.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Rules {
    cache: *mut RuleCache,
    /// Mixed into the keys, so that what was true of older mappings is not found.
    epoch: u64,
    /// The entry of the mappings that the last look-up led to.
    mapping: u64,
}

impl Rules {
    /// The rules for the mappings as they are now.
    #[inline(always)]
    pub(super) fn now() -> Option<Self> {
        let told = *MAPPINGS_TOLD.get(0)?;
        Some(Self {
            cache: RULES.get_ptr_mut(0)?,
            // Addresses end below this bit.
            epoch: u64::from(told) << USER_ADDRESSES_END.ilog2(),
            mapping: 0,
        })
    }

    /// How the code at an address is unwound.
    #[inline(always)]
    pub(super) fn way(&mut self, address: u64) -> Result<Way, StopReason> {
        let key = address ^ self.epoch;
        let index =
            address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RULE_CACHE_ENTRIES.ilog2());
        // SAFETY: a value of the map, which lives as long as the program runs; the index is below its length. Other
        // threads may write at the same time, which `CachedRule` takes into account.
        let entry = unsafe { &raw mut (*self.cache).entries[index as usize] };
        // SAFETY: as above.
        let CachedRule { mixed, row } = unsafe { entry.read_volatile() };
        if mixed ^ row == key {
            return Ok(decode(row));
        }
        let row = look_up(address, &mut self.mapping)?;
        // SAFETY: as above.
        unsafe {
            entry.write_volatile(CachedRule {
                mixed: key ^ row,
                row,
            });
        }
        Ok(decode(row))
    }
}

#[inline(always)]
fn decode(row: u64) -> Way {
    if row == BY_FRAME_POINTER {
        Way::FramePointer
    } else {
        Way::Rule(Row(row).rule())
    }
}

/// The row for an address, or [`BY_FRAME_POINTER`].
#[inline(always)]
fn look_up(address: u64, last: &mut u64) -> Result<u64, StopReason> {
    let Some(mappings) = mappings() else {
        return Err(StopReason::NoUnwindInfo);
    };
    let entry = find_mapping(address, *last);
    if entry >= MAX_CODE_MAPPINGS as u64 {
        return Err(StopReason::BadReturnAddress);
    }
    *last = entry;
    let CodeMapping {
        start: _,
        end: _,
        origin,
        table,
        kind,
    } = mappings.entries[entry as usize];
    if kind == CodeKind::FramePointer as u32 {
        return Ok(BY_FRAME_POINTER);
    }
    if kind != CodeKind::Table as u32 {
        return Err(StopReason::NoUnwindInfo);
    }
    match find_row(table, address.wrapping_sub(origin)) {
        NO_ROW => Err(StopReason::NoUnwindInfo),
        row => Ok(row),
    }
}
