//! The course of most tests: a fixture works under memtrace, and both say what they counted.

use std::{ffi::OsStr, path::Path, process::Command};

use crate::{
    books::Books,
    memtrace::{Ended, Memtrace},
    needs::{self, Missing},
    report::{Comparison, Report},
    target::Target,
};

/// What both sides counted.
#[derive(Debug)]
pub struct Traced {
    /// The fixture's own count.
    pub books: Books,
    /// memtrace's report.
    pub report: Report,
    /// How memtrace ended.
    pub ended: Ended,
}

impl Traced {
    /// Their comparison.
    pub fn compare(&self) -> Comparison<'_> {
        Comparison::of(&self.books, &self.report)
    }

    /// Makes sure that the first allocator of the report is of this kind.
    ///
    /// # Panics
    ///
    /// When it is another.
    pub fn assert_allocator(&self, kind: &str) {
        assert!(
            self.report
                .allocator
                .iter()
                .any(|allocator| allocator.kind == kind),
            "no {kind} among {:?}",
            self.report.allocator
        );
    }
}

/// Starts a fixture, traces its work, stops memtrace, lets the fixture end well.
///
/// # Panics
///
/// When any of that fails.
pub fn trace<S: AsRef<OsStr>>(command: &mut Command, options: &[S]) -> Traced {
    let mut target = Target::start(command);
    let memtrace = Memtrace::on(target.pid(), options);
    target.go();
    let books = target.books();
    let ended = memtrace.stop();
    let report = ended.report();
    assert_eq!(report.target.pid, target.pid(), "the report's target");
    target.end();
    Traced {
        books,
        report,
        ended,
    }
}

/// No options for memtrace.
pub const PLAIN: [&str; 0] = [];

/// An allocator that fixtures run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// The libc's own.
    Glibc,
    /// Debian's libjemalloc2, preloaded.
    Jemalloc,
    /// Debian's libtcmalloc-minimal4, preloaded.
    Tcmalloc,
    /// Debian's libmimalloc2.0, preloaded.
    Mimalloc,
}

impl Allocator {
    /// The name in a report.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Jemalloc => "jemalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Mimalloc => "mimalloc",
        }
    }

    /// The shared object to preload.
    #[must_use]
    pub const fn library(self) -> Option<&'static str> {
        match self {
            Self::Glibc => None,
            Self::Jemalloc => Some("libjemalloc.so.2"),
            Self::Tcmalloc => Some("libtcmalloc_minimal.so.4"),
            Self::Mimalloc => Some("libmimalloc.so.2"),
        }
    }

    /// A command that runs `program` on this allocator.
    ///
    /// # Errors
    ///
    /// When the allocator is not installed.
    pub fn command(self, program: &Path) -> Result<Command, Missing> {
        let mut command = Command::new(program);
        if let Some(library) = self.library() {
            command.env("LD_PRELOAD", needs::library(library)?);
        }
        Ok(command)
    }
}
