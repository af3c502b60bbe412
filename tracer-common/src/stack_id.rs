//! The name of a stack: a 64-bit hash of its frames, computed while the stack is walked.

use crate::{stop::StopReason, wire::STACK_NOT_STORED};

/// Computes a stack's id, frame by frame from the leaf.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct StackHasher(u64);

impl StackHasher {
    /// The hash of no frames.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a frame: a rotation, so that order counts, and a multiplication by an odd constant (2^64 divided by
    /// the golden ratio), so that every bit reaches the upper half.
    #[expect(clippy::inline_always, reason = "BPF programs have no calls to spare")]
    #[inline(always)]
    #[must_use]
    pub const fn frame(self, address: u64) -> Self {
        Self((self.0.rotate_left(23) ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The id of the frames added so far. It differs by the reason why the walk ended, and is never
    /// [`STACK_NOT_STORED`].
    #[expect(clippy::inline_always, reason = "BPF programs have no calls to spare")]
    #[inline(always)]
    #[must_use]
    pub const fn finish(self, stop: StopReason) -> u64 {
        self.finish_with(stop as u32)
    }

    /// Like [`Self::finish`], with the discriminant of the reason.
    #[expect(clippy::inline_always, reason = "BPF programs have no calls to spare")]
    #[inline(always)]
    #[must_use]
    pub const fn finish_with(self, stop: u32) -> u64 {
        let hash = self.frame(stop as u64).0;
        let id = hash ^ (hash >> 32);
        if id == STACK_NOT_STORED { 1 } else { id }
    }
}

impl Default for StackHasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(frames: &[u64], stop: StopReason) -> u64 {
        frames
            .iter()
            .fold(StackHasher::new(), |hasher, frame| hasher.frame(*frame))
            .finish(stop)
    }

    /// Make sure that the id depends on every frame, on their order, and on why the walk ended.
    #[test]
    fn id_tells_stacks_apart() {
        let ids = [
            id(&[0x1000, 0x2000], StopReason::Complete),
            id(&[0x2000, 0x1000], StopReason::Complete),
            id(&[0x1000, 0x2001], StopReason::Complete),
            id(&[0x1000], StopReason::Complete),
            id(&[0x1000, 0x2000], StopReason::TooDeep),
        ];
        for (index, one) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(one), "stack {index}");
            assert_ne!(*one, STACK_NOT_STORED);
        }
    }
}
