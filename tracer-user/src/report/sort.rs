//! The order of stacks in a report.

use std::cmp::Reverse;

use super::StackRow;

/// What stacks are ranked by, largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// Bytes live at the end.
    #[default]
    Live,
    /// Blocks live at the end.
    Count,
    /// Bytes allocated while recording.
    Total,
    /// Age of the oldest live block.
    Age,
}

impl SortKey {
    /// The key in words, for "by …".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Live => "live bytes",
            Self::Count => "live blocks",
            Self::Total => "total bytes",
            Self::Age => "age of the oldest block",
        }
    }
}

/// Sorts by `key`, then by live and total bytes, then by id, so that equal reports have equal orders.
pub fn sort(stacks: &mut [StackRow], key: SortKey) {
    stacks.sort_unstable_by_key(|row| {
        let first = match key {
            SortKey::Live => u128::from(row.live_bytes),
            SortKey::Count => u128::from(row.live_count),
            SortKey::Total => u128::from(row.total_bytes),
            SortKey::Age => row.oldest.map_or(0, |age| age.as_nanos()),
        };
        (Reverse((first, row.live_bytes, row.total_bytes)), row.id)
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::sample;

    fn row(id: u64, live_bytes: u64, live_count: u64, total_bytes: u64, age: u64) -> StackRow {
        StackRow {
            id,
            live_bytes,
            live_count,
            total_bytes,
            oldest: (age > 0).then(|| Duration::from_secs(age)),
            ..sample::empty_row()
        }
    }

    /// Make sure that each key ranks by its own value, and that ties fall back to bytes and then to the id.
    #[test]
    fn orders() {
        let mut rows = [
            row(4, 10, 1, 50, 0),
            row(3, 10, 1, 50, 9),
            row(2, 20, 9, 20, 3),
            row(1, 30, 2, 90, 1),
        ];
        for (key, ids) in [
            (SortKey::Live, [1, 2, 3, 4]),
            (SortKey::Count, [2, 1, 3, 4]),
            (SortKey::Total, [1, 3, 4, 2]),
            (SortKey::Age, [3, 2, 1, 4]),
        ] {
            sort(&mut rows, key);
            assert_eq!(rows.each_ref().map(|row| row.id), ids, "{key:?}");
        }
    }
}
