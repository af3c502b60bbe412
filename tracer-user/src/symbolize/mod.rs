//! Names for addresses: function, module, source line, inlined callers. The only folder that names blazesym.
//!
//! The files of a process are opened when they are first seen mapped, so that its stacks can be named after it has
//! exited or the files were replaced. Everything read from them is untrusted.

mod demangle;
mod file;
mod modules;
mod resolve;
mod separate;
pub(crate) mod vdso;

pub use modules::{CodeMapping, Modules};
pub use resolve::{Names, resolve};

/// An address of code, with what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodeAddress {
    /// The instruction after a call: the call itself is one byte before, perhaps in another function or line.
    Return(u64),
    /// The instruction itself.
    Instruction(u64),
}

impl CodeAddress {
    /// The address as the stack holds it.
    #[must_use]
    pub const fn get(self) -> u64 {
        match self {
            Self::Return(address) | Self::Instruction(address) => address,
        }
    }

    /// Bytes between an address in the instruction that is meant and the address in the stack.
    const fn past(self) -> u64 {
        match self {
            Self::Return(0) | Self::Instruction(_) => 0,
            Self::Return(_) => 1,
        }
    }

    /// An address in the instruction that is meant: what to look up.
    const fn lookup(self) -> u64 {
        self.get() - self.past()
    }
}
