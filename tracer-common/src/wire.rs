//! Values that cross between the BPF programs and the collector, byte for byte.
//!
//! Every struct is `repr(C)` with its padding spelled out, holds only integers, and has its size asserted.

use crate::limits::{MAX_CODE_MAPPINGS, MAX_FRAMES, RULE_CACHE_ENTRIES, WINDOW_WORDS};

/// Key of the `LIVE` map: a block of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LiveKey {
    /// Address of the block in the target.
    pub address: u64,
    /// Process, in the initial pid namespace.
    pub tgid: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Value of the `LIVE` map: a block that was allocated and not yet released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LiveBlock {
    /// Bytes asked for.
    pub size_bytes: u64,
    /// Hash of the frames of the allocating stack; the key of `STACKS` and `TOTALS`.
    pub stack_id: u64,
    /// `CLOCK_MONOTONIC` when the call returned.
    pub born_ns: u64,
}

/// Value of the `TOTALS` map: what a stack allocated since the attach. Live is allocated less freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StackTotals {
    /// Bytes allocated and tracked.
    pub allocated_bytes: u64,
    /// Blocks allocated and tracked.
    pub allocated_count: u64,
    /// Bytes of those blocks released again.
    pub freed_bytes: u64,
    /// Those blocks released again.
    pub freed_count: u64,
}

/// A stack: return addresses from the leaf to the root, the first being the caller of the allocator.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Stack {
    /// Valid entries of `frames`.
    pub frame_count: u32,
    /// Why the walk ended: a [`crate::stop::StopReason`].
    pub stop: u32,
    /// Return addresses in the target.
    pub frames: [u64; MAX_FRAMES],
}

/// Value of the `THREADS` map: the call that a thread is in, and its scratch memory.
///
/// Uprobe programs can be preempted by one another on a CPU, but never run twice at once in one thread.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ThreadSlot {
    /// Stack pointer at the entry of the outermost pending call; 0 when none is pending.
    pub sp: u64,
    /// Return address of the pending call, read before the return probe replaced it.
    pub return_address: u64,
    /// Cookie of the probe of the pending call.
    pub cookie: u64,
    /// Bytes that the pending call asks for.
    pub size_bytes: u64,
    /// Block that the pending call resizes, or 0.
    pub ptr: u64,
    /// Where the pending call stores its result, or 0.
    pub out: u64,
    /// The block at `ptr`, taken out of `LIVE` while the call runs; meaningful if `old_valid` is 1.
    pub old: LiveBlock,
    /// Stack pointer at the last release.
    pub freed_sp: u64,
    /// Block released last, to tell a release that forwards to another one from two releases.
    pub freed_ptr: u64,
    /// Hash of `stack`.
    pub stack_id: u64,
    /// Whether `old` holds a block.
    pub old_valid: u32,
    /// Always zero.
    pub reserved: u32,
    /// Frames of the pending call.
    pub stack: Stack,
    /// Stack memory of the thread, read ahead of the walk.
    pub window: [u64; WINDOW_WORDS],
}

/// Value of the `SITES` map: how often one probe site was hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SiteCalls {
    /// Hits of the entry.
    pub enters: u64,
    /// Hits of the return.
    pub exits: u64,
}

/// An executable mapping of the target and how to unwind its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CodeMapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Where the object's table begins in the target: its base, moved by the load bias.
    pub origin: u64,
    /// The object's table in `TABLES`, where `kind` says that it has one.
    pub table: u32,
    /// How to unwind: a [`CodeKind`].
    pub kind: u32,
}

/// How the code of a mapping is unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CodeKind {
    /// By the table of its object.
    Table = 0,
    /// By frame pointers: code that was compiled at run time.
    FramePointer = 1,
    /// Not at all: an object without unwind information, or one for whose table there was no room.
    Unknown = 2,
}

/// Value of the `MAPPINGS` map: the executable mappings by rising address. There are two; one is in use while the
/// other is written.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CodeMappings {
    /// Valid entries.
    pub count: u64,
    /// The mappings.
    pub entries: [CodeMapping; MAX_CODE_MAPPINGS],
}

/// Value of the `RULES` map: how the code at an address was found to be unwound, by a hash of the address.
///
/// All threads share it without a lock: see [`CachedRule`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RuleCache {
    /// The rules.
    pub entries: [CachedRule; RULE_CACHE_ENTRIES],
}

/// A remembered rule. Another thread may write one half while this one reads the other, so the key is stored mixed
/// with the row: halves that do not belong together give no key that is asked for.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CachedRule {
    /// The key, exclusive-or the row.
    pub mixed: u64,
    /// The row.
    pub row: u64,
}

/// Value of the `STATE` map, written by both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// 1 while calls are recorded; the collector sets and clears it, an exec of the target clears it.
    pub recording: u32,
    /// Times the target executed another image while it was recorded.
    pub execs: u32,
}

/// A rare event, sent through the `EVENTS` ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// What happened: an [`EventKind`].
    pub kind: u32,
    /// Thread that it happened in.
    pub tid: u32,
    /// `CLOCK_MONOTONIC` when it happened.
    pub at_ns: u64,
}

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// The target executes another image.
    Exec = 1,
    /// The dynamic loader changed the list of loaded objects.
    ObjectsChanged = 2,
}

/// A return address to put back, sent through the `RETURNS` ring buffer while the thread waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReturnSlot {
    /// Where the return address belongs in the target's memory.
    pub address: u64,
    /// The return address.
    pub value: u64,
    /// `CLOCK_MONOTONIC` when the thread began to wait.
    pub asked_ns: u64,
}

/// A value that arrived from the kernel is not what this version of the types says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Bytes that the type takes.
    pub expected_bytes: usize,
    /// Bytes that arrived.
    pub actual_bytes: usize,
}

impl Event {
    /// Decodes an event of the ring buffer.
    ///
    /// # Errors
    ///
    /// When `bytes` is not exactly one event.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let error = WireError {
            expected_bytes: size_of::<Self>(),
            actual_bytes: bytes.len(),
        };
        let bytes: &[u8; 16] = bytes.try_into().map_err(|_| error)?;
        let [k0, k1, k2, k3, t0, t1, t2, t3, at @ ..] = *bytes;
        Ok(Self {
            kind: u32::from_ne_bytes([k0, k1, k2, k3]),
            tid: u32::from_ne_bytes([t0, t1, t2, t3]),
            at_ns: u64::from_ne_bytes(at),
        })
    }
}

impl ReturnSlot {
    /// Decodes an item of the ring buffer.
    ///
    /// # Errors
    ///
    /// When `bytes` is not exactly one item.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let error = WireError {
            expected_bytes: size_of::<Self>(),
            actual_bytes: bytes.len(),
        };
        let (words, rest) = bytes.as_chunks::<8>();
        match words {
            [address, value, asked_ns] if rest.is_empty() => Ok(Self {
                address: u64::from_ne_bytes(*address),
                value: u64::from_ne_bytes(*value),
                asked_ns: u64::from_ne_bytes(*asked_ns),
            }),
            _ => Err(error),
        }
    }
}

/// Stack id of allocations whose stack found no room in `STACKS`.
pub const STACK_NOT_STORED: u64 = 0;

const _: () = {
    assert!(size_of::<LiveKey>() == 16);
    assert!(size_of::<LiveBlock>() == 24);
    assert!(size_of::<StackTotals>() == 32);
    assert!(size_of::<Stack>() == 1024);
    assert!(size_of::<ThreadSlot>() == 104 + 1024 + 1024);
    // The kernel's allocator for map elements ends at a page.
    assert!(size_of::<ThreadSlot>() + size_of::<u32>() + 48 < 4096);
    assert!(size_of::<SiteCalls>() == 16);
    assert!(size_of::<State>() == 8);
    assert!(size_of::<CodeMapping>() == 32);
    assert!(size_of::<CachedRule>() == 16);
    assert!(RULE_CACHE_ENTRIES.is_power_of_two() && MAX_CODE_MAPPINGS.is_power_of_two());
    assert!(size_of::<CodeMappings>() == 8 + 32 * MAX_CODE_MAPPINGS);
    assert!(size_of::<Event>() == 16);
    assert!(size_of::<ReturnSlot>() == 24);
};
