//! memtrace's JSON report, as far as the tests read it, and its comparison with a fixture's books.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::Deserialize;

use crate::books::{Books, Counts};

/// A report.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Version of the format.
    pub version: u32,
    /// The traced process.
    pub target: Process,
    /// How long calls were recorded.
    pub duration_seconds: f64,
    /// The probed allocators.
    pub allocator: Vec<Allocator>,
    /// Sums over all stacks.
    pub totals: Counts,
    /// Stacks with their counts.
    pub stacks: Vec<Stack>,
    /// What was not recorded, by cause.
    pub losses: BTreeMap<String, u64>,
    /// What explains the numbers.
    pub notes: BTreeMap<String, u64>,
    /// Sentences that the reader must know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the tracing cost.
    pub cost: Cost,
}

/// The traced process.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its executable.
    pub exe: String,
}

/// A probed allocator.
#[derive(Clone, Debug, Deserialize)]
pub struct Allocator {
    /// Path of the object.
    pub object: String,
    /// `glibc`, `jemalloc`, …
    pub kind: String,
    /// Why it was taken for an allocator.
    pub reason: String,
}

/// What the tracing cost.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Cost {
    /// Largest resident set of memtrace.
    pub collector_peak_bytes: u64,
}

/// A stack with its counts.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// Counts of this stack.
    #[serde(flatten)]
    pub counts: Counts,
    /// Why the stack ends early; `None` when it is whole.
    pub truncated: Option<String>,
    /// Frames from the leaf to the root.
    pub frames: Vec<Frame>,
}

/// A frame of a stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    /// Demangled name.
    pub function: Option<String>,
    /// Object.
    pub module: Option<String>,
    /// Offset in the object's file, or the address where there is none.
    pub offset: u64,
    /// Whether the compiler inlined the function into the next frame.
    pub inlined: bool,
}

impl Frame {
    /// The function's own name; empty when it is not known.
    #[must_use]
    pub fn name(&self) -> &str {
        self.function.as_deref().map_or("", plain_name)
    }
}

impl Report {
    /// Reads the JSON that memtrace wrote.
    ///
    /// # Panics
    ///
    /// When it is not what docs/json.md says.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("report: {error} in {text}"))
    }

    /// A loss or a note; 0 when the report does not name it.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let find = |map: &BTreeMap<String, u64>| map.get(name).copied();
        find(&self.losses)
            .or_else(|| find(&self.notes))
            .unwrap_or(0)
    }
}

impl Stack {
    /// The first frame, from the leaf, that is one of `sites`.
    fn site<'a>(&self, sites: &'a BTreeMap<String, Counts>) -> Option<&'a str> {
        self.frames.iter().find_map(|frame| {
            let (site, _) = sites.get_key_value(plain_name(frame.function.as_deref()?))?;
            Some(site.as_str())
        })
    }

    /// Whether the name of any frame contains `text`.
    #[must_use]
    pub fn passes_through(&self, text: &str) -> bool {
        self.frames.iter().any(|frame| {
            frame
                .function
                .as_ref()
                .is_some_and(|name| name.contains(text))
        })
    }
}

/// A function's name without its path, its parameters, and the hash that rustc adds.
fn plain_name(function: &str) -> &str {
    let name = function.split_once('(').map_or(function, |(name, _)| name);
    let name = match name.rsplit_once("::h") {
        Some((name, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            name
        }
        _ => name,
    };
    name.rsplit_once("::").map_or(name, |(_, name)| name)
}

/// A comparison of a report with the books of its target, to be narrowed before [`Comparison::exact`].
#[derive(Debug)]
#[must_use]
pub struct Comparison<'a> {
    books: &'a Books,
    report: &'a Report,
    allowed_losses: BTreeSet<&'a str>,
    merged: Option<(BTreeSet<&'a str>, &'a str)>,
    ignored: Option<&'a str>,
    nothing_elsewhere: bool,
}

impl<'a> Comparison<'a> {
    /// Compares what `report` says of each call site with `books`.
    pub fn of(books: &'a Books, report: &'a Report) -> Self {
        Self {
            books,
            report,
            allowed_losses: BTreeSet::new(),
            merged: None,
            ignored: None,
            nothing_elsewhere: false,
        }
    }

    /// Lets the report name this loss.
    pub fn allowing(mut self, loss: &'a str) -> Self {
        self.allowed_losses.insert(loss);
        self
    }

    /// Compares only the sum over `sites` and over stacks that lack a site but pass through a function whose name
    /// contains `function`: one that uses the frame pointer for other things, so that its callers cannot be seen.
    pub fn merging(mut self, sites: &[&'a str], function: &'a str) -> Self {
        self.merged = Some((sites.iter().copied().collect(), function));
        self
    }

    /// Leaves out stacks that pass through a function whose name contains `function`: true allocations that the
    /// fixture cannot count, like those of the C++ runtime for an exception.
    pub fn ignoring(mut self, function: &'a str) -> Self {
        self.ignored = Some(function);
        self
    }

    /// Demands that no stack be without a site.
    pub fn nothing_elsewhere(mut self) -> Self {
        self.nothing_elsewhere = true;
        self
    }

    /// Makes sure that everything is equal.
    ///
    /// # Panics
    ///
    /// With every difference, when something is not.
    pub fn exact(self) {
        let mut differences = String::new();
        for (site, (truth, seen)) in self.by_site() {
            if truth != seen {
                let _ = writeln!(
                    differences,
                    "  {site}:\n    truth {truth:?}\n    seen  {seen:?}"
                );
            }
        }
        for (loss, count) in &self.report.losses {
            if *count > 0 && !self.allowed_losses.contains(loss.as_str()) {
                let _ = writeln!(differences, "  loss {loss}: {count}");
            }
        }
        if self.nothing_elsewhere {
            for stack in self.stacks() {
                if stack.site(&self.books.sites).is_none() {
                    let _ = writeln!(differences, "  a stack without a site: {stack:?}");
                }
            }
        }
        assert!(
            differences.is_empty(),
            "memtrace is wrong:\n{differences}losses {:?}\nnotes {:?}\nwarnings {:?}\nallocators {:?}",
            self.report.losses,
            self.report.notes,
            self.report.warnings,
            self.report.allocator,
        );
    }

    /// The truth and what was seen, by site or merged.
    fn by_site(&self) -> BTreeMap<&str, (Counts, Counts)> {
        let mut table: BTreeMap<&str, (Counts, Counts)> = BTreeMap::new();
        for (site, counts) in &self.books.sites {
            table.entry(self.row(site)).or_default().0 += *counts;
        }
        for stack in self.stacks() {
            let row = match (stack.site(&self.books.sites), &self.merged) {
                (Some(site), _) => self.row(site),
                (None, Some((_, function))) if stack.passes_through(function) => "merged",
                (None, _) => continue,
            };
            table.entry(row).or_default().1 += stack.counts;
        }
        table
    }

    fn stacks(&self) -> impl Iterator<Item = &Stack> {
        self.report.stacks.iter().filter(|stack| {
            !self
                .ignored
                .is_some_and(|function| stack.passes_through(function))
        })
    }

    fn row<'s>(&self, site: &'s str) -> &'s str {
        match &self.merged {
            Some((sites, _)) if sites.contains(site) => "merged",
            _ => site,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    /// Make sure that C, C++ and Rust names lose what is not the function's own name.
    #[test]
    fn names_are_plain() {
        assert_eq!(plain_name("site_malloc"), "site_malloc");
        assert_eq!(plain_name("ns::site_new(unsigned long)"), "site_new");
        assert_eq!(
            plain_name("rust_fixture::site_vec::h0123456789abcdef"),
            "site_vec"
        );
        assert_eq!(plain_name("rust_fixture::site_vec"), "site_vec");
    }
}
