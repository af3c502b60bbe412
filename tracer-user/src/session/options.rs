//! What a run is asked to do, as plain values.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use crate::{
    kernel::{Programs, features::Backend},
    report::SortKey,
    target::user::UserFunctions,
};

/// The process to trace.
#[derive(Clone, Debug)]
pub enum Target {
    /// One that runs already.
    Running(u32),
    /// One to start: the program and its arguments.
    Command(Vec<OsString>),
}

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The process to trace.
    pub target: Target,
    /// How long to record; until a signal or the target's exit where absent.
    pub duration: Option<Duration>,
    /// Live blocks to track at most.
    pub max_live: u32,
    /// Allocations of fewer bytes are passed by.
    pub min_size_bytes: u64,
    /// Live blocks younger than this are left out of the report.
    pub older_than: Duration,
    /// The order of the stacks.
    pub sort: SortKey,
    /// Functions that the user named.
    pub functions: UserFunctions,
    /// Whether to unwind by tables, or to follow frame pointers only.
    pub unwind_by_tables: bool,
    /// Kernel memory for unwind tables, at most, in bytes.
    pub table_memory_bytes: u64,
    /// Where unwind tables are kept between runs; nowhere where absent.
    pub cache_folder: Option<PathBuf>,
    /// Folders of the host that are searched for debug files first.
    pub debug_folders: Vec<PathBuf>,
    /// Servers to fetch debug files from, separated by spaces; none where absent.
    pub debuginfod_urls: Option<String>,
    /// Where fetched debug files are kept.
    pub debuginfod_folder: Option<PathBuf>,
    /// Whether the BPF side writes a log.
    pub log_bpf: bool,
    /// How to attach; the best way that the kernel has where absent.
    pub backend: Option<Backend>,
    /// What runs at the probes.
    pub programs: Programs,
    /// Whether to probe functions at their first instruction even where a cheaper one was found.
    pub at_entry: bool,
}
