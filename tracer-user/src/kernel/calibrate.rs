//! What a trap costs on this machine: measured on functions of memtrace itself, with a program that does nothing.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    features::{Backend, link_nothing, nothing_program},
    sys::MultiAttach,
};

/// Time that a hit of a probe takes from the target, without the program that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapCost {
    /// At an entry whose instruction the kernel emulates.
    pub emulated: Duration,
    /// At an entry whose instruction the kernel single-steps.
    pub stepped: Duration,
    /// At a return, on top of the entry.
    pub returned: Duration,
}

/// Starts with an instruction that the kernel emulates.
#[unsafe(naked)]
extern "C" fn starts_with_push() {
    core::arch::naked_asm!("push rbp", "pop rbp", "ret")
}

/// Starts with an instruction that the kernel single-steps.
#[unsafe(naked)]
extern "C" fn starts_with_mov() {
    core::arch::naked_asm!("mov rax, rdi", "ret")
}

/// Address of a function of memtrace that a probe can be tried on.
#[must_use]
pub fn trial_address() -> u64 {
    starts_with_push as *const () as u64
}

/// Measures, for about 50 ms. `file_offset` turns an address of memtrace itself into an offset in its executable.
///
/// # Errors
///
/// When the kernel lacks links to many points (before Linux 6.6), or refuses one.
pub fn measure(backend: Backend, file_offset: impl Fn(u64) -> Option<u64>) -> io::Result<TrapCost> {
    const HITS: u32 = 400;
    const STEPPED_HITS: u32 = 100;
    let attach = match backend {
        Backend::Session => MultiAttach::Session,
        Backend::Multi => MultiAttach::Multi,
        Backend::PerfEvent => return Err(io::ErrorKind::Unsupported.into()),
    };
    let offset = |function: extern "C" fn()| {
        file_offset(function as *const () as u64)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let push = offset(starts_with_push)?;
    let mov = offset(starts_with_mov)?;
    let entry_program = nothing_program(MultiAttach::Multi)?;
    let idle = per_call(starts_with_push, HITS);
    let timed = |function, hits, link: io::Result<_>| {
        let link = link?;
        let time = per_call(function, hits).saturating_sub(idle);
        drop(link);
        io::Result::Ok(time)
    };
    let emulated = timed(
        starts_with_push,
        HITS,
        link_nothing(&entry_program, MultiAttach::Multi, push, false),
    )?;
    let stepped = timed(
        starts_with_mov,
        STEPPED_HITS,
        link_nothing(&entry_program, MultiAttach::Multi, mov, false),
    )?;
    let return_program = nothing_program(attach)?;
    let both = timed(
        starts_with_push,
        HITS,
        link_nothing(&return_program, attach, push, attach == MultiAttach::Multi),
    )?;
    Ok(TrapCost {
        emulated,
        stepped,
        returned: both.saturating_sub(emulated),
    })
}

/// Time of one call: the median of several rounds, since the machine is shared with others.
fn per_call(function: extern "C" fn(), calls: u32) -> Duration {
    const ROUNDS: usize = 9;
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(function)();
        }
        *round = start.elapsed() / calls;
    }
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}
