//! Counts tests from what Rust's test programs print; knows no processes.

use std::collections::BTreeMap;

/// What the test programs of a tier reported.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tests that ran and passed, those included that said that they skip.
    finished: u32,
    /// Tests that failed, and test programs that ended without a result.
    pub(crate) failed: u32,
    /// Tests that could not run, each with its reason.
    pub(crate) skipped: BTreeMap<String, String>,
    /// Names of the failed tests.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Takes note of a line that a test program printed.
    pub(crate) fn line(&mut self, program: &str, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.finished += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if let Some(skip) = line.strip_prefix("SKIP ") {
            let (name, reason) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
            self.skipped.insert(name.to_owned(), reason.to_owned());
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(format!("{program}: {name}"));
        }
    }

    /// Takes note of a test program that ended without telling its result.
    pub(crate) fn crashed(&mut self, program: &str, how: &str) {
        self.failed += 1;
        self.failures.push(format!("{program}: {how}"));
    }

    /// Tests that passed.
    pub(crate) fn passed(&self) -> u32 {
        self.finished.saturating_sub(self.skipped())
    }

    /// Tests that could not run.
    pub(crate) fn skipped(&self) -> u32 {
        u32::try_from(self.skipped.len()).unwrap_or(u32::MAX)
    }

    /// Adds the counts of another tier.
    pub(crate) fn add(&mut self, other: Self) {
        let Self {
            finished,
            failed,
            skipped,
            failures,
        } = other;
        self.finished += finished;
        self.failed += failed;
        self.skipped.extend(skipped);
        self.failures.extend(failures);
    }
}

/// The number in `text` that stands right before `word`, or 0.
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default();
    let digits = before.rsplit(' ').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that a skipped test counts as skipped, not as passed, however often it says so.
    #[test]
    fn skips_are_not_passes() {
        let mut tally = Tally::default();
        for line in [
            "SKIP redis: redis-server is not installed",
            "SKIP redis: redis-server is not installed",
            "test glibc::malloc ... FAILED",
            "test result: FAILED. 11 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            tally.line("functions", line);
        }
        assert_eq!((tally.passed(), tally.failed, tally.skipped()), (10, 1, 1));
        assert_eq!(tally.failures, ["functions: glibc::malloc"]);
    }

    /// Make sure that a test program that crashed is a failure.
    #[test]
    fn crash_is_a_failure() {
        let mut tally = Tally::default();
        tally.crashed("attach", "signal: 11");
        let mut sum = Tally::default();
        sum.line("attach", "test result: ok. 3 passed; 0 failed; 0 ignored");
        sum.add(tally);
        assert_eq!((sum.passed(), sum.failed), (3, 1));
    }
}
