//! What a fixture counted itself.

use std::{collections::BTreeMap, ops::AddAssign};

use serde::Deserialize;

/// Bytes and blocks, live and in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Bytes live.
    pub live_bytes: u64,
    /// Blocks live.
    pub live_count: u64,
    /// Bytes allocated since the start.
    pub total_bytes: u64,
    /// Blocks allocated since the start.
    pub total_count: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            live_bytes,
            live_count,
            total_bytes,
            total_count,
        } = other;
        self.live_bytes += live_bytes;
        self.live_count += live_count;
        self.total_bytes += total_bytes;
        self.total_count += total_count;
    }
}

/// A fixture's books, as it prints them.
#[derive(Clone, Debug, Deserialize)]
pub struct Books {
    /// A number of the fixture's own.
    pub extra: u64,
    /// Counts by the name of the call site.
    pub sites: BTreeMap<String, Counts>,
}

impl Books {
    /// Reads the line that a fixture prints.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("books: {error} in {line}"))
    }

    /// Sum over all sites.
    #[must_use]
    pub fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.sites.values() {
            sum += *counts;
        }
        sum
    }
}
