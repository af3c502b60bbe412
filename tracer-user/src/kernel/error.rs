//! What can fail between memtrace and the kernel.

use std::io;

/// A failure to load, attach or read BPF programs and maps.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The embedded object and this binary disagree about the wire types.
    #[error(
        "the embedded BPF object has ABI {found:?}, this memtrace needs {expected}: rebuild with `cargo xtask ebpf`"
    )]
    Abi {
        /// Version of this binary.
        expected: u32,
        /// Version in the object.
        found: Option<u32>,
    },
    /// The object could not be loaded at all.
    #[error("cannot load the BPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// aya could not load or attach a program.
    #[error("cannot {action} BPF program {program}: {cause}")]
    Program {
        /// `load` or `attach`.
        action: &'static str,
        /// The program's name.
        program: &'static str,
        /// The cause.
        cause: aya::programs::ProgramError,
    },
    /// The kernel refused a program or a link of ours.
    #[error("cannot {action} BPF program {program}: {cause}")]
    System {
        /// `load` or `attach`.
        action: &'static str,
        /// The program's name.
        program: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The object lacks a program or a map: it is not ours.
    #[error("the BPF object has no {0}")]
    Missing(&'static str),
    /// The object could not be relocated.
    #[error("cannot relocate the BPF object: {0}")]
    Relocate(String),
    /// A map could not be read or written.
    #[error("cannot {action} BPF map {map}: {cause}")]
    Map {
        /// `read` or `write`.
        action: &'static str,
        /// The map's name.
        map: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The probes of an object could not be attached.
    #[error("cannot probe {object}: {cause}")]
    Attach {
        /// The object's path as the target sees it.
        object: String,
        /// The cause.
        cause: io::Error,
    },
    /// There are more functions to probe than the counters have room for.
    #[error("more than {0} functions to probe")]
    TooManySites(u32),
}
