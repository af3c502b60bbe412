//! The flamegraph: an SVG with zoom and search. The only file that names inferno.

use std::io::{self, Write};

use inferno::flamegraph::{
    self, Options, TextTruncateDirection,
    color::{BasicPalette, Palette},
};

pub use super::folded::Weight;
use super::{
    Frame, Report,
    escape::{Escaped, basename, shorten},
    folded::{fold, frame_name},
    units::{Bytes, Span, plural},
};

/// Frames narrower than this share of the width, in percent, are left out: they would be under a quarter of a pixel.
const MIN_WIDTH_PERCENT: f64 = 0.02;

/// Characters of a frame's name that are kept.
const NAME_LIMIT: usize = 400;

/// Writes the SVG.
///
/// A report without any bytes becomes an SVG that says so.
///
/// # Errors
///
/// When `out` fails.
pub fn write(report: &Report, weight: Weight, out: &mut impl Write) -> io::Result<()> {
    let folded = fold(report, weight, name);
    // inferno writes an error message of its own for an empty graph; one empty root keeps title and layout.
    let lines: Vec<String> = if folded.is_empty() {
        vec![format!("[{}] 1", nothing(weight))]
    } else {
        folded
            .into_iter()
            .map(|(stack, bytes)| stack + " " + &bytes.to_string())
            .collect()
    };
    flamegraph::from_lines(
        &mut options(report, weight),
        lines.iter().map(String::as_str),
        out,
    )
}

fn nothing(weight: Weight) -> &'static str {
    match weight {
        Weight::Live => "no live bytes",
        Weight::Total => "no bytes allocated",
    }
}

/// Title: whose memory and what is shown. Subtitle: when.
fn options(report: &Report, weight: Weight) -> Options<'static> {
    let Report {
        target, duration, ..
    } = report;
    let bytes: u64 = report.stacks.iter().map(|row| weight.bytes(row)).sum();
    let shown = match weight {
        Weight::Live => {
            let count = report.stacks.iter().map(|row| row.live_count).sum();
            format!(
                "live heap bytes, {} in {}",
                Bytes(bytes),
                plural(count, "block")
            )
        }
        Weight::Total => {
            let count = report.stacks.iter().map(|row| row.total_count).sum();
            format!(
                "allocated heap bytes, {} in {}",
                Bytes(bytes),
                plural(count, "block")
            )
        }
    };
    let mut options = Options::default();
    options.title = format!("{} (pid {}): {shown}", Escaped(&target.comm), target.pid);
    options.subtitle = Some(format!(
        "recorded {} from {}",
        Span(*duration),
        Escaped(&target.started)
    ));
    options.count_name = if bytes == 0 {
        String::new()
    } else {
        "bytes".to_owned()
    };
    options.colors = Palette::Basic(BasicPalette::Mem);
    // The same function has the same colour in every graph, so that two of them can be compared.
    options.deterministic = true;
    options.min_width = MIN_WIDTH_PERCENT;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options
}

/// The frame with its module, so that a search for a library finds its frames.
fn name(frame: &Frame) -> String {
    let name = frame_name(frame);
    let name = match (&frame.function, &frame.module) {
        (Some(_), Some(module)) => format!("{name} ({})", Escaped(basename(module))),
        _ => name,
    };
    shorten(&name, NAME_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn svg(report: &Report, weight: Weight) -> String {
        let mut out = Vec::new();
        write(report, weight, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Make sure that names cannot add markup or characters that XML forbids, and are still there.
    #[test]
    fn hostile_names() {
        let svg = svg(&sample::report(), Weight::Live);
        assert!(!svg.contains("<script>"));
        assert!(svg.contains("&lt;script&gt;alert(&apos;x&apos;)&lt;/script&gt; (server)"));
        assert!(svg.chars().all(|c| c == '\n' || !c.is_control()));
    }

    /// Make sure that the title says whose memory is shown, which, and how much.
    #[test]
    fn titles() {
        let live = svg(&sample::report(), Weight::Live);
        assert!(live.contains("(pid 4711): live heap bytes, 12.2 MiB in 1,254 blocks"));
        assert!(live.contains("recorded 30.0 s from 2026-02-03T04:05:06Z"));
        let total = svg(&sample::report(), Weight::Total);
        assert!(total.contains("allocated heap bytes, 122.0 MiB in 12,541 blocks"));
    }

    /// Make sure that a report without bytes becomes a graph that says so.
    #[test]
    fn nothing_live() {
        let svg = svg(&sample::empty(), Weight::Live);
        assert!(svg.contains("[no live bytes]") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("ERROR"));
    }
}
