//! Frames for addresses: each distinct address once, file by file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use blazesym::symbolize::{
    CodeInfo, Input, Symbolized, Symbolizer,
    source::{Elf, Source},
};

use super::{CodeAddress, Modules, demangle::demangle, file::ModuleFile};
use crate::report::Frame;

/// Addresses asked for at once: bounds the answers that exist at the same time.
const BATCH: usize = 4_096;

/// Longest source path that is kept, in bytes.
const PATH_LIMIT: usize = 4_096;

/// The frames of every address that was asked for.
#[derive(Debug, Default)]
pub struct Names(HashMap<CodeAddress, Arc<[Frame]>>);

impl Names {
    /// The frames at an address: functions inlined there, innermost first, then the function that holds them.
    #[must_use]
    pub fn frames(&self, address: CodeAddress) -> &[Frame] {
        self.0.get(&address).map_or(&[], |frames| frames)
    }

    /// The frames of a stack, from the leaf to the root.
    #[must_use]
    pub fn stack(&self, addresses: impl IntoIterator<Item = CodeAddress>) -> Vec<Frame> {
        addresses
            .into_iter()
            .flat_map(|address| self.frames(address))
            .cloned()
            .collect()
    }
}

/// Names the addresses. What cannot be named gets a frame that says where it is.
#[must_use]
pub fn resolve(modules: &Modules, addresses: impl IntoIterator<Item = CodeAddress>) -> Names {
    let distinct: HashSet<CodeAddress> = addresses.into_iter().collect();
    let mut names = HashMap::with_capacity(distinct.len());
    // Two files can have one name, and one file is one even if its name is not known.
    let mut by_file: BTreeMap<(&str, *const ModuleFile), (&ModuleFile, Vec<Spot>)> =
        BTreeMap::new();
    for address in distinct {
        if let Some((file, offset)) = modules.find(address.lookup()) {
            by_file
                .entry((&file.name, Arc::as_ptr(file)))
                .or_insert_with(|| (file, Vec::new()))
                .1
                .push(Spot { address, offset });
        } else {
            let frame = Frame {
                offset: address.get(),
                ..Frame::default()
            };
            names.insert(address, [frame].into());
        }
    }
    let mut interned = Interned::default();
    for (file, mut spots) in by_file.into_values() {
        spots.sort_unstable_by_key(|spot| spot.offset);
        let mut found = HashMap::new();
        // A parser that trips over a hostile file must not cost the whole report.
        let _tripped = catch_unwind(AssertUnwindSafe(|| {
            name_file(modules, file, &spots, &mut interned, &mut found);
        }));
        for spot in spots {
            let frames = found.remove(&spot.address).unwrap_or_else(|| {
                [Frame {
                    module: Some(Arc::clone(&file.name)),
                    offset: spot.reported(),
                    ..Frame::default()
                }]
                .into()
            });
            names.insert(spot.address, frames);
        }
    }
    Names(names)
}

/// An address and the offset in its file to look up.
#[derive(Clone, Copy)]
struct Spot {
    address: CodeAddress,
    offset: u64,
}

impl Spot {
    /// The offset in the file of the address in the stack.
    fn reported(self) -> u64 {
        self.offset.wrapping_add(self.address.past())
    }
}

/// Asks the file's sources in turn: the separate debug file, then the file itself; each with its debug information
/// where that is safe, then by its symbols alone.
fn name_file(
    modules: &Modules,
    file: &ModuleFile,
    spots: &[Spot],
    interned: &mut Interned,
    found: &mut HashMap<CodeAddress, Arc<[Frame]>>,
) {
    let Some(facts) = &file.facts else {
        return;
    };
    let mut pending: Vec<(Spot, u64)> = spots
        .iter()
        .filter_map(|spot| Some((*spot, facts.virtual_address(spot.offset)?)))
        .collect();
    let mut sources: Vec<(File, bool)> = Vec::new();
    if let Some(debug) = modules.debug_file(file, facts) {
        sources.push((debug.file, debug.follow));
    }
    if let Ok(opened) = file.open(modules.target_root.as_ref()) {
        sources.push((opened, !facts.links));
    }
    for (source, follow) in &sources {
        for debug_syms in [true, false] {
            if pending.is_empty() || (debug_syms && !follow) {
                continue;
            }
            pending = name_from(source, debug_syms, &file.name, &pending, interned, found);
        }
    }
}

/// Names what one source can name, and gives back the rest.
fn name_from(
    source: &File,
    debug_syms: bool,
    module: &Arc<str>,
    pending: &[(Spot, u64)],
    interned: &mut Interned,
    found: &mut HashMap<CodeAddress, Arc<[Frame]>>,
) -> Vec<(Spot, u64)> {
    let mut elf = Elf::new(format!("/proc/self/fd/{}", source.as_raw_fd()));
    elf.debug_syms = debug_syms;
    let source = Source::Elf(elf);
    // Dropped at the end, with all that it parsed.
    let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
    let mut rest = Vec::new();
    for batch in pending.chunks(BATCH) {
        let addresses: Vec<u64> = batch.iter().map(|(_, address)| *address).collect();
        let Ok(answers) = symbolizer.symbolize(&source, Input::VirtOffset(&addresses)) else {
            rest.extend_from_slice(batch);
            continue;
        };
        for ((spot, address), answer) in batch.iter().zip(&answers) {
            let frames = interned.frames(module, spot.reported(), answer);
            if frames.is_empty() {
                rest.push((*spot, *address));
            } else {
                found.insert(spot.address, frames.into());
            }
        }
    }
    rest
}

/// Names and paths, each stored once.
#[derive(Default)]
struct Interned {
    /// Readable names by mangled ones.
    functions: HashMap<String, Arc<str>>,
    paths: HashSet<Arc<str>>,
}

impl Interned {
    /// The frames in an answer: none if the source does not know the address.
    fn frames(&mut self, module: &Arc<str>, offset: u64, answer: &Symbolized<'_>) -> Vec<Frame> {
        let Symbolized::Sym(symbol) = answer else {
            return Vec::new();
        };
        if symbol.name.is_empty() {
            return Vec::new();
        }
        let mut frame = |name: &str, code: Option<&CodeInfo<'_>>, inlined| Frame {
            function: Some(self.function(name)),
            module: Some(Arc::clone(module)),
            offset,
            file: code.map(|code| self.path(&code.to_path().to_string_lossy())),
            line: code.and_then(|code| code.line),
            inlined,
        };
        let mut frames: Vec<Frame> = symbol
            .inlined
            .iter()
            .rev()
            .map(|inlined| frame(&inlined.name, inlined.code_info.as_ref(), true))
            .collect();
        frames.push(frame(&symbol.name, symbol.code_info.as_deref(), false));
        frames
    }

    fn function(&mut self, mangled: &str) -> Arc<str> {
        if let Some(name) = self.functions.get(mangled) {
            return Arc::clone(name);
        }
        let name: Arc<str> = demangle(mangled).into();
        self.functions.insert(mangled.to_owned(), Arc::clone(&name));
        name
    }

    fn path(&mut self, path: &str) -> Arc<str> {
        let path = &path[..path.floor_char_boundary(PATH_LIMIT)];
        if let Some(path) = self.paths.get(path) {
            return Arc::clone(path);
        }
        let path: Arc<str> = path.into();
        self.paths.insert(Arc::clone(&path));
        path
    }
}

#[cfg(test)]
mod tests;
