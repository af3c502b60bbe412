//! The top stacks with their frames, and the sum of those not shown.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::super::{
    Frame, Report, StackRow,
    escape::{basename, path_tail, shorten},
    units::{Bytes, Count, Span, float, percent, plural},
};
use super::TextOptions;

/// Characters of a function's name that are shown.
const FUNCTION_LIMIT: usize = 72;
/// Characters of a module's name that are shown.
const MODULE_LIMIT: usize = 24;
/// Characters of a source path that are shown.
const FILE_LIMIT: usize = 28;
/// Files without symbols that are named.
const MODULES_SHOWN: usize = 3;

pub(super) fn write(report: &Report, options: TextOptions, out: &mut impl Write) -> io::Result<()> {
    let shown = &report.stacks[..options.top.min(report.stacks.len())];
    if shown.is_empty() {
        writeln!(out, "\nNo stacks to show.")?;
    } else {
        writeln!(
            out,
            "\nTop {} by {} (1 KiB = 1024 bytes; leaf first)\n",
            plural(shown.len() as u64, "stack"),
            options.sort.text()
        )?;
        writeln!(
            out,
            "   # {:>11} {:>6} {:>12} {:>11} {:>8}",
            "live", "share", "blocks", "allocated", "oldest"
        )?;
    }
    for (index, row) in shown.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        stack(index + 1, row, report.totals.live_bytes, out)?;
    }
    nameless(shown, out)?;
    not_shown(report, shown.len(), out)
}

fn stack(rank: usize, row: &StackRow, live_bytes: u64, out: &mut impl Write) -> io::Result<()> {
    let oldest = row
        .oldest
        .map_or_else(|| "-".to_owned(), |age| Span(age).to_string());
    writeln!(
        out,
        "{rank:>4} {:>11} {:>5.1}% {:>12} {:>11} {oldest:>8}",
        Bytes(row.live_bytes),
        percent(float(row.live_bytes), float(live_bytes)),
        Count(row.live_count),
        Bytes(row.total_bytes),
    )?;
    for frame in &row.frames {
        writeln!(out, "       {}", line(frame))?;
    }
    if let Some(missing) = row.missing_root() {
        writeln!(out, "       {missing}")?;
    }
    Ok(())
}

/// A frame on one line: `function  module  file:line  (inlined)`.
fn line(frame: &Frame) -> String {
    let Frame {
        function,
        module,
        offset,
        file,
        line,
        inlined,
    } = frame;
    let limit = match function {
        Some(_) => MODULE_LIMIT,
        None => FUNCTION_LIMIT,
    };
    let module = module
        .as_deref()
        .map(|module| shorten(basename(module), limit));
    let mut text = match (function, &module) {
        (Some(function), Some(module)) => {
            format!("{}  {module}", shorten(function, FUNCTION_LIMIT))
        }
        (Some(function), None) => shorten(function, FUNCTION_LIMIT),
        (None, Some(module)) => format!("{module}+{offset:#x}"),
        (None, None) => format!("[unknown] {offset:#x}"),
    };
    if let Some(file) = file {
        let file = shorten(path_tail(file, FILE_LIMIT), FILE_LIMIT);
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        text.extend(["  ", &file, &line]);
    }
    if *inlined {
        text.push_str("  (inlined)");
    }
    text
}

/// Which files lack symbols, if frames that are shown have no name for it.
fn nameless(shown: &[StackRow], out: &mut impl Write) -> io::Result<()> {
    let modules: BTreeSet<&str> = shown
        .iter()
        .flat_map(|row| &row.frames)
        .filter(|frame| frame.function.is_none())
        .filter_map(|frame| frame.module.as_deref())
        // What is in brackets is no file.
        .filter(|module| !module.starts_with('['))
        .map(basename)
        .collect();
    if modules.is_empty() {
        return Ok(());
    }
    write!(out, "\nNo symbols for some functions of")?;
    let mut separator = " ";
    for module in modules.iter().take(MODULES_SHOWN) {
        write!(out, "{separator}{}", shorten(module, MODULE_LIMIT))?;
        separator = ", ";
    }
    if modules.len() > MODULES_SHOWN {
        write!(out, ", …")?;
    }
    writeln!(out, ": install debug symbols to see their names")
}

/// The stacks below the top, and those that the filters took out.
fn not_shown(report: &Report, shown: usize, out: &mut impl Write) -> io::Result<()> {
    let live = |rows: &[StackRow]| rows.iter().map(|row| row.live_bytes).sum::<u64>();
    let totals = &report.totals;
    let below = &report.stacks[shown..];
    let filtered = totals.stacks.saturating_sub(report.stacks.len() as u64);
    if !below.is_empty() || filtered > 0 {
        writeln!(out)?;
    }
    if !below.is_empty() {
        say(
            below.len() as u64,
            "below these",
            live(below),
            totals.live_bytes,
            out,
        )?;
    }
    if filtered > 0 {
        let bytes = totals.live_bytes.saturating_sub(live(&report.stacks));
        say(
            filtered,
            "left out by the filters",
            bytes,
            totals.live_bytes,
            out,
        )?;
    }
    Ok(())
}

fn say(stacks: u64, which: &str, bytes: u64, all: u64, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "Not shown: {} {which}, with {} live ({:.1}%)",
        plural(stacks, "stack"),
        Bytes(bytes),
        percent(float(bytes), float(all))
    )
}
