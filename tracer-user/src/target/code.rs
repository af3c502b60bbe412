//! One piece of code, many names: aliases at one address, and functions that only jump to another.

use std::collections::BTreeMap;

use object::ReadRef;
use tracer_common::call::CallShape;

use super::{
    catalogue::{Family, lookup},
    scan::{Found, function_at},
};
use crate::elf::{
    object_file::{ElfObject, ObjectFacts},
    site,
};

/// The code at one address, with all its names, the best known one first.
pub(super) struct Code {
    pub(super) names: Vec<String>,
    pub(super) shape: CallShape,
    pub(super) address: u64,
    pub(super) size_bytes: u64,
}

impl Code {
    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    fn add_names(&mut self, names: impl IntoIterator<Item = String>) {
        self.names.extend(names);
        self.names.sort_by_cached_key(|name| rank(name));
        self.names.dedup();
    }
}

/// Sorts names by how well they are known: standard ones first, `new` before `new[]`, short ones first.
fn rank(name: &str) -> (Option<Family>, bool, usize, String) {
    let family = lookup(name).map(|known| known.family);
    let array = name.starts_with("_Zna") || name.starts_with("_Zda");
    (family, array, name.len(), name.to_owned())
}

/// Puts the names of each address together.
pub(super) fn merge_aliases(found: Vec<Found>) -> Vec<Code> {
    let mut by_address: BTreeMap<u64, Vec<Found>> = BTreeMap::new();
    for found in found {
        by_address.entry(found.address).or_default().push(found);
    }
    by_address
        .into_iter()
        .filter_map(|(address, aliases)| {
            let best = aliases.iter().min_by_key(|found| found.known.family)?;
            if best.known.family == Family::Internal {
                return None;
            }
            let mut code = Code {
                names: Vec::new(),
                shape: best.known.shape,
                address,
                size_bytes: aliases.iter().map(|found| found.size_bytes).max()?,
            };
            code.add_names(aliases.into_iter().map(|found| found.name));
            Some(code)
        })
        .collect()
}

/// Takes functions that only jump to another one of the group, with the same arguments, for names of that one:
/// a second probe would see the same calls again.
pub(super) fn merge_forwarders<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    facts: &ObjectFacts,
    codes: Vec<Code>,
) -> Vec<Code> {
    let targets: BTreeMap<u64, u64> = codes
        .iter()
        .filter_map(|code| Some((code.address, target(object, facts, &codes, code)?)))
        .collect();
    let (forwarders, mut real): (Vec<_>, Vec<_>) = codes
        .into_iter()
        .map(|code| (end_of_chain(&targets, code.address), code))
        .partition(|(end, code)| *end != code.address);
    for (end, forwarder) in forwarders {
        match real.iter_mut().find(|(_, real)| real.address == end) {
            Some((_, real)) => real.add_names(forwarder.names),
            // A ring of jumps, which no program can run.
            None => real.push((end, forwarder)),
        }
    }
    real.into_iter().map(|(_, code)| code).collect()
}

/// The address of the code that `code` only jumps to.
fn target<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    facts: &ObjectFacts,
    codes: &[Code],
    code: &Code,
) -> Option<u64> {
    let function = function_at(object, facts, code.address, code.size_bytes).ok()?;
    let jump = site::forwards_to(function)?;
    // It leads to the function itself, or to the stub through which others can replace it; what replaces it is an
    // allocator of its own, with its own probes.
    let stub = object.stub_target(facts, jump);
    codes
        .iter()
        .filter(|other| other.address != code.address && other.shape == code.shape)
        .find(|other| other.address == jump || stub.is_some_and(|name| other.is_named(name)))
        .map(|other| other.address)
}

fn end_of_chain(targets: &BTreeMap<u64, u64>, start: u64) -> u64 {
    let mut address = start;
    for _ in 0..targets.len() {
        match targets.get(&address) {
            Some(next) => address = *next,
            None => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that a chain of jumps ends at its last function, and that a ring ends at all.
    #[test]
    fn chains() {
        let targets = BTreeMap::from([(1, 2), (2, 3), (8, 9), (9, 8)]);
        assert_eq!(end_of_chain(&targets, 1), 3);
        assert_eq!(end_of_chain(&targets, 3), 3);
        assert!([8, 9].contains(&end_of_chain(&targets, 8)));
    }

    /// Make sure that the best known name comes first.
    #[test]
    fn names() {
        let mut code = Code {
            names: Vec::new(),
            shape: CallShape::free(0),
            address: 0,
            size_bytes: 0,
        };
        let names = [
            "tc_free",
            "_ZdaPv",
            "__libc_free",
            "free",
            "_ZdlPv",
            "cfree",
            "free",
        ];
        code.add_names(names.map(str::to_owned));
        assert_eq!(
            code.names,
            [
                "free",
                "cfree",
                "_ZdlPv",
                "_ZdaPv",
                "__libc_free",
                "tc_free"
            ]
        );
    }
}
