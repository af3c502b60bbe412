//! Bounds of the BPF side, each with its reason.

/// Frames kept per stack. 127 is the kernel's own default bound (`kernel.perf_event_max_stack`), and with the
/// header it makes a stack exactly 1 KiB.
pub const MAX_FRAMES: usize = 127;

/// Threads that can be inside the tracer's books at once. A slot is about 2.2 KiB, allocated at a thread's first
/// call and given back when it exits.
pub const MAX_THREADS: u32 = 65_536;

/// Words of a thread's stack that are read at once. A frame of compiled code takes about 8 words, and one read of
/// 1 KiB costs little more than one of 8 bytes.
pub const WINDOW_WORDS: usize = 128;

/// Executable mappings of a process whose code the unwinder knows. A power of two, for the search.
pub const MAX_CODE_MAPPINGS: usize = 4_096;

/// Rules that the unwinder remembers, by address. A power of two; 64 KiB in all, which stay in a CPU's cache.
pub const RULE_CACHE_ENTRIES: usize = 4_096;

/// Unwind tables, one for each object that the process runs code of.
pub const MAX_TABLES: usize = 2_048;

/// Distinct stacks stored. A stack is 1 KiB, allocated when it is first seen.
pub const MAX_STACKS: u32 = 65_536;

/// Live blocks tracked unless the user says otherwise. The table's buckets take 16 bytes each from the start;
/// a block takes about 100 bytes while it lives.
pub const DEFAULT_MAX_LIVE: u32 = 2_097_152;

/// Probe sites with counters of their own. jemalloc has about 40 functions; several allocators may be traced at once.
pub const MAX_SITES: u32 = 1_024;

/// How long a thread whose exception meets a return probe waits for its return address to be put back, at most. The
/// collector needs about 0.1 ms, more on a machine that is overloaded; then the exception goes on, and ends the
/// process.
pub const RETURN_WAIT_NS: u64 = 500_000_000;

/// The collector puts a return address back only this soon after it was asked to: later, the thread might have gone
/// on, and use the memory for something else.
pub const RETURN_ANSWER_NS: u64 = RETURN_WAIT_NS / 2;

/// Bytes of the ring buffer for return addresses to put back. A thread waits for each, so there are never many.
pub const RETURNS_BYTES: u32 = 4 * 1024;

/// Bytes of the ring buffer for rare events (exec, exit, a library loaded).
pub const EVENTS_BYTES: u32 = 64 * 1024;
