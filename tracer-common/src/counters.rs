//! Named counters of the BPF side: what happened that a report must tell.

/// How a counter is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// Something was not recorded, or recorded less exactly than it should be.
    Loss,
    /// Ordinary behaviour of the target that explains the numbers.
    Note,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $index:literal, $kind:ident, $name:literal;)+) => {
        /// A counter's place in the `STATS` map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant = $index,)+ }

        impl Counter {
            /// Every counter, in the order of the indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Number of counters: the size of the `STATS` map.
            #[expect(clippy::cast_possible_truncation, reason = "a handful of counters")]
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The counter's name in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the counter counts, in one sentence.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }

            /// Whether a value other than zero means that something was lost.
            #[must_use]
            pub const fn kind(self) -> CounterKind {
                match self { $(Self::$variant => CounterKind::$kind,)+ }
            }
        }
    };
}

counters! {
    /// allocations not tracked because the table of live blocks was full (raise --max-live)
    LiveFull = 0, Loss, "live_table_full";
    /// bytes of the allocations not tracked because the table of live blocks was full
    LiveFullBytes = 1, Loss, "live_table_full_bytes";
    /// allocations not tracked because the kernel had no memory ready for the table of live blocks
    LiveNoMemory = 2, Loss, "live_table_no_memory";
    /// bytes of the allocations not tracked because the kernel had no memory ready
    LiveNoMemoryBytes = 3, Loss, "live_table_no_memory_bytes";
    /// allocations booked under `[stack not stored]` because the table of stacks was full
    StackTableFull = 4, Loss, "stack_table_full";
    /// calls not seen because the table of threads was full
    ThreadTableFull = 5, Loss, "thread_table_full";
    /// calls whose return was not seen (longjmp, an exception, or a dropped return probe)
    ReturnLost = 6, Loss, "return_not_seen";
    /// blocks handed out again without a release in between that was seen
    ReleaseMissed = 7, Loss, "release_not_seen";
    /// addresses that a call stored in the target and that could not be read from the target's memory
    OutUnreadable = 8, Loss, "result_unreadable";
    /// releases of blocks that were not tracked: older than the attach, or dropped for a cause above
    FreeUnseen = 9, Note, "free_of_untracked_block";
    /// calls that returned no memory
    AllocFailed = 10, Note, "allocation_failed";
    /// calls made by the allocator itself inside a traced call, not counted again
    Nested = 11, Note, "nested_call";
    /// calls made before the start or after the end of the recording
    NotRecording = 12, Note, "call_while_not_recording";
    /// allocations passed by because they are smaller than --min-size
    TooSmall = 13, Note, "below_min_size";
    /// calls that a C++ exception left, whose return address was put back for the unwinder
    LeftByException = 14, Note, "left_by_exception";
    /// calls that a C++ exception left before its return address could be put back
    ExceptionNotHelped = 15, Loss, "exception_not_helped";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that the index of each counter is its position, so that the map has no holes.
    #[test]
    fn indices_are_dense() {
        for (position, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, position, "{counter:?}");
        }
    }
}
