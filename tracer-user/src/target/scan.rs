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
    code::{merge_aliases, merge_forwarders},
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
pub(super) struct Found {
    pub(super) name: String,
    pub(super) known: Known,
    pub(super) address: u64,
    pub(super) size_bytes: u64,
    exported: bool,
}

/// Collects catalogued functions and what tells the allocators apart, symbol by symbol.
#[derive(Default)]
pub(super) struct Scan {
    found: Vec<Found>,
    markers: BTreeSet<u8>,
    is_loader: bool,
    /// Address and size of the functions in [`UNWINDERS`].
    unwinders: BTreeSet<(u64, u64)>,
}

/// Where the C++ runtime begins to unwind the stack: for an exception, and for the end of a cancelled thread.
const UNWINDERS: [&str; 2] = ["_Unwind_RaiseException", "_Unwind_ForcedUnwind"];

/// What a dynamic loader exports. musl's, alone, is the C library at once; not everywhere has it a name in itself.
const LOADER_MARK: &str = "_dl_debug_state";

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
        self.is_loader |= symbol.exported && symbol.name == LOADER_MARK;
        if let Some(kind) = catalogue::marker(symbol.name) {
            self.markers.extend(
                BY_STRENGTH
                    .iter()
                    .position(|candidate| *candidate == kind)
                    .and_then(|strength| u8::try_from(strength).ok()),
            );
        }
        if UNWINDERS.contains(&symbol.name) {
            self.unwinders.insert((symbol.address, symbol.size_bytes));
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

    /// Where to probe the functions that begin to unwind the stack.
    pub(super) fn unwinders<'data, R: ReadRef<'data>>(
        &self,
        object: &ElfObject<'data, R>,
        facts: &ObjectFacts,
    ) -> Vec<Site> {
        self.unwinders
            .iter()
            .filter_map(|(address, size)| {
                // Any instruction serves, as long as the stack pointer has not moved.
                let (site, _) = site_of(object, facts, *address, *size, CallShape::free(0)).ok()?;
                Some(site)
            })
            .collect()
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
            Some(soname) if soname.starts_with("libc.musl-") => return AllocatorKind::Musl,
            None | Some("libc.so") if self.is_loader => return AllocatorKind::Musl,
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
        let mut names = code.names.into_iter();
        let Some(name) = names.next() else {
            continue;
        };
        let mut shape = code.shape;
        if kind == AllocatorKind::Other && shape.is_free() {
            // An unknown implementation may be a front of another object's.
            shape = shape.flagged(CallFlags::NESTS);
        }
        match site_of(object, facts, code.address, code.size_bytes, shape) {
            Ok((site, shape)) => functions.push(Function {
                name,
                aliases: names.collect(),
                shape,
                site,
            }),
            Err(reason) => unprobed.push(format!("{name}: {reason}")),
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

/// The code of a function.
pub(super) fn function_at<'data, R: ReadRef<'data>>(
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
