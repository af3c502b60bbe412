//! A row of an unwind table: from which byte of a page on, how a frame's caller is found.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "fields are cut out of a word, and numbers are checked before they are put into one"
)]

/// DWARF's number of `rbp`.
pub const RBP: u8 = 6;
/// DWARF's number of `rsp`.
pub const RSP: u8 = 7;

/// How the canonical frame address is found: the stack pointer of the caller behind the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// No unwind information covers this code.
    NoInfo,
    /// The information uses a form that rows do not have.
    Unsupported,
    /// The outermost frame: it has no return address.
    End,
    /// The kernel's signal frame: the interrupted registers lie on the stack.
    Signal,
    /// A stub of the procedure linkage table: `rsp + 8`, and 8 more from this offset in its 16 bytes on.
    Plt {
        /// The first offset behind the stub's push, at most 15.
        threshold: u8,
    },
    /// A register plus an offset in bytes.
    Register {
        /// DWARF's number of the register, at most 15.
        number: u8,
        /// Bytes, a multiple of 8.
        offset: i64,
    },
    /// The word at `rsp` or `rbp` plus an offset, plus a constant.
    Deref {
        /// Whether the word is found from `rbp`, not from `rsp`.
        from_rbp: bool,
        /// Bytes, a multiple of 8.
        offset: i64,
        /// Bytes added to the word: a multiple of 8, at most 248.
        add: u64,
    },
}

/// How the caller's `rbp` is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fp {
    /// It is still in `rbp`.
    Unchanged,
    /// In the word at the canonical frame address plus these bytes, a multiple of 8.
    AtCfa(i64),
    /// In the word at `rbp` plus these bytes, a multiple of 8.
    AtFp(i64),
    /// It is lost.
    Undefined,
}

/// How a frame's caller is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The canonical frame address; the return address lies in the word below it.
    pub cfa: Cfa,
    /// The caller's `rbp`.
    pub fp: Fp,
}

impl Rule {
    /// Code that no unwind information covers.
    pub const NO_INFO: Self = Self::only(Cfa::NoInfo);
    /// Code whose information rows cannot express.
    pub const UNSUPPORTED: Self = Self::only(Cfa::Unsupported);

    /// A rule that says nothing about `rbp`.
    #[must_use]
    pub const fn only(cfa: Cfa) -> Self {
        Self {
            cfa,
            fp: Fp::Unchanged,
        }
    }
}

/// A row in its stored form, 64 bits: offset in the page (16), kind of the frame address (8), kind of `rbp` (8), and
/// the offset of each in units of 8 bytes (16, 16), from the lowest bits up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Row(pub u64);

const NO_INFO: u8 = 0;
const UNSUPPORTED: u8 = 1;
const END: u8 = 2;
const SIGNAL: u8 = 3;
const PLT: u8 = 4;
/// A register plus an offset: the register's number is in the low four bits.
const REGISTER: u8 = 0x10;
/// `rsp` plus an offset too large for 16 bits: its next four bits are in the low four, without a sign.
const WIDE_RSP: u8 = 0x20;
/// A dereferenced word: the constant to add, in units of 8 bytes, is in the low five bits.
const DEREF_RSP: u8 = 0x40;
const DEREF_RBP: u8 = 0x60;

/// The largest offset that 16 bits hold.
const WIDEST_SIGNED: i64 = i16::MAX as i64 * 8;

const FP_UNCHANGED: u8 = 0;
const FP_AT_CFA: u8 = 1;
const FP_AT_FP: u8 = 2;
const FP_UNDEFINED: u8 = 3;

impl Row {
    /// The row of a rule from `start` on, an offset in its page; `None` where a number does not fit.
    #[must_use]
    pub const fn pack(start: u16, rule: Rule) -> Option<Self> {
        let (cfa_kind, cfa_offset) = match rule.cfa {
            Cfa::NoInfo => (NO_INFO, 0),
            Cfa::Unsupported => (UNSUPPORTED, 0),
            Cfa::End => (END, 0),
            Cfa::Signal => (SIGNAL, 0),
            Cfa::Plt { threshold } if threshold < 16 => (PLT, threshold as i64 * 8),
            Cfa::Register { number, offset }
                if number == RSP && offset > WIDEST_SIGNED && offset < 1 << 23 =>
            {
                // The low 16 bits, as the sign that they are not.
                let low = (offset >> 3) as i16 as i64 * 8;
                (WIDE_RSP | (offset >> 19) as u8, low + offset % 8)
            }
            Cfa::Register { number, offset } if number < 16 => (REGISTER | number, offset),
            Cfa::Deref {
                from_rbp,
                offset,
                add,
            } if add < 32 * 8 && add % 8 == 0 => {
                let kind = if from_rbp { DEREF_RBP } else { DEREF_RSP };
                (kind | (add >> 3) as u8, offset)
            }
            Cfa::Plt { .. } | Cfa::Register { .. } | Cfa::Deref { .. } => return None,
        };
        let (fp_kind, fp_offset) = match rule.fp {
            Fp::Unchanged => (FP_UNCHANGED, 0),
            Fp::AtCfa(offset) => (FP_AT_CFA, offset),
            Fp::AtFp(offset) => (FP_AT_FP, offset),
            Fp::Undefined => (FP_UNDEFINED, 0),
        };
        match (words(cfa_offset), words(fp_offset)) {
            (Some(cfa_offset), Some(fp_offset)) => Some(Self(
                start as u64
                    | (cfa_kind as u64) << 16
                    | (fp_kind as u64) << 24
                    | (cfa_offset as u64) << 32
                    | (fp_offset as u64) << 48,
            )),
            _ => None,
        }
    }

    /// The first byte of its page that the row is for.
    #[inline(always)]
    #[must_use]
    pub const fn start(self) -> u16 {
        self.0 as u16
    }

    /// Whether both rows have the same rule, wherever they start.
    #[must_use]
    pub const fn same_rule(self, other: Self) -> bool {
        (self.0 ^ other.0) >> 16 == 0
    }

    /// The rule; one of a kind that is not known counts as unsupported.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> Rule {
        let kind = (self.0 >> 16) as u8;
        let offset = ((self.0 >> 32) as i16 as i64) << 3;
        let cfa = match kind & 0xf0 {
            0 => match kind {
                NO_INFO => Cfa::NoInfo,
                END => Cfa::End,
                SIGNAL => Cfa::Signal,
                PLT => Cfa::Plt {
                    threshold: (self.0 >> 32) as u8 & 15,
                },
                _ => Cfa::Unsupported,
            },
            REGISTER => Cfa::Register {
                number: kind & 15,
                offset,
            },
            WIDE_RSP => Cfa::Register {
                number: RSP,
                offset: ((kind as i64 & 15) << 19) | (offset & 0x7_ffff),
            },
            0x40..=0x70 => Cfa::Deref {
                from_rbp: kind & 0x20 != 0,
                offset,
                add: ((kind & 31) as u64) << 3,
            },
            _ => Cfa::Unsupported,
        };
        let offset = ((self.0 >> 48) as i16 as i64) << 3;
        let fp = match (self.0 >> 24) as u8 {
            FP_UNCHANGED => Fp::Unchanged,
            FP_AT_CFA => Fp::AtCfa(offset),
            FP_AT_FP => Fp::AtFp(offset),
            _ => Fp::Undefined,
        };
        Rule { cfa, fp }
    }
}

/// An offset in units of 8 bytes, as the 16 bits that a row has for it.
const fn words(bytes: i64) -> Option<u16> {
    let words = bytes >> 3;
    if bytes % 8 == 0 && words >= i16::MIN as i64 && words <= i16::MAX as i64 {
        Some(words as u16)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(number: u8, offset: i64) -> Rule {
        Rule::only(Cfa::Register { number, offset })
    }

    /// Make sure that every kind of rule comes back from its row, at the ends of the ranges too.
    #[test]
    fn rules_come_back() {
        let deref = |from_rbp, offset, add| {
            Rule::only(Cfa::Deref {
                from_rbp,
                offset,
                add,
            })
        };
        let rules = [
            Rule::NO_INFO,
            Rule::UNSUPPORTED,
            Rule::only(Cfa::End),
            Rule::only(Cfa::Signal),
            Rule::only(Cfa::Plt { threshold: 11 }),
            register(RSP, 8),
            register(RBP, 16),
            register(10, 0),
            register(15, -262_144),
            register(0, 262_136),
            register(RSP, 262_144),
            register(RSP, 1_048_720),
            register(RSP, (1 << 23) - 8),
            deref(true, -40, 0),
            deref(false, 152, 8),
            deref(false, -8, 248),
        ];
        let pointers = [
            Fp::Unchanged,
            Fp::AtCfa(-16),
            Fp::AtCfa(-262_144),
            Fp::AtFp(0),
            Fp::AtFp(-48),
            Fp::Undefined,
        ];
        for rule in rules {
            for fp in pointers {
                let rule = Rule { fp, ..rule };
                for start in [0, 1, 16_383, u16::MAX] {
                    let row = Row::pack(start, rule).unwrap();
                    assert_eq!((row.start(), row.rule()), (start, rule));
                }
            }
        }
    }

    /// Make sure that a number that does not fit makes no row, rather than a wrong one.
    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = [
            register(RSP, 4),
            register(RSP, 1 << 23),
            register(RSP, 1_048_721),
            register(RBP, 262_144),
            register(RSP, -262_152),
            register(16, 0),
            Rule::only(Cfa::Plt { threshold: 16 }),
            Rule::only(Cfa::Deref {
                from_rbp: false,
                offset: 0,
                add: 256,
            }),
            Rule {
                fp: Fp::AtCfa(-12),
                ..register(RSP, 8)
            },
        ];
        for rule in refused {
            assert_eq!(Row::pack(0, rule), None, "{rule:?}");
        }
    }

    /// Make sure that a kind from another version is not taken for a rule.
    #[test]
    fn unknown_kinds_are_unsupported() {
        for kind in [5_u64, 15, 0x30, 0x80, 0xff] {
            assert_eq!(Row(kind << 16).rule().cfa, Cfa::Unsupported);
        }
    }
}
