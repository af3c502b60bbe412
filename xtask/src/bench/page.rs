//! The results as a page of tables; every number on it was measured in the run that wrote it.

use std::fmt::Write as _;

use super::pairs::{DEPTHS, Pairs};
use super::redis::{self, Throughput};
use super::tracer::{self, Tracer};

/// What a run found.
pub(crate) struct Results {
    /// What it ran on.
    pub(crate) machine: Vec<(&'static str, String)>,
    /// How long it took.
    pub(crate) minutes: f64,
    /// Time per pair.
    pub(crate) pairs: Pairs,
    /// Requests of each kind that redis got each time.
    pub(crate) requests: u32,
    /// Throughput of redis.
    pub(crate) redis: Throughput,
}

/// The page in Markdown.
pub(crate) fn render(results: &Results) -> String {
    let mut page = String::from(
        "# What the heap lens costs\n\n\
         This page was written by `cargo xtask bench heap`. All rows were measured in one run, the tracers taking \
         turns in every round; the numbers are medians.\n\n\
         The floor is what the kernel takes for three probes (entry and return of malloc, entry of free) whose BPF \
         programs do nothing. heaptrack sets no probes: it is loaded into the program when that starts.\n\n\
         | | |\n|---|---|\n",
    );
    for (what, which) in &results.machine {
        line(&mut page, &[(*what).to_owned(), which.clone()]);
    }
    line(
        &mut page,
        &["run".to_owned(), format!("{:.0} minutes", results.minutes)],
    );
    for depth in DEPTHS {
        pairs_table(&mut page, &results.pairs, depth);
    }
    redis_table(&mut page, results);
    page
}

fn pairs_table(page: &mut String, pairs: &Pairs, depth: u32) {
    let title = match depth {
        0 => "\n## malloc and free in a tight loop\n\n".to_owned(),
        depth => format!("\n## malloc and free below {depth} frames of stack\n\n"),
    };
    page.push_str(&title);
    page.push_str("| traced by | ns per pair | lowest to highest | added ns | × floor |\n");
    page.push_str("|---|--:|--:|--:|--:|\n");
    let of = |tracer| pairs.get(&(tracer, depth)).map_or(&[][..], Vec::as_slice);
    let untraced = median(of(Tracer::Nobody));
    let floor = median(of(Tracer::Floor));
    for tracer in tracer::ALL {
        let values = of(tracer);
        let ns = median(values);
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = values.iter().copied().fold(0.0, f64::max);
        line(
            page,
            &[
                tracer.label().to_owned(),
                format!("{ns:.0}"),
                format!("{lowest:.0} to {highest:.0}"),
                format!("{:.0}", ns - untraced),
                format!("{:.2}", ns / floor),
            ],
        );
    }
    let ours = median(of(Tracer::Memtrace));
    let theirs = median(of(Tracer::Memleak));
    let _ = writeln!(
        page,
        "\nmemtrace takes {:.2} × the floor that the kernel sets (aim: at most 1.35), and adds {:.1} × less time \
         than memleak (aim: at least 5).",
        ours / floor,
        (theirs - untraced) / (ours - untraced),
    );
}

fn redis_table(page: &mut String, results: &Results) {
    let _ = writeln!(
        page,
        "\n## redis-server under `{}`\n",
        redis::command(results.requests)
    );
    let _ = writeln!(
        page,
        "Started with `LD_PRELOAD={}`, so that the C library serves malloc: memleak of bcc 0.26 cannot be pointed \
         at the jemalloc that Debian links redis to.\n",
        redis::ALLOCATOR
    );
    page.push_str("| traced by | SET per second | of untraced | GET per second | of untraced |\n");
    page.push_str("|---|--:|--:|--:|--:|\n");
    let of = |tracer| {
        results
            .redis
            .get(&tracer)
            .map(|[set, get]| [median(set), median(get)])
    };
    let [set_untraced, get_untraced] = of(Tracer::Nobody).unwrap_or_default();
    for tracer in tracer::ALL {
        let [set, get] = of(tracer).unwrap_or_default();
        line(
            page,
            &[
                tracer.label().to_owned(),
                format!("{set:.0}"),
                format!("{:.0} %", 100.0 * set / set_untraced),
                format!("{get:.0}"),
                format!("{:.0} %", 100.0 * get / get_untraced),
            ],
        );
    }
}

/// A line of a table.
pub(super) fn line(page: &mut String, cells: &[String]) {
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// The middle of the values; NaN where there are none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that the median is the middle one, or the mean of the middle two.
    #[test]
    fn median_of_few() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
    }
}
