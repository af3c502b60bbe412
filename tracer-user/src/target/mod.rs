//! A process as `/proc` shows it: its mappings, its allocators, and where to probe them.
//!
//! Everything read here comes from an untrusted process: sizes are bounded and paths stay inside its root.

mod catalogue;
mod code;
pub mod discovery;
mod error;
pub mod loader;
pub mod maps;
mod objects;
mod process;
mod reason;
mod scan;
mod stat;
pub mod user;
mod user_match;

#[cfg(test)]
mod on_real_objects;

use std::path::PathBuf;

use tracer_common::call::CallShape;

pub use self::{
    discovery::{Discovery, Unwinder},
    error::TargetError,
    objects::{FileIdentity, OpenObject, open_mapped},
    process::Process,
    stat::{Stat, Status},
};

/// Which implementation of malloc an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllocatorKind {
    /// The GNU C library.
    Glibc,
    /// The musl C library.
    Musl,
    /// jemalloc, with or without a prefix.
    Jemalloc,
    /// gperftools' or Google's tcmalloc.
    Tcmalloc,
    /// Microsoft's mimalloc.
    Mimalloc,
    /// Microsoft's snmalloc.
    Snmalloc,
    /// Functions that the user named.
    User,
    /// Some other implementation of `malloc`.
    Other,
}

impl AllocatorKind {
    /// The kind in a word, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Jemalloc => "jemalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Mimalloc => "mimalloc",
            Self::Snmalloc => "snmalloc",
            Self::User => "user",
            Self::Other => "other",
        }
    }
}

/// An object of the target that serves allocations, with the functions to probe.
#[derive(Clone, Debug)]
pub struct Allocator {
    /// The object's path as the target sees it.
    pub object: String,
    /// Which implementation it holds.
    pub kind: AllocatorKind,
    /// Why memtrace takes it for an allocator of this process, in one sentence.
    pub reason: String,
    /// A path through which the kernel reaches exactly the mapped inode (`/proc/PID/map_files/…`).
    pub attach_path: PathBuf,
    /// Which file it is, whatever paths lead to it.
    pub identity: FileIdentity,
    /// The functions to probe, releases first.
    pub functions: Vec<Function>,
    /// Functions that cannot be probed, each with the reason.
    pub unprobed: Vec<String>,
}

/// A function of an allocator and the instruction to probe it at.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its symbol.
    pub name: String,
    /// Other symbols for the same code.
    pub aliases: Vec<String>,
    /// How it takes its arguments, as they lie in the registers at the site.
    pub shape: CallShape,
    /// Where to put the probe.
    pub site: Site,
}

impl Function {
    /// Whether it is one of C++'s operators that throw when there is no memory.
    #[must_use]
    pub fn may_throw(&self) -> bool {
        const THROWING: [&str; 5] = ["_Znwm", "_Znam", "tc_new", "mi_new", "__size_returning_new"];
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .any(|name| {
                THROWING.iter().any(|throwing| name.starts_with(throwing))
                    && !name.contains("nothrow")
            })
    }
}

/// The instruction that a probe replaces with a breakpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Offset of the function's first instruction in the file, in bytes.
    pub entry_offset: u64,
    /// Offset of the probed instruction in the file, in bytes.
    pub file_offset: u64,
    /// The probed instruction, disassembled.
    pub instruction: String,
    /// Whether the kernel emulates the instruction, so that one trap is enough.
    pub emulated: bool,
}
