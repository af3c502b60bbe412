//! The page writer and tables of small sections made by hand.

use gimli::{BaseAddresses, EhFrame, LittleEndian};
use tracer_common::unwind::row::{Cfa, Fp, RSP, Row, Rule};

use super::super::{Table, fdes::convert, pages::PageWriter, section::Frames};

const BASE: u64 = 0x4000;

fn rsp(offset: i64) -> Rule {
    Rule::only(Cfa::Register {
        number: RSP,
        offset,
    })
}

fn at(table: &Table, address: u64) -> Rule {
    table.row(address).map_or(Rule::NO_INFO, Row::rule)
}

/// Make sure that equal rules are merged, that a later rule for the same address counts, and that pages without
/// information have no rows.
#[test]
fn rows_are_merged() {
    let mut pages = PageWriter::new(BASE, BASE + 0x4000 * 8);
    for (address, rule) in [
        (BASE + 8, rsp(8)),
        (BASE + 12, rsp(16)),
        (BASE + 12, rsp(8)),
        (BASE + 20, rsp(8)),
        (BASE + 0xc000, Rule::NO_INFO),
    ] {
        pages.push(address, rule);
    }
    let table = pages.finish();
    // Nothing and a rule in the first page, the rule carried over to the two behind it.
    assert_eq!(table.stats.rows, 4);
    assert_eq!(table.chunks().len(), 2);
    assert_eq!(at(&table, BASE + 7), Rule::NO_INFO);
    assert_eq!(at(&table, BASE + 8), rsp(8));
    assert_eq!(at(&table, BASE + 0xbfff), rsp(8));
    assert_eq!(at(&table, BASE + 0xc000), Rule::NO_INFO);
    assert_eq!(table.row(BASE - 1), None);
    assert_eq!(table.row(u64::MAX), None);
}

/// Make sure that a page with a full chunk of rows has them all, and one with more has none rather than wrong ones.
#[test]
fn dense_pages() {
    let mut pages = PageWriter::new(BASE, BASE + 0x4000 * 3);
    for byte in 0..0x1000 {
        pages.push(BASE + byte, rsp(8 + i64::from(byte % 2 == 1) * 8));
    }
    for byte in 0..0x1001 {
        pages.push(BASE + 0x4000 + byte, rsp(8 + i64::from(byte % 2 == 1) * 8));
    }
    pages.push(BASE + 0x8000, rsp(80));
    let table = pages.finish();
    assert_eq!(table.stats.dense_pages, 1);
    assert_eq!(at(&table, BASE + 0xffe), rsp(8));
    assert_eq!(at(&table, BASE + 0xfff), rsp(16));
    assert_eq!(at(&table, BASE + 0x3fff), rsp(16));
    assert_eq!(table.row(BASE + 0x4000), None);
    assert_eq!(at(&table, BASE + 0x8000), rsp(80));
}

/// Make sure that a rule with a number that does not fit is counted, and ends walks.
#[test]
fn numbers_that_do_not_fit() {
    let mut pages = PageWriter::new(BASE, BASE + 0x4000);
    pages.push(BASE, rsp(12));
    let lost = Rule {
        fp: Fp::AtCfa(-1 << 30),
        ..rsp(8)
    };
    pages.push(BASE + 1, lost);
    pages.push(BASE + 2, rsp(8));
    let table = pages.finish();
    assert_eq!(table.stats.unsupported, 2);
    assert_eq!(at(&table, BASE + 1), Rule::UNSUPPORTED);
    assert_eq!(at(&table, BASE + 2), rsp(8));
}

/// A section with one common entry and descriptions of `(start, size, instructions)`.
fn section(fdes: &[(u64, u64, &[u8])]) -> Vec<u8> {
    fn entry(section: &mut Vec<u8>, mut body: Vec<u8>) {
        body.resize(body.len().next_multiple_of(8) + 4, 0);
        section.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        section.extend(body);
    }
    let mut bytes = Vec::new();
    // Version 1, no augmentation, factors 1 and -8, return address 16; rsp + 8, return address at -8.
    entry(
        &mut bytes,
        vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1],
    );
    for (start, size, instructions) in fdes {
        let back = u32::try_from(bytes.len() + 4).unwrap();
        let mut body = back.to_le_bytes().to_vec();
        body.extend(start.to_le_bytes());
        body.extend(size.to_le_bytes());
        body.extend(*instructions);
        entry(&mut bytes, body);
    }
    bytes
}

fn table(bytes: &[u8]) -> Table {
    let end = BASE + 0x8000;
    let mut pages = PageWriter::new(BASE, end);
    let frames = Frames {
        eh: Some(EhFrame::new(bytes, LittleEndian)),
        debug: None,
        bases: BaseAddresses::default().set_eh_frame(0),
    };
    convert(&frames, BASE..end, &mut pages);
    pages.finish()
}

/// Make sure that of overlapping descriptions each ends where the next begins, and of those with one start the
/// section's first counts, in whatever order they come.
#[test]
fn overlapping_descriptions() {
    // DW_CFA_def_cfa_offset.
    let fdes: [(u64, u64, &[u8]); 5] = [
        (BASE + 0x7ff0, 0x8000, &[0x0e, 48]),
        (BASE + 0x100, 0x100, &[0x0e, 16]),
        (BASE, 0x1000, &[0x0e, 24]),
        (BASE + 0x100, 0x800, &[0x0e, 32]),
        (BASE + 0x7ff8, u64::MAX, &[0x0e, 40]),
    ];
    let table = table(&section(&fdes));
    // One has an end before its start.
    assert_eq!((table.stats.fdes, table.stats.ignored), (3, 1));
    assert_eq!(at(&table, BASE + 0xff), rsp(24));
    assert_eq!(at(&table, BASE + 0x100), rsp(16));
    assert_eq!(at(&table, BASE + 0x1ff), rsp(16));
    assert_eq!(at(&table, BASE + 0x200), Rule::NO_INFO);
    assert_eq!(at(&table, BASE + 0x7fff), rsp(48));
}

/// Make sure that what follows an instruction that makes no sense is unsupported up to the description's end, and the
/// next one is read.
#[test]
fn malformed_instructions() {
    // DW_CFA_advance_loc 4, DW_CFA_restore_state without a state to restore.
    let fdes: [(u64, u64, &[u8]); 3] = [
        (BASE, 16, &[0x44, 0x0b]),
        (BASE + 16, 16, &[0x0e, 16]),
        (BASE + 0x9000, 16, &[]),
    ];
    let table = table(&section(&fdes));
    assert_eq!((table.stats.malformed, table.stats.ignored), (1, 1));
    assert_eq!(at(&table, BASE + 3), rsp(8));
    assert_eq!(at(&table, BASE + 4), Rule::UNSUPPORTED);
    assert_eq!(at(&table, BASE + 16), rsp(16));
}
