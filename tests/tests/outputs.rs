//! What is written besides the table: the flamegraph, folded stacks, and what the options leave out.

use std::{ffi::OsStr, fs, process::Command};

use tests::{
    fixture::{self, Link},
    memtrace::Memtrace,
    need,
    needs::Missing,
    report::Report,
    scenario::{Traced, trace},
    target::{Target, copy},
    turn::Turn,
};

fn blocks(options: &[&str]) -> Result<Traced, Missing> {
    let program = fixture::c("blocks", Link::Dynamic)?;
    Ok(trace(Command::new(program).args(["5000", "300"]), options))
}

fn live_count_at(report: &Report, site: &str) -> u64 {
    report
        .stacks
        .iter()
        .filter(|stack| stack.passes_through(site))
        .map(|stack| stack.counts.live_count)
        .sum()
}

/// Make sure that the folded stacks add up to the live bytes, from the root to the leaf, and that the flamegraph is an
/// SVG that names the sites.
#[test]
fn flamegraph_and_folded_stacks() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("blocks", Link::Dynamic));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let svg = folder.path().join("heap.svg");
    let stacks = folder.path().join("stacks.txt");
    let options: [&OsStr; 4] = [
        "-o".as_ref(),
        svg.as_ref(),
        "--folded".as_ref(),
        stacks.as_ref(),
    ];
    let traced = trace(Command::new(program).arg("5000"), &options);
    traced.compare().nothing_elsewhere().exact();

    let stacks = fs::read_to_string(stacks).expect("folded stacks");
    let mut sum = 0;
    for line in stacks.lines() {
        let (stack, bytes) = line.rsplit_once(' ').expect("a stack and its bytes");
        sum += bytes.parse::<u64>().expect("a number of bytes");
        let main = stack.find("main").expect("main in every stack");
        assert!(
            stack.find("site_").is_some_and(|site| site > main),
            "root first: {line}"
        );
    }
    assert_eq!(
        sum,
        traced.books.sum().live_bytes,
        "bytes of all folded stacks"
    );

    let svg = fs::read_to_string(svg).expect("a flamegraph");
    assert!(
        svg.contains("<svg") && svg.trim_end().ends_with("</svg>"),
        "a whole SVG"
    );
    for text in [
        "site_even",
        "site_odd",
        &traced.report.target.pid.to_string(),
    ] {
        assert!(svg.contains(text), "{text} in the flamegraph");
    }
}

/// Make sure that `--min-size` passes by exactly the smaller blocks: of the odd ones, with 1 + n % 40 bytes for odd n,
/// 11 in 20 have 20 bytes or more.
#[test]
fn smaller_blocks_are_passed_by() {
    let _turn = need!(Turn::shared());
    let traced = need!(blocks(&["--min-size", "20"]));
    let odd = (0..5000).filter(|n| n % 2 == 1 && 1 + n % 40 >= 20).count() as u64;
    let even = (0..5000).filter(|n| n % 2 == 0 && 1 + n % 60 >= 20).count() as u64;
    assert_eq!(live_count_at(&traced.report, "site_odd"), odd);
    assert_eq!(live_count_at(&traced.report, "site_even"), even);
}

/// Make sure that `--older-than` leaves younger blocks out of the rows.
#[test]
fn younger_blocks_are_left_out() {
    let _turn = need!(Turn::shared());
    let traced = need!(blocks(&["--older-than", "1h"]));
    assert_eq!(
        live_count_at(&traced.report, "site_"),
        0,
        "nothing is an hour old"
    );
    let traced = need!(blocks(&["--older-than", "0s"]));
    traced.compare().nothing_elsewhere().exact();
}

/// Make sure that `--sort` orders the stacks and `--top` shortens the table, not the JSON.
#[test]
fn order_and_length() {
    let _turn = need!(Turn::shared());
    let traced = need!(blocks(&["--sort", "live", "--top", "1"]));
    let live: Vec<u64> = traced
        .report
        .stacks
        .iter()
        .map(|stack| stack.counts.live_bytes)
        .collect();
    assert!(live.is_sorted_by(|left, right| left >= right), "{live:?}");
    assert!(live.len() >= 3, "three sites: {live:?}");
    let table = traced.ended.output.join("\n");
    // 1 + n % 60 bytes of the even ones are more than 1 + n % 40 of the odd ones.
    assert!(
        table.contains("site_even") && !table.contains("site_odd"),
        "one stack in:\n{table}"
    );
    for key in ["count", "total", "age"] {
        need!(blocks(&["--sort", key])).compare().exact();
    }
}

/// Make sure that the BPF side's log can be asked for, and changes no number.
#[test]
fn log_of_the_bpf_side() {
    let _turn = need!(Turn::shared());
    let traced = need!(blocks(&["--log-bpf"]));
    traced.compare().nothing_elsewhere().exact();
}

/// Make sure that frames carry their source lines, and that they are right while the target's file is replaced.
#[test]
fn names_survive_the_replacement_of_the_file() {
    let _turn = need!(Turn::shared());
    let original = need!(fixture::c("blocks", Link::Dynamic));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("blocks");
    copy(&original, &program);
    let mut target = Target::start(Command::new(&program).arg("100"));
    let memtrace = Memtrace::on(target.pid(), &["--top", "3"]);
    target.go();
    let books = target.books();
    fs::remove_file(&program).expect("to remove the copy");
    fs::write(&program, "something else").expect("to replace it");
    let ended = memtrace.stop();
    tests::report::Comparison::of(&books, &ended.report())
        .nothing_elsewhere()
        .exact();
    let json = ended.json.expect("the report");
    assert!(
        json.contains("blocks.c\""),
        "source files in the frames: {json}"
    );
    target.end();
}
