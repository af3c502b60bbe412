//! The arguments, as clap sees them.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use tracer_common::limits::DEFAULT_MAX_LIVE;

use super::quantity;

/// Which stacks hold a running process's native memory.
///
/// Records every allocation and release of a process from outside and reports, by stack, what is still live. Nothing
/// is loaded into the process, it is not restarted, and its allocator (glibc, musl, jemalloc, tcmalloc, mimalloc,
/// snmalloc, one in the executable) is found by itself. Blocks older than the start of the recording are not seen.
#[derive(Debug, Parser)]
#[command(
    name = "memtrace",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "memtrace [OPTIONS] -p <PID>\n       memtrace [OPTIONS] -- <CMD>...\n       memtrace doctor [-p <PID>]",
    after_help = "Examples:\n  \
        memtrace -p $(pidof redis-server) -d 30s -o redis.svg\n  \
        memtrace -p 4711 --older-than 1m              what is over a minute old and still lives\n  \
        memtrace -o start.svg -- ./server --port 80   from the first allocation of a command\n  \
        memtrace doctor -p 4711                       what would be probed, and how\n\n\
        Needs root, or the capabilities that `memtrace doctor` lists. The report goes to stdout.\n\
        Exit codes: 0 done, 1 failed on the way, 2 could not begin (nothing was attached); with -- CMD, the command's own."
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) trace: TraceArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check this machine, and show what would be probed in a process.
    ///
    /// Each right and each feature of the kernel is tried, with advice for what fails. With -p, shows for every
    /// function of the process's allocators where its probe goes, on which instruction, and whether the kernel emulates
    /// it (one trap) or must single-step it (two). Each probe is set for a moment and released; nothing is recorded.
    Doctor(DoctorArgs),
}

/// Arguments of `memtrace doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The process to look at. Without it, only the machine is checked.
    #[arg(short, long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    #[command(flatten)]
    pub(super) functions: FunctionArgs,
}

/// Functions that the user names.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "A program's own allocator")]
pub(super) struct FunctionArgs {
    /// A function that allocates: OBJECT:SYMBOL(size=N), arguments counted from 1.
    ///
    /// OBJECT is a file name (libpool.so), a path as the process sees it, or `exe`. `size=1*2` multiplies two
    /// arguments; `out=1` says that the address is stored where argument 1 points and the result is 0 for success.
    /// May be given more than once.
    #[arg(long = "alloc", value_name = "SPEC")]
    pub(super) alloc: Vec<String>,
    /// A function that resizes: OBJECT:SYMBOL(ptr=N,size=N).
    #[arg(long = "realloc", value_name = "SPEC")]
    pub(super) realloc: Vec<String>,
    /// A function that releases: OBJECT:SYMBOL(ptr=N).
    #[arg(long = "free", value_name = "SPEC")]
    pub(super) free: Vec<String>,
}

/// Arguments of a tracing run.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("target").required(true).args(["pid", "run"]))]
pub(super) struct TraceArgs {
    /// The process to trace.
    #[arg(short, long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// Start a command and trace it from its first allocation.
    #[arg(last = true, value_name = "CMD")]
    pub(super) run: Vec<OsString>,
    /// How long to record: 10s, 5m, 1h. Without it, until Ctrl-C or the process's exit.
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    pub(super) duration: Option<Duration>,

    /// Write a flamegraph of the live bytes, for a browser.
    #[arg(short, long, value_name = "FILE.svg", help_heading = "Output")]
    pub(super) output: Option<PathBuf>,
    /// Write folded stacks with live bytes, for other flamegraph tools.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) folded: Option<PathBuf>,
    /// Write the whole report as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// How many stacks to print.
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Output")]
    pub(super) top: usize,
    /// What stacks are ranked by.
    #[arg(long, value_enum, default_value_t = Sort::Live, value_name = "KEY", help_heading = "Output")]
    pub(super) sort: Sort,

    /// Pass by allocations smaller than this: 4096, 64K, 1M. They cost less, and are in no number of the report.
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = quantity::bytes, help_heading = "What counts")]
    pub(super) min_size: u64,
    /// Report only blocks that have lived at least this long at the end: 10s, 5m. Finds leaks.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = quantity::duration, help_heading = "What counts")]
    pub(super) older_than: Duration,
    /// Live blocks to track at most. Further ones are counted as lost.
    ///
    /// The kernel takes 16 bytes for each at once, and about 100 more for each block that lives.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_LIVE, value_parser = clap::value_parser!(u32).range(1..=1 << 30), help_heading = "What counts")]
    pub(super) max_live: u32,

    #[command(flatten)]
    pub(super) functions: FunctionArgs,

    /// How stacks are walked.
    #[arg(long, value_enum, default_value_t = Unwind::Auto, value_name = "HOW", help_heading = "Diagnosis")]
    pub(super) unwind: Unwind,
    /// Kernel memory for unwind tables: 64M, 1G.
    ///
    /// When it is used up, further objects have none and stacks end in them. The executable comes first, then the
    /// allocators, the C library, the C++ library, and the others in the order of their mappings.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = quantity::bytes, help_heading = "What counts")]
    pub(super) table_memory: u64,
    /// Search a folder for debug files, before /usr/lib/debug. May be given more than once.
    ///
    /// It is laid out like /usr/lib/debug (.build-id/xx/yyyy.debug, or the paths of the objects) or flat. A file counts
    /// only if its build id is the object's. Where none is found and `DEBUGINFOD_URLS` is set, those servers are asked;
    /// what they give is kept in `DEBUGINFOD_CACHE_PATH`, or else in memtrace's cache.
    #[arg(long = "debug-dir", value_name = "DIR", help_heading = "What counts")]
    pub(super) debug_folders: Vec<PathBuf>,
    /// Neither read nor write the cache of unwind tables.
    ///
    /// It lies in /var/cache/memtrace, or where the variable `MEMTRACE_CACHE_DIR` says. Debug files are then fetched only
    /// if `DEBUGINFOD_CACHE_PATH` says where to keep them.
    #[arg(long)]
    pub(super) no_cache: bool,

    /// Print the BPF programs' own log on stderr.
    #[arg(long, help_heading = "Diagnosis")]
    pub(super) log_bpf: bool,
    /// Where functions are probed, for benchmarks.
    #[arg(long, value_enum, default_value_t = Sites::Auto, hide = true)]
    pub(super) sites: Sites,
    /// How probes are attached, to try what older kernels need.
    #[arg(long, value_enum, default_value_t = Attach::Auto, hide = true)]
    pub(super) attach: Attach,
    /// What runs at the probes, for benchmarks.
    #[arg(long, value_enum, default_value_t = ProbePrograms::Record, hide = true)]
    pub(super) programs: ProbePrograms,
}

/// What stacks are ranked by.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Sort {
    /// Bytes live at the end.
    Live,
    /// Blocks live at the end.
    Count,
    /// Bytes allocated while recording.
    Total,
    /// Age of the oldest live block.
    Age,
}

/// How stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Unwind {
    /// By the tables that compilers write for exceptions, and by frame pointers in code compiled at run time.
    Auto,
    /// By frame pointers only: for programs and libraries built with them.
    Fp,
}

/// Where functions are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sites {
    /// At an instruction that the kernel emulates, where there is one.
    Auto,
    /// At the first instruction.
    Entry,
}

/// How probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Attach {
    /// In the best way that the kernel has.
    Auto,
    /// By one program for entry and return (Linux 6.13).
    Session,
    /// By one link for many points (Linux 6.6).
    Multi,
    /// By a perf event for each probe.
    PerfEvent,
}

/// What runs at the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProbePrograms {
    /// The programs that keep the books.
    Record,
    /// Programs that do nothing.
    Empty,
}
