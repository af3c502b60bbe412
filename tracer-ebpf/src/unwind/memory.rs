//! A thread's stack, read ahead: the walk goes up, and most frames lie close together.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_probe_read_user, generated},
};
use tracer_common::{limits::WINDOW_WORDS, unwind::step::Thread};

/// What of the stack is in a slot's window.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct StackMemory {
    /// Address of the window's first word.
    start: u64,
    /// Valid words in the window.
    words: u64,
}

impl StackMemory {
    /// Nothing yet.
    #[inline(always)]
    pub(super) const fn empty() -> Self {
        Self { start: 0, words: 0 }
    }

    /// The memory for the step from a frame whose stack pointer is `sp`.
    #[inline(always)]
    pub(super) fn of<'walk>(
        &'walk mut self,
        window: &'walk mut [u64; WINDOW_WORDS],
        sp: u64,
    ) -> FrameMemory<'walk> {
        FrameMemory {
            read: self,
            window,
            sp,
        }
    }
}

/// The stack memory as the step from one frame sees it.
pub(super) struct FrameMemory<'walk> {
    read: &'walk mut StackMemory,
    window: &'walk mut [u64; WINDOW_WORDS],
    sp: u64,
}

impl FrameMemory<'_> {
    /// The index of an address's word in the window, if `words` words from there on are in it.
    #[inline(always)]
    fn index(&self, address: u64, words: u64) -> Option<usize> {
        let distance = address.wrapping_sub(self.read.start);
        let index = distance / 8;
        (distance.is_multiple_of(8) && index < self.read.words && index + words <= self.read.words)
            .then_some(index as usize)
    }

    /// Fills the window from the frame's stack pointer on, or from the address itself in a frame that is larger.
    #[inline(always)]
    fn read_ahead(&mut self, address: u64) {
        const HALF: u64 = (WINDOW_WORDS as u64) * 4;
        let start = if address.wrapping_sub(self.sp) < HALF {
            self.sp
        } else {
            address
        };
        // SAFETY: the destination is as large as said; the helper checks the address and fails on one that cannot
        // be read.
        let read = unsafe {
            generated::bpf_probe_read_user(
                self.window.as_mut_ptr().cast(),
                size_of_val(self.window) as u32,
                start as *const c_void,
            )
        };
        self.read.start = start;
        // It fails where the window reaches past the end of the stack's mapping.
        self.read.words = if read == 0 { WINDOW_WORDS as u64 } else { 0 };
    }

    #[inline(always)]
    fn at(&self, index: usize) -> u64 {
        // The mask changes nothing; it shows the verifier what `words` bounds.
        self.window[index & (WINDOW_WORDS - 1)]
    }
}

impl Thread for FrameMemory<'_> {
    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        if let Some(index) = self.index(address, 1) {
            return Some(self.at(index));
        }
        self.read_ahead(address);
        if let Some(index) = self.index(address, 1) {
            return Some(self.at(index));
        }
        // SAFETY: the helper checks the address and fails on one that cannot be read.
        unsafe { bpf_probe_read_user(address as *const u64) }.ok()
    }

    #[inline(always)]
    fn pair(&mut self, address: u64) -> Option<[u64; 2]> {
        if let Some(index) = self.index(address, 2) {
            return Some([self.at(index), self.at(index + 1)]);
        }
        self.read_ahead(address);
        if let Some(index) = self.index(address, 2) {
            return Some([self.at(index), self.at(index + 1)]);
        }
        // SAFETY: the helper checks the address and fails on one that cannot be read.
        unsafe { bpf_probe_read_user(address as *const [u64; 2]) }.ok()
    }

    /// The walk begins behind a call, where no other register is known.
    #[inline(always)]
    fn register(&mut self, _number: u8) -> Option<u64> {
        None
    }
}
