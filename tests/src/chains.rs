//! Call chains that a fixture knows of itself, and whether a report has exactly these; `chains.h` says how they are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    books::{Books, Counts},
    report::{Frame, Report, Stack},
};

/// A word of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// A frame of this function.
    Name(String),
    /// A frame of code without a file.
    Jit,
    /// One or more frames of functions that no chain names.
    Others,
}

/// A chain, from the allocation to the root.
#[derive(Clone, Debug)]
struct Chain {
    text: String,
    words: Vec<Word>,
    /// Why it ends early.
    truncated: Option<String>,
    /// Whether it must be seen.
    required: bool,
}

impl Chain {
    fn parse(chain: &str) -> Self {
        let (text, required) = match chain.trim().strip_prefix('?') {
            Some(text) => (text, false),
            None => (chain, true),
        };
        let (text, truncated) = match text.split_once('!') {
            Some((text, reason)) => (text, Some(reason.trim().to_owned())),
            None => (text, None),
        };
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            let (word, count) = word.split_once('*').unwrap_or((word, "1"));
            let count = count.parse().expect("a number of frames");
            let word = match word {
                "~" => Word::Others,
                "[jit]" => Word::Jit,
                name => Word::Name(name.to_owned()),
            };
            words.extend(std::iter::repeat_n(word, count));
        }
        Self {
            text: chain.to_owned(),
            words,
            truncated,
            required,
        }
    }
}

/// All chains of a fixture.
#[derive(Clone, Debug)]
pub struct Chains {
    chains: Vec<Chain>,
    names: BTreeSet<String>,
}

impl Chains {
    /// Reads the line that a fixture prints.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let chains: Vec<Chain> = line
            .strip_prefix("chains ")
            .expect("a line of chains")
            .split(';')
            .map(Chain::parse)
            .collect();
        let names = chains.iter().flat_map(|chain| &chain.words);
        let names = names.filter_map(|word| match word {
            Word::Name(name) => Some(name.clone()),
            Word::Jit | Word::Others => None,
        });
        Self {
            names: names.collect(),
            chains,
        }
    }

    /// Makes sure that each stack below a call site of the fixture is one of its chains, frame by frame, that there
    /// are as many as the fixture counted, that all chains were seen, and that any other stack is whole.
    ///
    /// # Panics
    ///
    /// With every difference, when something is not so.
    pub fn compare(&self, what: &str, books: &Books, report: &Report) {
        let mut differences = String::new();
        let mut seen: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut chains_seen = BTreeSet::new();
        for stack in &report.stacks {
            let frames: Vec<&Frame> = stack.frames.iter().filter(|frame| !frame.inlined).collect();
            let site = frames
                .iter()
                .find_map(|frame| Some(books.sites.get_key_value(frame.name())?.0.as_str()));
            if let Some(site) = site {
                *seen.entry(site).or_default() += stack.counts;
            }
            let chain = self
                .chains
                .iter()
                .find(|chain| self.is(chain, stack, &frames));
            match (chain, site) {
                (Some(chain), Some(_)) => {
                    chains_seen.insert(&chain.text);
                }
                (None, None) if stack.truncated.is_none() => {}
                _ => {
                    let _ = writeln!(differences, "  no chain of the fixture: {}", shown(stack));
                }
            }
        }
        for chain in &self.chains {
            if chain.required && !chains_seen.contains(&chain.text) {
                let _ = writeln!(differences, "  not seen: {}", chain.text);
            }
        }
        for (site, truth) in &books.sites {
            let seen = seen.get(site.as_str()).copied().unwrap_or_default();
            if *truth != seen {
                let _ = writeln!(differences, "  {site}: truth {truth:?}, seen {seen:?}");
            }
        }
        for (loss, count) in &report.losses {
            let _ = writeln!(differences, "  loss {loss}: {count}");
        }
        assert!(differences.is_empty(), "{what}:\n{differences}");
    }

    fn is(&self, chain: &Chain, stack: &Stack, frames: &[&Frame]) -> bool {
        chain.truncated == stack.truncated && self.matches(&chain.words, frames)
    }

    fn matches(&self, words: &[Word], frames: &[&Frame]) -> bool {
        match (words.split_first(), frames.split_first()) {
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some((Word::Name(name), words)), Some((frame, frames))) => {
                frame.name() == name && self.matches(words, frames)
            }
            (Some((Word::Jit, words)), Some((frame, frames))) => {
                frame.function.is_none()
                    && frame.module.as_deref() == Some("[anon]")
                    && self.matches(words, frames)
            }
            (Some((Word::Others, rest)), Some((frame, frames))) => {
                frame
                    .module
                    .as_ref()
                    .is_some_and(|module| module != "[anon]")
                    && !self.names.contains(frame.name())
                    && (self.matches(words, frames) || self.matches(rest, frames))
            }
        }
    }
}

/// A stack on one line.
#[must_use]
pub fn shown(stack: &Stack) -> String {
    let mut text = format!("{} ×", stack.counts.total_count);
    for frame in &stack.frames {
        let module = frame.module.as_deref().unwrap_or("?");
        let module = module.rsplit('/').next().unwrap_or(module);
        let _ = match &frame.function {
            Some(function) => write!(text, " {function}"),
            None => write!(text, " {module}+{:#x}", frame.offset),
        };
        if frame.inlined {
            text.push_str(" (inlined)");
        }
    }
    if let Some(reason) = &stack.truncated {
        let _ = write!(text, " [truncated: {reason}]");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str], truncated: Option<&str>) -> Stack {
        let frames = names.iter().map(|name| Frame {
            function: (*name != "?").then(|| (*name).to_owned()),
            module: Some(
                if *name == "?" {
                    "[anon]"
                } else {
                    "/lib/libc.so"
                }
                .to_owned(),
            ),
            offset: 1,
            inlined: false,
        });
        Stack {
            counts: Counts::default(),
            truncated: truncated.map(str::to_owned),
            frames: frames.collect(),
        }
    }

    fn is(chains: &str, names: &[&str], truncated: Option<&str>) -> bool {
        let chains = Chains::parse(chains);
        let stack = stack(names, truncated);
        let frames: Vec<&Frame> = stack.frames.iter().collect();
        chains
            .chains
            .iter()
            .any(|chain| chains.is(chain, &stack, &frames))
    }

    /// Make sure that a missing, an added and a changed frame are each found.
    #[test]
    fn every_frame_counts() {
        let chains = "chains a b*2 ~ main;c [jit] d;e !gone";
        assert!(is(chains, &["a", "b", "b", "qsort", "msort", "main"], None));
        assert!(!is(chains, &["a", "b", "qsort", "main"], None));
        assert!(!is(chains, &["a", "b", "b", "main"], None));
        assert!(!is(chains, &["a", "b", "b", "qsort", "c", "main"], None));
        assert!(!is(chains, &["a", "b", "b", "qsort", "main", "main"], None));
        assert!(!is(chains, &["a", "b", "b", "qsort"], None));
        assert!(!is(chains, &["a", "b", "b", "qsort", "main"], Some("gone")));
        assert!(is(chains, &["c", "?", "d"], None));
        assert!(!is(chains, &["c", "x", "d"], None));
        assert!(is(chains, &["e"], Some("gone")));
        assert!(!is(chains, &["e"], None));
        assert!(!is(chains, &["e"], Some("lost")));
    }
}
