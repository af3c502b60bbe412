//! Folded stacks: `root;…;leaf bytes`, one line each, for flamegraph tools and for diff.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Write},
};

use super::{
    Frame, Report, StackRow,
    escape::{Escaped, basename},
};

/// What a line's number counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Bytes live at the end.
    #[default]
    Live,
    /// Bytes allocated while recording.
    Total,
}

impl Weight {
    /// The stack's bytes.
    #[must_use]
    pub const fn bytes(self, row: &StackRow) -> u64 {
        match self {
            Self::Live => row.live_bytes,
            Self::Total => row.total_bytes,
        }
    }
}

/// Writes a line for each distinct stack that holds bytes, sorted.
///
/// # Errors
///
/// When `out` fails.
pub fn write(report: &Report, weight: Weight, out: &mut impl Write) -> io::Result<()> {
    for (stack, bytes) in fold(report, weight, frame_name) {
        writeln!(out, "{stack} {bytes}")?;
    }
    Ok(())
}

/// The folded stacks that hold bytes, named by `name`, with stacks that look the same merged.
pub(super) fn fold(
    report: &Report,
    weight: Weight,
    name: impl Fn(&Frame) -> String,
) -> BTreeMap<String, u64> {
    let mut folded = BTreeMap::new();
    for row in report.stacks.iter().filter(|row| weight.bytes(row) > 0) {
        let names = row.frames.iter().rev().map(&name);
        let stack: Vec<String> = row
            .missing_root()
            .into_iter()
            .chain(names)
            .map(|name| separable(&name).into_owned())
            .collect();
        let stack = if stack.is_empty() {
            "[empty stack]".to_owned()
        } else {
            stack.join(";")
        };
        // Such a line would be a comment.
        let stack = match stack.strip_prefix('#') {
            Some(rest) => format!("\\u{{23}}{rest}"),
            None => stack,
        };
        *folded.entry(stack).or_insert(0) += weight.bytes(row);
    }
    folded
}

/// The function's name, or the place of its code: the offset in its file, or only its memory's name where it has none.
pub(super) fn frame_name(frame: &Frame) -> String {
    match (&frame.function, &frame.module) {
        (Some(function), _) => Escaped(function).to_string(),
        (None, None) => "[unknown]".to_owned(),
        (None, Some(module)) if module.starts_with("[anon") => Escaped(module).to_string(),
        (None, Some(module)) => format!("{}+{:#x}", Escaped(basename(module)), frame.offset),
    }
}

/// The name without the character that separates frames (`[u8; 4]` has one).
fn separable(name: &str) -> Cow<'_, str> {
    if name.contains(';') {
        Cow::Owned(name.replace(';', ":"))
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn folded(report: &Report, weight: Weight) -> String {
        let mut out = Vec::new();
        write(report, weight, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Make sure that the folded form of a report with every oddity is the reviewed one.
    #[test]
    fn golden() {
        sample::assert_golden("report.folded", &folded(&sample::report(), Weight::Live));
    }

    /// Make sure that merging loses no bytes, and that the separator appears only between frames.
    #[test]
    fn adds_up() {
        let report = sample::report();
        for weight in [Weight::Live, Weight::Total] {
            let expected: u64 = report.stacks.iter().map(|row| weight.bytes(row)).sum();
            let sum: u64 = folded(&report, weight)
                .lines()
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
                .sum();
            assert_eq!(sum, expected);
        }
        assert_eq!(folded(&sample::empty(), Weight::Live), "");
    }
}
