//! What a tracing run found: plain values, no presentation.

use std::{sync::Arc, time::Duration};

use tracer_common::{counters::Counter, stop::StopReason, wire::STACK_NOT_STORED};

/// Everything that a report says.
#[derive(Clone, Debug)]
pub struct Report {
    /// The traced process.
    pub target: TargetInfo,
    /// The allocators that were probed.
    pub allocators: Vec<AllocatorInfo>,
    /// How long calls were recorded.
    pub duration: Duration,
    /// Why the recording ended, in one sentence.
    pub end: String,
    /// Sums over all stacks.
    pub totals: Totals,
    /// Every stack that passed the filters, in the order asked for.
    pub stacks: Vec<StackRow>,
    /// Counters that are not zero, losses and notes.
    pub counters: Vec<(Counter, u64)>,
    /// Other sentences that the reader must know: warnings of the run.
    pub warnings: Vec<String>,
    /// What the tracing cost the target.
    pub cost: Cost,
}

/// The traced process.
#[derive(Clone, Debug)]
pub struct TargetInfo {
    /// Process id as memtrace sees it.
    pub pid: u32,
    /// The process's name.
    pub comm: String,
    /// Path of its executable, in its own root.
    pub exe: String,
    /// Resident set at the end, in bytes, where it could be read.
    pub rss_bytes: Option<u64>,
    /// When the recording started, as `YYYY-MM-DDTHH:MM:SSZ`.
    pub started: String,
}

/// An allocator that was probed.
#[derive(Clone, Debug)]
pub struct AllocatorInfo {
    /// The object's path as the target sees it.
    pub object: String,
    /// `glibc`, `musl`, `jemalloc`, `tcmalloc`, `mimalloc`, `snmalloc`, `user` or `other`.
    pub kind: &'static str,
    /// Why it was taken for an allocator of this process.
    pub reason: String,
    /// Probed functions.
    pub functions: usize,
    /// Those that the kernel must single-step, which costs more.
    pub single_stepped: usize,
    /// Calls seen: of functions that allocate, and of functions that release.
    pub calls: Calls,
}

/// Calls seen by probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of functions that allocate or resize.
    pub allocs: u64,
    /// Of functions that release.
    pub frees: u64,
}

/// Sums over all stacks, before any filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Distinct stacks.
    pub stacks: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
    /// Blocks live at the end.
    pub live_count: u64,
    /// Bytes allocated while recording.
    pub total_bytes: u64,
    /// Blocks allocated while recording.
    pub total_count: u64,
}

/// A stack and what it allocated.
#[derive(Clone, Debug)]
pub struct StackRow {
    /// Hash of the stack's addresses.
    pub id: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
    /// Blocks live at the end.
    pub live_count: u64,
    /// Bytes allocated while recording.
    pub total_bytes: u64,
    /// Blocks allocated while recording.
    pub total_count: u64,
    /// Age of the oldest live block; `None` when none lives.
    pub oldest: Option<Duration>,
    /// Frames from the leaf (the allocator's caller) to the root.
    pub frames: Vec<Frame>,
    /// Why the stack ended.
    pub stop: StopReason,
}

/// One frame of a stack. Names are shared: a report has far more frames than names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Demangled name; `None` where no symbol covers the address.
    pub function: Option<Arc<str>>,
    /// Path of the object in the target's root, or a name like `[vdso]`; `None` where nothing was mapped.
    pub module: Option<Arc<str>>,
    /// Offset in the object's file, or the address itself where `module` is `None`.
    pub offset: u64,
    /// Source file, where debug information gives it.
    pub file: Option<Arc<str>>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// Whether the compiler inlined this function into the next frame.
    pub inlined: bool,
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A function of an object file.
    Native,
    /// A function that the compiler inlined into another one.
    Inlined,
    /// Code that was compiled at run time.
    Jit,
}

impl FrameKind {
    /// The kind in a word, for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Inlined => "inlined",
            Self::Jit => "jit",
        }
    }
}

impl Frame {
    /// Where the frame comes from.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        // Executable memory that belongs to no file, with a name that the process gave it or without.
        let anonymous = |module: &str| module.starts_with("[anon");
        if self.inlined {
            FrameKind::Inlined
        } else if self.module.as_deref().is_some_and(anonymous) {
            FrameKind::Jit
        } else {
            FrameKind::Native
        }
    }
}

/// What the tracing cost the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Entries and returns of probed functions.
    pub probe_hits: u64,
    /// Time in the BPF programs, as the kernel measured it on a share of the run, scaled to all hits; `None` where
    /// nothing ran while it measured.
    pub bpf: Option<Duration>,
    /// Time for the traps, as calibrated on memtrace itself, for all hits; `None` where that was not possible.
    pub traps: Option<Duration>,
    /// CPU time of the target during the recording, tracing included.
    pub target_cpu: Duration,
    /// CPU time of memtrace itself.
    pub collector_cpu: Duration,
    /// Largest resident set of memtrace itself, in bytes.
    pub collector_peak_bytes: u64,
}

impl Cost {
    /// Time that the tracing added to the target; `None` where a part of it is not known.
    #[must_use]
    pub fn added(&self) -> Option<Duration> {
        Some(self.bpf? + self.traps?)
    }

    /// The added time in percent of what the target would have used without it; `None` where that is not known.
    #[must_use]
    pub fn overhead_percent(&self) -> Option<f64> {
        let added = self.added()?;
        let own = self.target_cpu.checked_sub(added)?;
        (!own.is_zero()).then(|| added.as_secs_f64() / own.as_secs_f64() * 100.0)
    }
}

impl StackRow {
    /// What stands in place of the frames that are missing at the root, if some are.
    #[must_use]
    pub fn missing_root(&self) -> Option<String> {
        if self.id == STACK_NOT_STORED {
            Some("[stack not stored]".to_owned())
        } else if self.stop == StopReason::Complete {
            None
        } else {
            Some(format!("[truncated: {}]", self.stop.text()))
        }
    }
}
