//! From the books in the kernel to the rows of a report.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use tracer_common::{
    stack_id::StackHasher,
    stop::StopReason,
    wire::{STACK_NOT_STORED, Stack, StackTotals},
};

use super::clock::monotonic_ns;
use crate::{
    kernel::Kernel,
    report::{StackRow, Totals},
    symbolize::{CodeAddress, Modules, resolve},
};

/// What a stack holds and allocated.
#[derive(Clone, Debug)]
struct Booked {
    live_bytes: u64,
    live_count: u64,
    total_bytes: u64,
    total_count: u64,
    /// When the oldest live block was born, on `CLOCK_MONOTONIC`.
    oldest_ns: Option<u64>,
}

impl Booked {
    fn new(totals: &StackTotals) -> Self {
        Self {
            live_bytes: 0,
            live_count: 0,
            total_bytes: totals.allocated_bytes,
            total_count: totals.allocated_count,
            oldest_ns: None,
        }
    }

    fn merge(&mut self, other: &Self) {
        let Self {
            live_bytes,
            live_count,
            total_bytes,
            total_count,
            oldest_ns,
        } = other;
        self.live_bytes += live_bytes;
        self.live_count += live_count;
        self.total_bytes += total_bytes;
        self.total_count += total_count;
        self.oldest_ns = match (self.oldest_ns, *oldest_ns) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// The addresses of a stack.
struct Frames {
    addresses: Vec<CodeAddress>,
    stop: StopReason,
}

impl Frames {
    fn of(stack: &Stack, modules: &Modules, signal_returns: &mut HashMap<u64, bool>) -> Self {
        let count = (stack.frame_count as usize).min(stack.frames.len());
        let frames = stack.frames.get(..count).unwrap_or_default();
        let mut addresses = Vec::with_capacity(count);
        let mut stop = StopReason::from_u32(stack.stop).unwrap_or(StopReason::Unreadable);
        let mut interrupted = false;
        for frame in frames {
            let address = if interrupted {
                CodeAddress::Instruction(*frame)
            } else {
                CodeAddress::Return(*frame)
            };
            // A walk by frame pointers through code that has none finds data: it ends where no code is.
            if !modules.is_code(address) {
                stop = StopReason::BadReturnAddress;
                break;
            }
            addresses.push(address);
            interrupted = *signal_returns
                .entry(*frame)
                .or_insert_with(|| modules.is_signal_return(*frame));
        }
        Self { addresses, stop }
    }

    fn id(&self) -> u64 {
        self.addresses
            .iter()
            .fold(StackHasher::new(), |hasher, address| {
                hasher.frame(address.get())
            })
            .finish(self.stop)
    }
}

/// The books at one moment.
pub(super) struct Snapshot {
    /// Sums over all stacks.
    pub(super) totals: Totals,
    booked: HashMap<u64, Booked>,
    stacks: HashMap<u64, Frames>,
    now_ns: u64,
}

impl Snapshot {
    /// Reads the books of a run that no longer records. Blocks younger than `older_than` are left out.
    pub(super) fn read(kernel: &Kernel, modules: &Modules, older_than: Duration) -> Result<Self> {
        let now_ns = monotonic_ns();
        let newest =
            now_ns.saturating_sub(u64::try_from(older_than.as_nanos()).unwrap_or(u64::MAX));
        let mut booked: HashMap<u64, Booked> = HashMap::new();
        kernel.for_each_total(|id, totals| {
            if totals.allocated_count != 0 {
                booked.insert(*id, Booked::new(totals));
            }
        })?;
        kernel.for_each_live(|_, block| {
            if block.born_ns > newest && !older_than.is_zero() {
                return;
            }
            let entry = booked
                .entry(block.stack_id)
                .or_insert_with(|| Booked::new(&StackTotals::default()));
            entry.live_bytes += block.size_bytes;
            entry.live_count += 1;
            entry.oldest_ns = Some(
                entry
                    .oldest_ns
                    .map_or(block.born_ns, |oldest| oldest.min(block.born_ns)),
            );
        })?;
        let mut stacks = HashMap::with_capacity(booked.len());
        // Stacks that differ only in what lies beyond the cut are one.
        let mut merged: HashMap<u64, Booked> = HashMap::with_capacity(booked.len());
        let mut signal_returns = HashMap::new();
        kernel.for_each_stack(|id, stack| {
            let Some(booked) = booked.remove(id) else {
                return;
            };
            let frames = Frames::of(stack, modules, &mut signal_returns);
            let id = frames.id();
            merged
                .entry(id)
                .and_modify(|entry| entry.merge(&booked))
                .or_insert(booked);
            stacks.insert(id, frames);
        })?;
        // What is left has no stack: allocations for which there was no room.
        merged.extend(booked);
        let mut totals = Totals::default();
        for entry in merged.values() {
            totals.stacks += 1;
            totals.live_bytes += entry.live_bytes;
            totals.live_count += entry.live_count;
            totals.total_bytes += entry.total_bytes;
            totals.total_count += entry.total_count;
        }
        Ok(Self {
            totals,
            booked: merged,
            stacks,
            now_ns,
        })
    }

    /// The addresses in all stacks.
    pub(super) fn addresses(&self) -> impl Iterator<Item = CodeAddress> {
        self.stacks
            .values()
            .flat_map(|frames| frames.addresses.iter().copied())
    }

    /// Names the frames and makes the rows, in no order.
    pub(super) fn rows(self, modules: &Modules) -> Vec<StackRow> {
        let names = resolve(modules, self.addresses());
        self.booked
            .into_iter()
            .map(|(id, booked)| {
                let frames = self.stacks.get(&id);
                let addresses = frames.map(|frames| frames.addresses.as_slice());
                StackRow {
                    id: if frames.is_some() {
                        id
                    } else {
                        STACK_NOT_STORED
                    },
                    live_bytes: booked.live_bytes,
                    live_count: booked.live_count,
                    total_bytes: booked.total_bytes,
                    total_count: booked.total_count,
                    oldest: booked
                        .oldest_ns
                        .map(|born| Duration::from_nanos(self.now_ns.saturating_sub(born))),
                    frames: names.stack(addresses.unwrap_or_default().iter().copied()),
                    stop: frames.map_or(StopReason::Complete, |frames| frames.stop),
                }
            })
            .collect()
    }
}
