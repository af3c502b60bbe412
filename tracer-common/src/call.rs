//! How an allocator function takes its arguments, packed into the 64-bit cookie of its probe.
//!
//! One BPF program serves every function of a calling shape; the cookie says which argument holds what.

/// Index of an integer argument, counted from 0 (`rdi` on x86-64), or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arg(u8);

impl Arg {
    /// The function has no such argument.
    pub const NONE: Self = Self(0xf);
    /// Arguments passed in registers by the System V x86-64 calling convention.
    pub const REGISTERS: u8 = 6;

    /// The `index`-th integer argument, counted from 0; absent when no register holds it.
    #[must_use]
    pub const fn at(index: u8) -> Self {
        if index < Self::REGISTERS {
            Self(index)
        } else {
            Self::NONE
        }
    }

    /// The argument's index, counted from 0.
    #[must_use]
    pub const fn index(self) -> Option<u8> {
        if self.0 < Self::REGISTERS {
            Some(self.0)
        } else {
            None
        }
    }

    /// Whether the function has this argument.
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 < Self::REGISTERS
    }
}

/// What a call does to the blocks, and how its result is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallFlags(u16);

impl CallFlags {
    /// A plain allocation or release.
    pub const NONE: Self = Self(0);
    /// `ptr` names a block that a successful call replaces (`realloc`). A failed call leaves it alone,
    /// unless the size was zero.
    pub const REALLOC: Self = Self(1);
    /// The result is a size in bytes, not an address: the block at `ptr` keeps its place and has the
    /// requested size if the result is at least that (`xallocx`).
    pub const IN_PLACE: Self = Self(1 << 1);
    /// A failed `REALLOC` releases the old block (`reallocf`).
    pub const FREES_ON_FAILURE: Self = Self(1 << 2);
    /// A release that may call another traced release on its way, which must not be counted as its own.
    pub const NESTS: Self = Self(1 << 3);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A function's arguments and effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallShape {
    /// Bytes asked for, or bytes per element when `count` is present. [`Arg::NONE`] for a release.
    pub size: Arg,
    /// Number of elements (`calloc`).
    pub count: Arg,
    /// The block to release or to resize.
    pub ptr: Arg,
    /// Where the address of the new block is stored; the result is then 0 for success (`posix_memalign`).
    pub out: Arg,
    /// What else there is to know.
    pub flags: CallFlags,
}

impl CallShape {
    /// `malloc(size)`, with the size in argument `size`.
    #[must_use]
    pub const fn alloc(size: u8) -> Self {
        Self {
            size: Arg::at(size),
            count: Arg::NONE,
            ptr: Arg::NONE,
            out: Arg::NONE,
            flags: CallFlags::NONE,
        }
    }

    /// `calloc(count, size)`.
    #[must_use]
    pub const fn alloc_array(count: u8, size: u8) -> Self {
        Self {
            count: Arg::at(count),
            ..Self::alloc(size)
        }
    }

    /// `posix_memalign(out, alignment, size)`.
    #[must_use]
    pub const fn alloc_out(out: u8, size: u8) -> Self {
        Self {
            out: Arg::at(out),
            ..Self::alloc(size)
        }
    }

    /// `realloc(ptr, size)`.
    #[must_use]
    pub const fn realloc(ptr: u8, size: u8) -> Self {
        Self {
            ptr: Arg::at(ptr),
            flags: CallFlags::REALLOC,
            ..Self::alloc(size)
        }
    }

    /// `reallocarray(ptr, count, size)`.
    #[must_use]
    pub const fn realloc_array(ptr: u8, count: u8, size: u8) -> Self {
        Self {
            count: Arg::at(count),
            ..Self::realloc(ptr, size)
        }
    }

    /// `free(ptr)`.
    #[must_use]
    pub const fn free(ptr: u8) -> Self {
        Self {
            size: Arg::NONE,
            count: Arg::NONE,
            ptr: Arg::at(ptr),
            out: Arg::NONE,
            flags: CallFlags::NONE,
        }
    }

    /// The same shape with `flags` added.
    #[must_use]
    pub const fn flagged(self, flags: CallFlags) -> Self {
        Self {
            flags: self.flags.with(flags),
            ..self
        }
    }

    /// Whether the function releases a block and allocates none.
    #[must_use]
    pub const fn is_free(self) -> bool {
        !self.size.is_some()
    }

    /// The cookie for a probe of this shape: arguments in the low 16 bits, flags in the next 16, `site` above.
    #[must_use]
    pub const fn cookie(self, site: u32) -> u64 {
        let Self {
            size,
            count,
            ptr,
            out,
            flags,
        } = self;
        (size.0 as u64)
            | (count.0 as u64) << 4
            | (ptr.0 as u64) << 8
            | (out.0 as u64) << 12
            | (flags.0 as u64) << 16
            | (site as u64) << 32
    }

    /// The shape and the site number in a cookie that [`CallShape::cookie`] made.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is masked or shifted to its width"
    )]
    pub const fn from_cookie(cookie: u64) -> (Self, u32) {
        (
            Self {
                size: Arg((cookie & 0xf) as u8),
                count: Arg((cookie >> 4 & 0xf) as u8),
                ptr: Arg((cookie >> 8 & 0xf) as u8),
                out: Arg((cookie >> 12 & 0xf) as u8),
                flags: CallFlags((cookie >> 16) as u16),
            },
            (cookie >> 32) as u32,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that a cookie gives back the shape and the site that went into it.
    #[test]
    fn cookie_round_trips() {
        let shapes = [
            CallShape::alloc(0),
            CallShape::alloc_array(0, 1),
            CallShape::alloc_out(0, 2),
            CallShape::realloc(0, 1),
            CallShape::realloc_array(0, 1, 2).flagged(CallFlags::FREES_ON_FAILURE),
            CallShape::realloc(0, 1).flagged(CallFlags::IN_PLACE),
            CallShape::free(5).flagged(CallFlags::NESTS),
        ];
        for shape in shapes {
            for site in [0, 7, u32::MAX] {
                assert_eq!(CallShape::from_cookie(shape.cookie(site)), (shape, site));
            }
        }
    }

    /// Make sure that an argument that no register holds is absent, not another argument.
    #[test]
    fn argument_on_the_stack_is_absent() {
        assert_eq!(Arg::at(6), Arg::NONE);
        assert_eq!(Arg::at(5).index(), Some(5));
        assert!(CallShape::free(0).is_free());
        assert!(!CallShape::realloc(0, 1).is_free());
    }
}
