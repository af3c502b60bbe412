//! The collector of memtrace: finds the allocator of a process, attaches the BPF programs, symbolizes the
//! surviving stacks and reports them.

pub mod cli;
pub mod elf;
pub mod files;
pub mod kernel;
pub mod report;
pub mod session;
pub mod symbolize;
pub mod target;
