//! Many blocks, many stacks, full tables: exact as far as there is room, counted beyond that, and within budget.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tests::{
    fixture::{self, Link},
    memtrace::Memtrace,
    need,
    report::Comparison,
    scenario::{PLAIN, trace},
    target::Target,
    turn::Turn,
};

/// Make sure that a million live blocks are counted exactly.
#[test]
fn million_live_blocks() {
    let _turn = need!(Turn::alone());
    let program = need!(fixture::c("blocks", Link::Dynamic));
    let traced = trace(Command::new(program).args(["1000000", "50000"]), &PLAIN);
    assert_eq!(
        traced.books.sum().live_count,
        1_000_000,
        "the fixture's own count"
    );
    traced.compare().nothing_elsewhere().exact();
}

/// Make sure that a full table of live blocks loses blocks by count and by bytes, and makes no row wrong: what the
/// rows say and what is counted as lost is exactly what happened.
#[test]
fn full_table_of_live_blocks() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("blocks", Link::Dynamic));
    let traced = trace(
        Command::new(program).args(["5000", "300"]),
        &["--max-live", "1000"],
    );
    let truth = traced.books.sum();
    let report = &traced.report;
    assert_eq!(
        report.totals.live_count, 1000,
        "the table is used to its end"
    );
    assert_eq!(
        report.totals.live_count + report.counter("live_table_full"),
        truth.live_count,
        "live blocks, and those that found no room"
    );
    assert_eq!(
        report.totals.live_bytes + report.counter("live_table_full_bytes"),
        truth.live_bytes,
        "their bytes"
    );
    assert_eq!(
        report.totals.total_count + report.counter("live_table_full"),
        truth.total_count,
        "blocks allocated, those that came and went before included"
    );
    let rows: u64 = report
        .stacks
        .iter()
        .map(|stack| stack.counts.live_count)
        .sum();
    assert_eq!(rows, report.totals.live_count, "the rows' sum");
    for (site, seen) in [("site_even", 0), ("site_odd", 0)] {
        let row: u64 = report
            .stacks
            .iter()
            .filter(|stack| stack.passes_through(site))
            .map(|stack| stack.counts.live_count)
            .sum();
        assert!(
            row > seen && row <= traced.books.sites[site].live_count,
            "{site}: {row}"
        );
    }
    assert!(
        traced.ended.output.join("\n").contains("--max-live"),
        "the report says what to do about it"
    );
}

/// Make sure that the table of live blocks is free again for what is allocated after a release.
#[test]
fn full_table_recovers() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("blocks", Link::Dynamic));
    let traced = trace(
        Command::new(program).args(["900", "5000"]),
        &["--max-live", "1000"],
    );
    traced.compare().nothing_elsewhere().exact();
}

/// Make sure that with 1,000,000 live blocks and 20,000 stacks the report takes under 5 s and memtrace under 200 MB.
#[test]
fn collector_stays_within_its_budget() {
    let _turn = need!(Turn::alone());
    let program = need!(fixture::c("paths", Link::Dynamic));
    let mut target = Target::start(Command::new(program).args(["20000", "50"]));
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let books = target.books();
    assert_eq!(books.sum().live_count, 1_000_000, "the fixture's own count");
    let start = Instant::now();
    let ended = memtrace.stop();
    let took = start.elapsed();
    let report = ended.report();
    Comparison::of(&books, &report).nothing_elsewhere().exact();
    assert_eq!(report.stacks.len(), 20_000, "distinct stacks");
    assert!(took < Duration::from_secs(5), "the report took {took:?}");
    let peak = ended.peak_bytes.max(report.cost.collector_peak_bytes);
    assert!(peak < 200 * 1_000_000, "memtrace took {peak} bytes");
    target.end();
}
