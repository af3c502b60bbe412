//! What the BPF programs and the collector agree on: wire types, limits, counters and stop reasons.
//!
//! Nothing here allocates, does I/O or knows aya; it compiles for the BPF target and for the host.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod call;
pub mod counters;
pub mod limits;
pub mod stack_id;
pub mod stop;
pub mod unwind;
pub mod wire;

/// Changes with every change to a wire type or to the meaning of a map.
///
/// The BPF object carries it in `.rodata`, and the collector refuses an object with another value.
pub const ABI_VERSION: u32 = 1;
