//! A row of DWARF's call frame information as a rule of ours, where its form is one that compilers, linkers and the C
//! library emit.

use gimli::{
    CfaRule, Encoding, Format, Operation, Register, RegisterRule, UnwindExpression, UnwindSection,
    UnwindTableRow, X86_64,
};
use tracer_common::unwind::row::{Cfa, Fp, Rule};

use super::section::Bytes;

/// Operations in the longest expression that is known: a linkage stub's.
const MAX_OPERATIONS: usize = 9;
/// Offsets of registers in the kernel's signal frame, from `rsp`; [`Cfa::Signal`] stands for them.
const SIGNAL_RBP: i64 = 120;
const SIGNAL_RSP: i64 = 160;
const SIGNAL_RIP: i64 = 168;

/// The rule of a row; `None` when rows of ours cannot express it.
pub(super) fn rule<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    row: &UnwindTableRow<usize>,
) -> Option<Rule> {
    let address = |register| place(section, row.register(register).as_ref());
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => Cfa::Register {
            number: u8::try_from(register.0).ok()?,
            offset: *offset,
        },
        CfaRule::Expression(expression) => cfa_expression(section, expression)?,
    };
    match address(X86_64::RA) {
        Some(Place::Lost) => return Some(Rule::only(Cfa::End)),
        Some(Place::AtCfa(-8)) => {}
        Some(Place::AtRegister(X86_64::RSP, SIGNAL_RIP)) => {
            let signal = Cfa::Deref {
                from_rbp: false,
                offset: SIGNAL_RSP,
                add: 0,
            };
            let rbp = address(X86_64::RBP);
            let known = cfa == signal && rbp == Some(Place::AtRegister(X86_64::RSP, SIGNAL_RBP));
            return known.then_some(Rule::only(Cfa::Signal));
        }
        _ => return None,
    }
    // The caller's stack pointer is the frame address, unless something else is said.
    if row
        .register(X86_64::RSP)
        .is_some_and(|rule| rule != RegisterRule::ValOffset(0))
    {
        return None;
    }
    let fp = match address(X86_64::RBP) {
        Some(Place::Kept) => Fp::Unchanged,
        Some(Place::AtCfa(offset)) => Fp::AtCfa(offset),
        Some(Place::AtRegister(X86_64::RBP, offset)) => Fp::AtFp(offset),
        _ => Fp::Undefined,
    };
    Some(Rule { cfa, fp })
}

/// Where a register of the caller is.
#[derive(PartialEq, Eq)]
enum Place {
    Kept,
    Lost,
    AtCfa(i64),
    AtRegister(Register, i64),
}

fn place<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    rule: Option<&RegisterRule<usize>>,
) -> Option<Place> {
    match rule {
        None | Some(RegisterRule::SameValue) => Some(Place::Kept),
        Some(RegisterRule::Undefined) => Some(Place::Lost),
        Some(RegisterRule::Offset(offset)) => Some(Place::AtCfa(*offset)),
        Some(RegisterRule::Expression(expression)) => {
            match operations(section, expression)?.as_slice() {
                [
                    Operation::RegisterOffset {
                        register, offset, ..
                    },
                ] => Some(Place::AtRegister(*register, *offset)),
                _ => None,
            }
        }
        Some(_) => None,
    }
}

/// A frame address that an expression computes: a dereferenced word, or a linkage stub's.
fn cfa_expression<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> Option<Cfa> {
    let operations = operations(section, expression)?;
    let (register, offset, rest) = match operations.as_slice() {
        [
            Operation::RegisterOffset {
                register, offset, ..
            },
            rest @ ..,
        ] => (*register, *offset, rest),
        _ => return None,
    };
    let add = match rest {
        [
            Operation::Deref {
                size: 8,
                space: false,
                ..
            },
        ] => 0,
        [
            Operation::Deref {
                size: 8,
                space: false,
                ..
            },
            Operation::PlusConstant { value },
        ] => *value,
        [
            Operation::RegisterOffset {
                register: X86_64::RA,
                offset: 0,
                ..
            },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant { value },
            Operation::Ge,
            Operation::UnsignedConstant { value: 3 },
            Operation::Shl,
            Operation::Plus,
        ] if register == X86_64::RSP && offset == 8 => {
            let threshold = u8::try_from(*value).ok()?;
            return Some(Cfa::Plt { threshold });
        }
        _ => return None,
    };
    (register == X86_64::RSP || register == X86_64::RBP).then_some(Cfa::Deref {
        from_rbp: register == X86_64::RBP,
        offset,
        add,
    })
}

/// An expression's operations; `None` for one that is longer than any that is known.
fn operations<'data, S: UnwindSection<Bytes<'data>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> Option<Vec<Operation<Bytes<'data>>>> {
    let encoding = Encoding {
        address_size: 8,
        format: Format::Dwarf32,
        version: 4,
    };
    let mut operations = Vec::with_capacity(MAX_OPERATIONS);
    for operation in expression.get(section).ok()?.operations(encoding) {
        if operations.len() == MAX_OPERATIONS {
            return None;
        }
        operations.push(operation.ok()?);
    }
    Some(operations)
}
