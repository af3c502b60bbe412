//! Why a stack walk ended.

/// Why a stack walk ended; the discriminant travels in [`crate::wire::Stack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StopReason {
    /// The walk reached the end of the stack: the outermost frame has no caller.
    Complete = 0,
    /// The stack is deeper than [`crate::limits::MAX_FRAMES`].
    TooDeep = 1,
    /// A frame's memory could not be read.
    Unreadable = 2,
    /// The next frame does not lie above this one, or is not aligned: the frame pointer holds something else.
    BadFramePointer = 3,
    /// The return address is not in executable memory.
    BadReturnAddress = 4,
    /// No unwind information covers the frame's code: hand-written assembly, or an object whose table is missing.
    NoUnwindInfo = 5,
    /// The frame's unwind information uses a form that is not known here.
    UnsupportedRule = 6,
    /// The caller's stack pointer would not lie above the frame's, or is not aligned.
    BadStackPointer = 7,
    /// The frame is found from a register whose value is known in the first frame only.
    UnknownRegister = 8,
}

impl StopReason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 9] = [
        Self::Complete,
        Self::TooDeep,
        Self::Unreadable,
        Self::BadFramePointer,
        Self::BadReturnAddress,
        Self::NoUnwindInfo,
        Self::UnsupportedRule,
        Self::BadStackPointer,
        Self::UnknownRegister,
    ];

    /// The reason with this discriminant.
    #[must_use]
    pub fn from_u32(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == value)
    }

    /// The reason in a few words, for `[truncated: …]`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::TooDeep => "deeper than 127 frames",
            Self::Unreadable => "stack memory unreadable",
            Self::BadFramePointer => "no frame pointer",
            Self::BadReturnAddress => "return address not in code",
            Self::NoUnwindInfo => "no unwind information",
            Self::UnsupportedRule => "unwind rule not supported",
            Self::BadStackPointer => "stack pointer does not advance",
            Self::UnknownRegister => "frame address in an unknown register",
        }
    }
}
