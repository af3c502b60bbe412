//! The dynamic loader of a process, seen from outside: its list of loaded objects and the function that it calls
//! when the list changes.

use object::read::ReadCache;
use tracer_common::call::CallShape;

use std::{ops::Range, path::PathBuf};

use super::{
    Site,
    error::TargetError,
    maps::Mapping,
    objects::{MappedFile, open_mapped},
    process::{Memory, Process},
    scan::site_of,
};
use crate::elf::object_file::ElfObject;

/// Longest list of loaded objects that is followed.
const MAX_OBJECTS: usize = 4096;

/// Longest dynamic section that is searched, in entries.
const MAX_DYNAMIC: u64 = 1024;

const DT_NULL: u64 = 0;
const DT_DEBUG: u64 = 21;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;

/// Names of the function that the loaders of glibc and musl call before and after they change the list.
const ANNOUNCERS: [&str; 2] = ["_dl_debug_state", "dl_debug_state"];

/// Where the dynamic loader announces that objects were loaded or unloaded.
#[derive(Clone, Debug)]
pub struct LoaderProbe {
    /// A path through which the kernel reaches the loader's file.
    pub attach_path: PathBuf,
    /// The announcing function's first instruction.
    pub site: Site,
}

/// Finds the function that the process's dynamic loader calls when it has loaded or unloaded an object.
///
/// Works as soon as the kernel has mapped the loader, before the loader's first instruction. `None` for a static
/// program, and for a loader whose symbols do not name the function.
///
/// # Errors
///
/// When the process has exited, or memtrace may not look at it.
pub fn loader_probe(process: &Process) -> Result<Option<LoaderProbe>, TargetError> {
    let auxv = process.auxv()?;
    // The loader's address; where the loader itself was executed, its entry.
    let address = auxv_value(&auxv, AT_BASE)
        .filter(|base| *base != 0)
        .or_else(|| auxv_value(&auxv, AT_ENTRY));
    let mappings = process.mappings()?;
    let Some(mapping) = mappings
        .iter()
        .find(|mapping| address.is_some_and(|address| mapping.contains(address)))
    else {
        return Ok(None);
    };
    let Ok(opened) = open_mapped(process, mapping) else {
        return Ok(None);
    };
    let cache = ReadCache::new(opened.file);
    let Ok(object) = ElfObject::parse(&cache) else {
        return Ok(None);
    };
    let facts = object.facts();
    let mut site = None;
    object.for_each_function(|function| {
        if site.is_none() && ANNOUNCERS.contains(&function.name) {
            // Any instruction serves: nothing is read but the fact of the call.
            site = site_of(
                &object,
                &facts,
                function.address,
                function.size_bytes,
                CallShape::free(0),
            )
            .ok();
        }
    });
    Ok(site.map(|(site, _)| LoaderProbe {
        attach_path: opened.attach_path,
        site,
    }))
}

/// The addresses of the dynamic loader's code; `None` for a static program.
///
/// # Errors
///
/// When the process has exited, or memtrace may not look at it.
pub fn loader_code(process: &Process) -> Result<Option<Range<u64>>, TargetError> {
    let Some(base) = auxv_value(&process.auxv()?, AT_BASE) else {
        return Ok(None);
    };
    let mappings = process.mappings()?;
    let loader = mappings
        .iter()
        .find(|mapping| mapping.contains(base))
        .and_then(MappedFile::of);
    Ok(mappings
        .iter()
        .find(|mapping| mapping.executable && loader.is_some() && MappedFile::of(mapping) == loader)
        .map(|mapping| mapping.start..mapping.end))
}

/// The order in which the loader looks for a symbol, as addresses inside of the objects; or why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SearchOrder {
    /// The program has no dynamic loader.
    Static,
    /// The loader has not finished yet.
    Starting,
    /// Addresses of the objects' dynamic sections, in the loader's order.
    Known {
        /// The addresses.
        addresses: Vec<u64>,
        /// Whether the loader has finished its latest change.
        settled: bool,
    },
    /// It could not be read, for this reason.
    Unknown(&'static str),
}

/// Reads the loader's list of objects out of the process's memory.
pub(super) fn search_order(process: &Process) -> Result<SearchOrder, TargetError> {
    let facts = process.exe_facts();
    if facts.interpreter.is_none() {
        return Ok(match &facts.soname {
            Some(soname) if soname.starts_with("ld-") => {
                SearchOrder::Unknown("the program was started through the loader's own path")
            }
            _ => SearchOrder::Static,
        });
    }
    let Some(dynamic) = facts.dynamic_address else {
        return Ok(SearchOrder::Unknown(
            "the executable has no dynamic section",
        ));
    };
    let auxv = process.auxv()?;
    let Some(entry) = auxv_value(&auxv, AT_ENTRY) else {
        return Ok(SearchOrder::Unknown("the process has no auxiliary vector"));
    };
    let bias = entry.wrapping_sub(facts.entry);
    let memory = process.memory()?;
    Ok(match debug_pointer(&memory, bias.wrapping_add(dynamic)) {
        None => SearchOrder::Unknown("its dynamic section names no list"),
        Some(0) => SearchOrder::Starting,
        Some(address) => follow(&memory, address),
    })
}

/// The mapping of the executable's code.
pub(super) fn executable_mapping<'m>(
    process: &Process,
    mappings: &'m [Mapping],
) -> Result<Option<&'m Mapping>, TargetError> {
    let entry = auxv_value(&process.auxv()?, AT_ENTRY);
    Ok(mappings
        .iter()
        .find(|mapping| entry.is_some_and(|entry| mapping.contains(entry))))
}

fn debug_pointer(memory: &Memory, dynamic: u64) -> Option<u64> {
    for index in 0..MAX_DYNAMIC {
        let [tag, value] = memory.words(dynamic.checked_add(index * 16)?)?;
        match tag {
            DT_DEBUG => return Some(value),
            DT_NULL => return None,
            _ => {}
        }
    }
    None
}

/// Follows the list from the loader's `struct r_debug`.
fn follow(memory: &Memory, debug: u64) -> SearchOrder {
    const GARBLED: SearchOrder = SearchOrder::Unknown("the loader's list is not in the known form");
    // r_version, r_map, r_brk, r_state; of the first and the last only the lower half counts.
    let Some([version, first, _, state]) = memory.words(debug) else {
        return GARBLED;
    };
    let lower = |word: u64| word & u64::from(u32::MAX);
    if lower(version) == 0 || first == 0 {
        return SearchOrder::Starting;
    }
    if lower(state) > 2 {
        return GARBLED;
    }
    let (mut addresses, mut previous, mut next) = (Vec::new(), 0, first);
    while next != 0 {
        // l_addr, l_name, l_ld, l_next, l_prev
        let Some([_, _, dynamic, behind, before]) = memory.words(next) else {
            return GARBLED;
        };
        if before != previous || addresses.len() == MAX_OBJECTS {
            return GARBLED;
        }
        addresses.push(dynamic);
        (previous, next) = (next, behind);
    }
    SearchOrder::Known {
        addresses,
        settled: lower(state) == 0,
    }
}

fn auxv_value(auxv: &[(u64, u64)], tag: u64) -> Option<u64> {
    auxv.iter()
        .find(|(candidate, _)| *candidate == tag)
        .map(|(_, value)| *value)
}
