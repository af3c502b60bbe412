//! Every map, with its key, its value and its capacity. The collector may raise or lower the capacities.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC},
    btf_maps::{self, ArrayOfMaps},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    counters::Counter,
    limits::{
        DEFAULT_MAX_LIVE, EVENTS_BYTES, MAX_SITES, MAX_STACKS, MAX_TABLES, MAX_THREADS,
        RETURNS_BYTES,
    },
    unwind::search::Chunk,
    wire::{
        CodeMappings, LiveBlock, LiveKey, RuleCache, SiteCalls, Stack, StackTotals, State,
        ThreadSlot,
    },
};

/// Blocks that are live. Not an LRU: a table that forgets silently would make wrong numbers.
#[map]
pub(crate) static LIVE: HashMap<LiveKey, LiveBlock> =
    HashMap::with_max_entries(DEFAULT_MAX_LIVE, BPF_F_NO_PREALLOC);

/// What each stack allocated, by stack id. One entry more than `STACKS`, for `STACK_NOT_STORED`.
#[map]
pub(crate) static TOTALS: HashMap<u64, StackTotals> =
    HashMap::with_max_entries(MAX_STACKS + 1, BPF_F_NO_PREALLOC);

/// Frames by stack id.
#[map]
pub(crate) static STACKS: HashMap<u64, Stack> =
    HashMap::with_max_entries(MAX_STACKS, BPF_F_NO_PREALLOC);

/// The pending call and the scratch memory of each thread, by tid.
#[map]
pub(crate) static THREADS: HashMap<u32, ThreadSlot> =
    HashMap::with_max_entries(MAX_THREADS, BPF_F_NO_PREALLOC);

/// A slot of zeroes: the first value of a thread's slot, which is too large for the BPF stack.
#[map]
pub(crate) static ZERO_SLOT: Array<ThreadSlot> = Array::with_max_entries(1, 0);

/// Counters by [`Counter`].
#[map]
pub(crate) static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Hits by probe site.
#[map]
pub(crate) static SITES: PerCpuArray<SiteCalls> = PerCpuArray::with_max_entries(MAX_SITES, 0);

/// Whether calls are recorded.
#[map]
pub(crate) static STATE: Array<State> = Array::with_max_entries(1, 0);

/// The target's executable mappings, twice.
#[map]
pub(crate) static MAPPINGS: Array<CodeMappings> = Array::with_max_entries(2, 0);

/// How often the mappings were told. Its lowest bit is the entry of `MAPPINGS` that is in use.
#[map]
pub(crate) static MAPPINGS_TOLD: Array<u32> = Array::with_max_entries(1, 0);

/// Rules that were looked up.
#[map]
pub(crate) static RULES: Array<RuleCache> = Array::with_max_entries(1, 0);

/// The unwind table of each object: chunks of the index, then chunks of rows.
#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<btf_maps::Array<Chunk, 1, INNER_MAP>, MAX_TABLES> =
    ArrayOfMaps::new();

/// Lets the inner arrays differ in their number of elements.
const INNER_MAP: usize = BPF_F_INNER_MAP as usize;

/// Return addresses for the collector to put back.
#[map]
pub(crate) static RETURNS: RingBuf = RingBuf::with_byte_size(RETURNS_BYTES, 0);

/// Rare events.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
