//! Reading and steering what the programs keep: the recording state, the books, the counters, the events.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use tracer_common::{
    counters::Counter,
    wire::{
        Event, LiveBlock, LiveKey, ReturnSlot, STACK_NOT_STORED, SiteCalls, Stack, StackTotals,
        State,
    },
};

use super::{Kernel, KernelError, SiteOwner, load::map_fd, sys};

/// Entries per system call when a table is read: 64 Ki live blocks are 2.5 MiB.
const LIVE_CHUNK: usize = 64 * 1024;
/// 1,024 stacks are 1 MiB.
const STACKS_CHUNK: usize = 1024;

impl Kernel {
    /// Lets the programs record, or makes them pass every call by. Blocks and totals agree with each other once
    /// the programs that run have ended, a few microseconds later.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn set_recording(&mut self, recording: bool) -> Result<(), KernelError> {
        let execs = self.state()?.execs;
        let map = self
            .ebpf
            .map_mut("STATE")
            .ok_or(KernelError::Missing("STATE"))?;
        let mut state: Array<_, [u32; 2]> = map.try_into().map_err(failed("write", "STATE"))?;
        state
            .set(0, [u32::from(recording), execs], 0)
            .map_err(failed("write", "STATE"))
    }

    /// The recording state.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn state(&self) -> Result<State, KernelError> {
        let map = self
            .ebpf
            .map("STATE")
            .ok_or(KernelError::Missing("STATE"))?;
        let state: Array<_, [u32; 2]> = map.try_into().map_err(failed("read", "STATE"))?;
        let [recording, execs] = state.get(&0, 0).map_err(failed("read", "STATE"))?;
        Ok(State { recording, execs })
    }

    /// Makes the entry that takes allocations whose stack finds no room.
    pub(super) fn prepare_totals(&mut self) -> Result<(), KernelError> {
        let map = self
            .ebpf
            .map_mut("TOTALS")
            .ok_or(KernelError::Missing("TOTALS"))?;
        let mut totals: HashMap<_, u64, [u64; 4]> =
            map.try_into().map_err(failed("write", "TOTALS"))?;
        totals
            .insert(STACK_NOT_STORED, [0; 4], 0)
            .map_err(failed("write", "TOTALS"))
    }

    /// What each stack allocated, by stack id.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn for_each_total(&self, visit: impl FnMut(&u64, &StackTotals)) -> Result<(), KernelError> {
        sys::for_each_entry(self.fd("TOTALS")?, LIVE_CHUNK, visit).map_err(failed("read", "TOTALS"))
    }

    /// The frames of each stack, by stack id.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn for_each_stack(&self, visit: impl FnMut(&u64, &Stack)) -> Result<(), KernelError> {
        sys::for_each_entry(self.fd("STACKS")?, STACKS_CHUNK, visit)
            .map_err(failed("read", "STACKS"))
    }

    /// Every live block.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn for_each_live(
        &self,
        visit: impl FnMut(&LiveKey, &LiveBlock),
    ) -> Result<(), KernelError> {
        sys::for_each_entry(self.fd("LIVE")?, LIVE_CHUNK, visit).map_err(failed("read", "LIVE"))
    }

    /// A counter's value, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64, KernelError> {
        let map = self
            .ebpf
            .map("STATS")
            .ok_or(KernelError::Missing("STATS"))?;
        let stats: PerCpuArray<_, u64> = map.try_into().map_err(failed("read", "STATS"))?;
        let values = stats
            .get(&(counter as u32), 0)
            .map_err(failed("read", "STATS"))?;
        Ok(values.iter().sum())
    }

    /// The hits of every probe site, with whose they are.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn site_calls(&self) -> Result<Vec<(SiteOwner, SiteCalls)>, KernelError> {
        let map = self
            .ebpf
            .map("SITES")
            .ok_or(KernelError::Missing("SITES"))?;
        let calls: PerCpuArray<_, [u64; 2]> = map.try_into().map_err(failed("read", "SITES"))?;
        (0_u32..)
            .zip(&self.sites)
            .map(|(number, owner)| {
                let values = calls.get(&number, 0).map_err(failed("read", "SITES"))?;
                let sum = values
                    .iter()
                    .fold(SiteCalls::default(), |sum, cpu| SiteCalls {
                        enters: sum.enters + cpu[0],
                        exits: sum.exits + cpu[1],
                    });
                Ok((*owner, sum))
            })
            .collect()
    }

    /// Takes the open end of the event buffer.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn take_events(&mut self) -> Result<Events, KernelError> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or(KernelError::Missing("EVENTS"))?;
        let ring = RingBuf::try_from(map).map_err(failed("read", "EVENTS"))?;
        Ok(Events(ring))
    }

    /// Takes the open end of the buffer of return addresses to put back.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn take_returns(&mut self) -> Result<Returns, KernelError> {
        let map = self
            .ebpf
            .take_map("RETURNS")
            .ok_or(KernelError::Missing("RETURNS"))?;
        let ring = RingBuf::try_from(map).map_err(failed("read", "RETURNS"))?;
        Ok(Returns(ring))
    }

    pub(super) fn fd(&self, map: &'static str) -> Result<BorrowedFd<'_>, KernelError> {
        self.ebpf
            .map(map)
            .and_then(map_fd)
            .ok_or(KernelError::Missing(map))
    }
}

/// Rare events of the target. Readable when one waits.
pub struct Events(RingBuf<MapData>);

impl Events {
    /// The next event, if one waits. Bytes of another length are no event of ours and are passed over.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.0.next()?;
            if let Ok(event) = Event::from_bytes(&item) {
                return Some(event);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Return addresses that threads wait for to be put back. Readable when one waits.
pub struct Returns(RingBuf<MapData>);

impl Returns {
    /// The next one, if one waits.
    pub fn next_return(&mut self) -> Option<ReturnSlot> {
        loop {
            let item = self.0.next()?;
            if let Ok(slot) = ReturnSlot::from_bytes(&item) {
                return Some(slot);
            }
        }
    }
}

impl AsFd for Returns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(super) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
    map: &'static str,
) -> impl Fn(E) -> KernelError {
    move |error| KernelError::Map {
        action,
        map,
        cause: io::Error::other(error),
    }
}
