//! What one object holds: the catalogued functions that it defines, grouped by allocator, with their sites.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use object::ReadRef;
use tracer_common::call::{CallFlags, CallShape};

use super::{
    AllocatorKind, Function, Site,
    catalogue::{self, Family, Known},
};
use crate::elf::{
    object_file::{ElfObject, ObjectFacts},
    site,
    symbols::FunctionSymbol,
};

/// Code read for a function whose size is not known, in bytes.
const UNSIZED_BYTES: u64 = 256;

/// Functions of one object that belong to one allocator.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) kind: AllocatorKind,
    /// The prefix of its names; `None` for the standard names.
    pub(super) prefix: Option<&'static str>,
    /// Whether the object offers `malloc` to others.
    pub(super) exports_malloc: bool,
    pub(super) functions: Vec<Function>,
    pub(super) unprobed: Vec<String>,
}

/// A catalogued function that an object defines.
struct Found {
    name: String,
    known: Known,
    address: u64,
    size_bytes: u64,
    exported: bool,
}

/// Collects catalogued functions and what tells the allocators apart, symbol by symbol.
#[derive(Default)]
pub(super) struct Scan {
    found: Vec<Found>,
    markers: BTreeSet<u8>,
}

/// From the strongest evidence to the weakest: a static program can hold a C library's allocator besides
/// another one with a prefix, whose symbols must not decide about the standard names.
const BY_STRENGTH: [AllocatorKind; 6] = [
    AllocatorKind::Glibc,
    AllocatorKind::Musl,
    AllocatorKind::Mimalloc,
    AllocatorKind::Tcmalloc,
    AllocatorKind::Jemalloc,
    AllocatorKind::Snmalloc,
];

impl Scan {
    /// Looks at one symbol.
    pub(super) fn see(&mut self, symbol: &FunctionSymbol<'_>) {
        if let Some(kind) = catalogue::marker(symbol.name) {
            self.markers.extend(
                BY_STRENGTH
                    .iter()
                    .position(|candidate| *candidate == kind)
                    .and_then(|strength| u8::try_from(strength).ok()),
            );
        }
        if let Some(known) = catalogue::lookup(symbol.name) {
            self.found.push(Found {
                name: symbol.name.to_owned(),
                known,
                address: symbol.address,
                size_bytes: symbol.size_bytes,
                exported: symbol.exported,
            });
        }
    }

    /// The allocators of the object: groups that both allocate and release. Functions at the addresses in `taken`
    /// are left out.
    pub(super) fn groups<'data, R: ReadRef<'data>>(
        self,
        object: &ElfObject<'data, R>,
        facts: &ObjectFacts,
        taken: &BTreeSet<u64>,
    ) -> Vec<Group> {
        let plain_kind = self.plain_kind(facts);
        let is_libc = matches!(plain_kind, AllocatorKind::Glibc | AllocatorKind::Musl);
        let has_plain = ["malloc", "free"]
            .iter()
            .all(|wanted| self.found.iter().any(|found| found.name == *wanted));
        let mut groups: BTreeMap<Option<&'static str>, Vec<Found>> = BTreeMap::new();
        for found in self.found {
            let prefix = match found.known.family {
                // A C library brings no operators of its own; those beside it in a static program call malloc.
                Family::Operator if is_libc => continue,
                Family::Standard | Family::Operator | Family::Internal if has_plain => None,
                Family::Standard | Family::Operator | Family::Internal => continue,
                family @ Family::Prefixed(_) if has_plain && family.kind() == Some(plain_kind) => {
                    None
                }
                Family::Prefixed(prefix) => Some(prefix),
            };
            if !taken.contains(&found.address) {
                groups.entry(prefix).or_default().push(found);
            }
        }
        groups
            .into_iter()
            .map(|(prefix, found)| {
                let kind = prefix.map_or(plain_kind, |prefix| {
                    Family::Prefixed(prefix)
                        .kind()
                        .unwrap_or(AllocatorKind::Other)
                });
                group(object, facts, kind, prefix, found)
            })
            .filter(|group| {
                group
                    .functions
                    .iter()
                    .any(|function| function.shape.is_free())
                    && group
                        .functions
                        .iter()
                        .any(|function| !function.shape.is_free())
            })
            .collect()
    }

    /// Which implementation the standard names of the object belong to.
    fn plain_kind(&self, facts: &ObjectFacts) -> AllocatorKind {
        match facts.soname.as_deref() {
            Some("libc.so.6") => return AllocatorKind::Glibc,
            Some(soname) if soname == "libc.so" || soname.starts_with("libc.musl-") => {
                return AllocatorKind::Musl;
            }
            _ => {}
        }
        self.markers
            .first()
            .and_then(|strength| BY_STRENGTH.get(usize::from(*strength)))
            .copied()
            .unwrap_or(AllocatorKind::Other)
    }
}

fn group<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    facts: &ObjectFacts,
    kind: AllocatorKind,
    prefix: Option<&'static str>,
    found: Vec<Found>,
) -> Group {
    let exports_malloc = found
        .iter()
        .any(|found| found.exported && found.name == "malloc");
    let mut unprobed = Vec::new();
    let mut functions = Vec::new();
    for code in merge_forwarders(object, facts, merge_aliases(found)) {
        let mut shape = code.shape;
        if kind == AllocatorKind::Other && shape.is_free() {
            // An unknown implementation may be a front of another object's.
            shape = shape.flagged(CallFlags::NESTS);
        }
        match site_of(object, facts, code.address, code.size_bytes, shape) {
            Ok((site, shape)) => functions.push(Function {
                name: code.name,
                aliases: code.aliases,
                shape,
                site,
            }),
            Err(reason) => unprobed.push(format!("{}: {reason}", code.name)),
        }
    }
    functions.sort_by_key(|function| Reverse(function.shape.is_free()));
    Group {
        kind,
        prefix,
        exports_malloc,
        functions,
        unprobed,
    }
}

/// The code at one address, with all its names.
struct Code {
    name: String,
    aliases: Vec<String>,
    shape: CallShape,
    address: u64,
    size_bytes: u64,
}

/// Puts the names of each address together, the best known one first.
fn merge_aliases(found: Vec<Found>) -> Vec<Code> {
    let mut by_address: BTreeMap<u64, Vec<Found>> = BTreeMap::new();
    for found in found {
        by_address.entry(found.address).or_default().push(found);
    }
    by_address
        .into_iter()
        .filter_map(|(address, mut names)| {
            names.sort_by_key(|found| {
                let nests = found.known.shape.flags.contains(CallFlags::NESTS);
                (
                    found.known.family,
                    nests,
                    found.name.len(),
                    found.name.clone(),
                )
            });
            names.dedup_by(|later, earlier| later.name == earlier.name);
            let size_bytes = names.iter().map(|found| found.size_bytes).max()?;
            let mut names = names.into_iter();
            let first = names.next()?;
            (first.known.family != Family::Internal).then(|| Code {
                name: first.name,
                aliases: names.map(|found| found.name).collect(),
                shape: first.known.shape,
                address,
                size_bytes,
            })
        })
        .collect()
}

/// Takes functions that only jump to another one of the group, with the same arguments, for names of that one:
/// a second probe would see the same calls again.
fn merge_forwarders<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    facts: &ObjectFacts,
    codes: Vec<Code>,
) -> Vec<Code> {
    let places: BTreeMap<u64, CallShape> = codes
        .iter()
        .map(|code| (code.address, code.shape))
        .collect();
    let target = |code: &Code| {
        let function = function_at(object, facts, code.address, code.size_bytes).ok()?;
        let target = site::forwards_to(function)?;
        let shape = places.get(&target)?;
        (target != code.address && same_arguments(*shape, code.shape)).then_some(target)
    };
    let (forwarders, mut real): (Vec<_>, Vec<_>) = codes
        .into_iter()
        .map(|code| (target(&code), code))
        .partition(|(target, _)| target.is_some());
    for (target, code) in forwarders {
        if let Some((_, real)) = real
            .iter_mut()
            .find(|(_, real)| Some(real.address) == target)
        {
            real.aliases.push(code.name);
            real.aliases.extend(code.aliases);
        } else {
            // A chain of jumps: probed itself.
            real.push((None, code));
        }
    }
    real.into_iter().map(|(_, code)| code).collect()
}

fn same_arguments(one: CallShape, other: CallShape) -> bool {
    one.flagged(CallFlags::NESTS) == other.flagged(CallFlags::NESTS)
}

fn function_at<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    facts: &ObjectFacts,
    address: u64,
    size_bytes: u64,
) -> Result<site::Function<'data>, String> {
    let offset = facts
        .file_offset(address)
        .ok_or_else(|| format!("its address {address:#x} lies in no executable segment"))?;
    let wanted = if size_bytes == 0 {
        UNSIZED_BYTES
    } else {
        size_bytes.min(site::MAX_FUNCTION_BYTES)
    };
    Ok(site::Function {
        code: object.bytes_at(offset, wanted),
        address,
        size_bytes,
    })
}

/// Chooses the site of a function, and says where its arguments lie there.
pub(super) fn site_of<'data, R: ReadRef<'data>>(
    object: &ElfObject<'data, R>,
    facts: &ObjectFacts,
    address: u64,
    size_bytes: u64,
    shape: CallShape,
) -> Result<(Site, CallShape), String> {
    let function = function_at(object, facts, address, size_bytes)?;
    let point = site::choose(function, shape).map_err(|error| error.to_string())?;
    let entry_offset = facts.file_offset(address).unwrap_or_default();
    Ok((
        Site {
            entry_offset,
            file_offset: entry_offset + point.distance,
            instruction: point.instruction,
            emulated: point.emulated,
        },
        point.shape,
    ))
}
