//! Every description of real objects, evaluated by gimli at many addresses and looked up in the table.

use std::{collections::BTreeSet, fs};

use gimli::{BaseAddresses, CieOrFde, UnwindContext, UnwindSection};
use tracer_common::unwind::{
    row::{Cfa, Row, Rule},
    search::PAGE_BYTES,
};

use super::{
    super::{
        Table,
        rule::rule,
        section::{Bytes, Frames},
    },
    installed, vdso,
};
use crate::elf::object_file::ElfObject;

const OBJECTS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so",
    "/usr/bin/node",
    "/usr/bin/python3",
    "/usr/bin/redis-server",
];

/// The rule of a row, as far as rows of ours can express it.
fn expected<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    row: &gimli::UnwindTableRow<usize>,
) -> Rule {
    rule(section, row)
        .filter(|rule| Row::pack(0, *rule).is_some())
        .unwrap_or(Rule::UNSUPPORTED)
}

/// Looks the descriptions of `.eh_frame` up.
fn compare(name: &str, bytes: &[u8]) -> u64 {
    let object = ElfObject::parse(bytes).unwrap();
    let table = Table::read(&object).unwrap();
    let frames = Frames::locate(&object).unwrap();
    compare_section(name, &table, &frames.eh.unwrap(), &frames.bases)
}

/// Looks every description up: at the first and last byte of its rows, at page borders and behind its end. Returns how
/// many look-ups were made.
fn compare_section<'data, S: UnwindSection<Bytes<'data>>>(
    name: &str,
    table: &Table,
    section: &S,
    bases: &BaseAddresses,
) -> u64 {
    assert_eq!(table.stats.malformed, 0, "{name}");
    let fdes = fdes(section, bases);
    let starts: BTreeSet<u64> = fdes
        .iter()
        .map(gimli::FrameDescriptionEntry::initial_address)
        .collect();
    let mut context = UnwindContext::new();
    let mut lookups = 0;
    let mut check = |pc: u64, rule: Rule| {
        let found = table.row(pc).map_or(Rule::NO_INFO, Row::rule);
        assert_eq!(found, rule, "{name} at {pc:#x}");
        lookups += 1;
    };
    for fde in &fdes {
        let end = fde.end_address();
        let next = starts.range(fde.initial_address() + 1..).next();
        let mut rows = fde.rows(section, bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let (start, end) = (row.start_address(), row.end_address().min(end));
            let border = start.next_multiple_of(PAGE_BYTES);
            let middle = start.midpoint(end);
            let rule = expected(section, row);
            for pc in [
                start,
                middle,
                end.wrapping_sub(1),
                border,
                border.wrapping_sub(1),
            ] {
                if (start..end).contains(&pc) && next.is_none_or(|next| pc < *next) {
                    check(pc, rule);
                }
            }
        }
        if next.is_none_or(|next| end < *next) {
            check(end, Rule::NO_INFO);
        }
    }
    assert!(
        table.stats.unsupported * 2000 <= table.stats.rows,
        "{name}: {:?}",
        table.stats
    );
    lookups
}

fn fdes<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    bases: &BaseAddresses,
) -> Vec<gimli::FrameDescriptionEntry<Bytes<'data>>> {
    let mut fdes = Vec::new();
    let mut entries = section.entries(bases);
    while let Some(entry) = entries.next().unwrap() {
        if let CieOrFde::Fde(partial) = entry {
            fdes.push(partial.parse(S::cie_from_offset).unwrap());
        }
    }
    fdes
}

/// Make sure that the table of a real object has, at any address, the rule that gimli evaluates there.
#[test]
fn tables_equal_gimli() {
    for path in installed(OBJECTS) {
        let lookups = compare(path, &fs::read(path).unwrap());
        println!("{path}: {lookups} look-ups");
    }
    assert!(compare("vDSO", &vdso()) > 10);
}

/// Make sure that the C library's special functions have their special rules.
#[test]
fn special_rules_of_the_c_library() {
    let bytes = fs::read("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    let table = Table::read(&ElfObject::parse(bytes.as_slice()).unwrap()).unwrap();
    let rules: Vec<Cfa> = table
        .words
        .iter()
        .map(|word| Row(*word).rule().cfa)
        .collect();
    for cfa in [Cfa::Signal, Cfa::Plt { threshold: 11 }, Cfa::End] {
        assert!(rules.contains(&cfa), "{cfa:?}");
    }
}

/// Make sure that an object without section headers has the same table.
#[test]
fn without_section_headers() {
    for path in installed(&OBJECTS[..2]) {
        let mut bytes = fs::read(path).unwrap();
        let whole = Table::read(&ElfObject::parse(bytes.as_slice()).unwrap()).unwrap();
        // e_shoff, and e_shnum with e_shstrndx.
        bytes[0x28..0x30].fill(0);
        bytes[0x3c..0x40].fill(0);
        let stripped = Table::read(&ElfObject::parse(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(whole, stripped, "{path}");
    }
}

/// Make sure that code which only `.debug_frame` describes is in the table, and code in both sections is there once.
#[test]
fn debug_frame() {
    let bytes = include_bytes!("../../../../../fuzz/seeds/eh_frame/debug_frame.so");
    let object = ElfObject::parse(bytes.as_slice()).unwrap();
    let table = Table::read(&object).unwrap();
    let frames = Frames::locate(&object).unwrap();
    assert!(frames.eh.is_none());
    let lookups = compare_section(
        "debug_frame.so",
        &table,
        &frames.debug.unwrap(),
        &frames.bases,
    );
    assert!(table.stats.fdes == 3 && lookups > 20);
}
