//! What a check found, and the sheet of paper that findings are written on.

use std::io::{self, Write};

use crate::report::units::plural;

/// Columns of a line.
const WIDTH: usize = 100;
/// Column at which the text of a finding begins.
const TEXT_COLUMN: usize = 30;
/// Characters that a subject takes.
const SUBJECT_WIDTH: usize = 20;

/// What a finding means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// All is well.
    Ok,
    /// A run works, but for what the finding says.
    Warn,
    /// A run does not work.
    Fail,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: Status,
    /// What was checked. Harmless to print.
    subject: String,
    /// What was found. Harmless to print.
    found: String,
    /// How to change it.
    remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            subject: subject.into(),
            found: found.into(),
            remedy: None,
        }
    }

    /// A run works with less.
    pub(super) fn warn(
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warn,
            remedy: Some(remedy.into()),
            ..Self::ok(subject, found)
        }
    }

    /// A run works with less, and nothing can be done about it.
    pub(super) fn lack(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            ..Self::ok(subject, found)
        }
    }

    /// A run does not work.
    pub(super) fn fail(
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Fail,
            remedy: Some(remedy.into()),
            ..Self::ok(subject, found)
        }
    }
}

/// Where findings are written, and counted.
pub(super) struct Sheet<W> {
    out: W,
    /// The remedy of the findings written last, which is written once behind all that share it.
    remedy: Option<String>,
    checks: u64,
    warnings: u64,
    failures: u64,
}

impl<W: Write> Sheet<W> {
    /// An empty sheet.
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            remedy: None,
            checks: 0,
            warnings: 0,
            failures: 0,
        }
    }

    /// Begins a section.
    pub(super) fn section(&mut self, title: &str) -> io::Result<()> {
        self.settle()?;
        if self.checks > 0 {
            writeln!(self.out)?;
        }
        writeln!(self.out, "{title}")
    }

    /// Writes a finding. How to change it follows on lines of its own, when the next finding has another remedy.
    pub(super) fn tell(&mut self, finding: &Finding) -> io::Result<()> {
        if self.remedy != finding.remedy {
            self.settle()?;
        }
        let Finding {
            status,
            subject,
            found,
            remedy,
        } = finding;
        self.checks += 1;
        let status = match status {
            Status::Ok => "ok",
            Status::Warn => {
                self.warnings += 1;
                "warn"
            }
            Status::Fail => {
                self.failures += 1;
                "fail"
            }
        };
        let lead = format!("  {status:<4}  {subject:<SUBJECT_WIDTH$}");
        self.text(&lead, found)?;
        self.remedy.clone_from(remedy);
        Ok(())
    }

    /// Writes the remedy that is due.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        match self.remedy.take() {
            Some(remedy) => self.text("", &format!("to fix: {remedy}")),
            None => Ok(()),
        }
    }

    /// Writes a line as it is.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.settle()?;
        writeln!(self.out, "{}", line.trim_end())
    }

    /// Writes the sums.
    pub(super) fn sum(&mut self) -> io::Result<()> {
        self.settle()?;
        let Self {
            checks,
            warnings,
            failures,
            ..
        } = *self;
        writeln!(
            self.out,
            "\n{}: {} ok, {}, {failures} failed",
            plural(checks, "check"),
            checks - warnings - failures,
            plural(warnings, "warning"),
        )?;
        self.out.flush()
    }

    /// Whether a check failed.
    pub(super) const fn failed(&self) -> bool {
        self.failures > 0
    }

    fn text(&mut self, lead: &str, text: &str) -> io::Result<()> {
        let mut lead = lead;
        for line in wrapped(text, WIDTH - TEXT_COLUMN) {
            writeln!(self.out, "{lead:<TEXT_COLUMN$}{line}")?;
            lead = "";
        }
        Ok(())
    }
}

/// The text in lines of at most `width` characters, broken at spaces. A longer word has a line to itself.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        let mut length = 0;
        for word in paragraph.split_whitespace() {
            let added = word.chars().count();
            if length > 0 && length + 1 + added > width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += added;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(findings: &[Finding]) -> String {
        let mut out = Vec::new();
        let mut sheet = Sheet::new(&mut out);
        sheet.section("Machine").expect("a section");
        for finding in findings {
            sheet.tell(finding).expect("a finding");
        }
        sheet.sum().expect("the sums");
        String::from_utf8(out).expect("text")
    }

    /// Make sure that findings are aligned, that only those that are not ok say how to fix it, and that all are
    /// counted.
    #[test]
    fn sheet() {
        let text = written(&[
            Finding::ok("architecture", "x86_64"),
            Finding::warn("open files", "256", "ulimit -n 1024"),
            Finding::fail("CAP_BPF", "missing", "run it with sudo"),
        ]);
        assert_eq!(
            text,
            "Machine\n  \
               ok    architecture          x86_64\n  \
               warn  open files            256\n                              \
                                           to fix: ulimit -n 1024\n  \
               fail  CAP_BPF               missing\n                              \
                                           to fix: run it with sudo\n\n\
             3 checks: 1 ok, 1 warning, 1 failed\n"
        );
    }

    /// Make sure that a remedy that several findings share is told once, behind the last of them.
    #[test]
    fn shared_remedies() {
        let text = written(&[
            Finding::fail("CAP_BPF", "missing", "run it with sudo"),
            Finding::fail("CAP_PERFMON", "missing", "run it with sudo"),
            Finding::lack("uprobe_multi", "refused"),
        ]);
        let at = |part: &str| text.find(part).expect(part);
        assert_eq!(text.matches("to fix").count(), 1);
        assert!(at("CAP_PERFMON") < at("to fix") && at("to fix") < at("uprobe_multi"));
    }

    /// Make sure that long texts stay within the width, and lose nothing.
    #[test]
    fn long_texts() {
        let words = "several words of a long sentence ".repeat(20);
        let text = written(&[Finding::ok("subject", words.as_str())]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(text.matches("sentence").count(), 20);
        assert_eq!(wrapped("a bcdefgh i", 4), ["a", "bcdefgh", "i"]);
        assert_eq!(wrapped("one\ntwo", 80), ["one", "two"]);
    }
}
