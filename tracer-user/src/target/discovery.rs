//! Finds the allocators of a process: which of its mapped objects define one, and which of them serves `malloc`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use object::read::ReadCache;

use super::{
    Allocator, AllocatorKind, Site,
    error::TargetError,
    loader::{SearchOrder, executable_mapping, search_order},
    maps::Mapping,
    objects::{CodeFile, FileIdentity, MappedFile, OpenObject, base_name, code_files, open_mapped},
    process::Process,
    reason::{Link, Standing},
    scan::{Group, Scan},
    user::{UserFunctions, UserMatches},
};
use crate::{
    elf::object_file::ElfObject,
    files::{debug::DebugSearch, root::Root},
};

/// Remembers what was looked at, so that another scan looks only at what is new.
#[derive(Debug)]
pub struct Discovery {
    user: UserFunctions,
    debug_folders: Vec<PathBuf>,
    seen_files: HashSet<MappedFile>,
    seen_identities: HashSet<FileIdentity>,
    user_resolved: BTreeSet<usize>,
    /// Base name of the object that serves plain `malloc`.
    server: Option<String>,
    /// Whether an allocator was found.
    found: bool,
    /// Whether a process that was up was scanned.
    scanned: bool,
    unwinders: Vec<Unwinder>,
}

/// A function by which the C++ runtime begins to unwind the stack.
#[derive(Clone, Debug)]
pub struct Unwinder {
    /// The object's path as the target sees it.
    pub object: String,
    /// A path through which the kernel reaches exactly the mapped inode.
    pub attach_path: PathBuf,
    /// Where to put the probe.
    pub site: Site,
}

/// One object that was looked at.
struct Object {
    file: MappedFile,
    executable: bool,
    soname: Option<String>,
    attach_path: PathBuf,
    identity: FileIdentity,
    groups: Vec<Group>,
    unwinders: Vec<Site>,
}

impl Discovery {
    /// Prepares for a process; `user` names functions of the user's own.
    #[must_use]
    pub fn new(user: UserFunctions) -> Self {
        Self {
            user,
            debug_folders: Vec::new(),
            seen_files: HashSet::new(),
            seen_identities: HashSet::new(),
            user_resolved: BTreeSet::new(),
            server: None,
            found: false,
            scanned: false,
            unwinders: Vec::new(),
        }
    }

    /// Searches debug files in these folders first.
    #[must_use]
    pub fn with_debug_folders(self, debug_folders: Vec<PathBuf>) -> Self {
        Self {
            debug_folders,
            ..self
        }
    }

    /// Looks at the objects that the process maps as code and that were not looked at before. The object that
    /// serves plain `malloc` comes first.
    ///
    /// The first scan of a process whose loader has not mapped its libraries yet finds none, which is no error:
    /// scan again when the loader announces a change.
    ///
    /// # Errors
    ///
    /// When the process has exited or cannot be looked at, when the first scan finds no allocator in a process that
    /// is up, or when a function that the user named is missing. What was looked at then counts as seen: begin anew
    /// with another `Discovery`.
    pub fn scan(&mut self, process: &Process) -> Result<Vec<Allocator>, TargetError> {
        let mappings = process.mappings()?;
        let late = self.scanned;
        let new: Vec<CodeFile> = code_files(&mappings)
            .into_iter()
            .filter(|code| !self.seen_files.contains(&code.file))
            .collect();
        if late && new.is_empty() {
            return Ok(Vec::new());
        }
        let order = search_order(process)?;
        let executable = executable_mapping(process, &mappings)?.and_then(MappedFile::of);
        let mut user = UserMatches::new(&self.user, &mut self.user_resolved);
        let mut looked_at = Vec::new();
        let mut objects = Vec::new();
        for code in new {
            self.seen_files.insert(code.file.clone());
            let name = base_name(code.file.path());
            match open_mapped(process, &code.mapping) {
                Ok(opened) => {
                    looked_at.push(name);
                    if self.seen_identities.insert(opened.identity) {
                        let executable = executable.as_ref() == Some(&code.file);
                        let folders = &self.debug_folders;
                        let object =
                            look_at(process, &code.file, executable, opened, folders, &mut user);
                        objects.extend(object);
                    }
                }
                Err(error) => looked_at.push(format!("{name} (cannot be opened: {error})")),
            }
        }
        let starting = match order {
            SearchOrder::Starting => true,
            SearchOrder::Known { settled, .. } => !settled,
            SearchOrder::Static | SearchOrder::Unknown(_) => false,
        };
        for object in &objects {
            self.unwinders
                .extend(object.unwinders.iter().map(|site| Unwinder {
                    object: object.file.path().to_string_lossy().into_owned(),
                    attach_path: object.attach_path.clone(),
                    site: site.clone(),
                }));
        }
        let mut allocators = user.finish(late || starting)?;
        allocators.extend(self.arrange(process, &mappings, &order, objects));
        self.found |= !allocators.is_empty();
        if !self.found && !late && !starting {
            // A process that has just gone looks as if it had nothing.
            process.status()?;
            return Err(no_allocator(process, &looked_at));
        }
        self.scanned |= !starting;
        Ok(allocators)
    }

    /// The functions, found by the scans since the last call, that begin to unwind the stack for an exception.
    pub fn take_unwinders(&mut self) -> Vec<Unwinder> {
        std::mem::take(&mut self.unwinders)
    }

    /// Puts the allocators in the order in which they serve `malloc`, each with the reason.
    fn arrange(
        &mut self,
        process: &Process,
        mappings: &[Mapping],
        order: &SearchOrder,
        mut objects: Vec<Object>,
    ) -> Vec<Allocator> {
        let positions = positions(mappings, order);
        let first_needed = objects
            .iter()
            .filter(|object| object.is_needed_by(process))
            .filter_map(|object| positions.get(&object.file))
            .min();
        objects.retain(|object| !object.groups.is_empty());
        objects.sort_by_key(|object| {
            let position = positions.get(&object.file).copied().unwrap_or(usize::MAX);
            (
                !object.serves_malloc(),
                !object.executable,
                position,
                object.is_libc(),
            )
        });
        let mut servers = objects
            .iter()
            .filter(|object| object.serves_malloc())
            .map(Object::name);
        let first = servers.next();
        let runner_up = servers.next();
        let served_before = self.server.clone();
        if self.server.is_none() {
            self.server.clone_from(&first);
        }
        let mut allocators = Vec::new();
        for (index, object) in objects.into_iter().enumerate() {
            let other_server = served_before
                .as_deref()
                .or_else(|| first.as_deref().filter(|_| index > 0));
            for group in &object.groups {
                let standing = Standing {
                    prefix: group.prefix,
                    executable: object.executable,
                    link: match (positions.get(&object.file), first_needed) {
                        _ if object.is_needed_by(process) => Link::Executable,
                        (Some(position), Some(first)) if position < first => Link::Preload,
                        _ => Link::Library,
                    },
                    server: other_server,
                    runner_up: runner_up.as_deref(),
                    order,
                    late: self.scanned,
                };
                allocators.push(object.allocator(group, standing.sentence()));
            }
        }
        allocators
    }
}

impl Object {
    fn name(&self) -> String {
        base_name(self.file.path())
    }

    fn plain(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.prefix.is_none())
    }

    fn serves_malloc(&self) -> bool {
        self.plain()
            .is_some_and(|group| group.exports_malloc || self.executable)
    }

    fn is_libc(&self) -> bool {
        self.plain()
            .is_some_and(|group| matches!(group.kind, AllocatorKind::Glibc | AllocatorKind::Musl))
    }

    fn is_needed_by(&self, process: &Process) -> bool {
        let needed = &process.exe_facts().needed;
        self.soname
            .as_ref()
            .is_some_and(|soname| needed.contains(soname))
    }

    fn allocator(&self, group: &Group, reason: String) -> Allocator {
        Allocator {
            object: self.file.path().to_string_lossy().into_owned(),
            kind: group.kind,
            reason,
            attach_path: self.attach_path.clone(),
            identity: self.identity,
            functions: group.functions.clone(),
            unprobed: group.unprobed.clone(),
        }
    }
}

fn look_at(
    process: &Process,
    file: &MappedFile,
    executable: bool,
    opened: OpenObject,
    debug_folders: &[PathBuf],
    user: &mut UserMatches<'_>,
) -> Option<Object> {
    let OpenObject {
        file: opened,
        attach_path,
        identity,
    } = opened;
    let cache = ReadCache::new(opened);
    let object = ElfObject::parse(&cache).ok()?;
    let facts = object.facts();
    // glibc's loader has an allocator for its own start, which the C library's replaces.
    if facts
        .soname
        .as_deref()
        .is_some_and(|soname| soname.starts_with("ld-linux"))
    {
        return None;
    }
    let mut scan = Scan::default();
    let mut named = user.object(file.path(), executable);
    object.for_each_function(|symbol| {
        scan.see(&symbol);
        named.see(&symbol);
    });
    if !facts.symtab && (executable || named.is_wanted()) {
        let (target, host) = (Root::open(&process.root()), Root::open(Path::new("/")));
        let search = DebugSearch {
            folders: debug_folders,
            target: target.as_ref().ok(),
            host: host.as_ref().ok(),
        };
        if let Some(debug) = search.find(Path::new(file.path()), &facts) {
            let cache = ReadCache::new(debug.file);
            if let Ok(debug) = ElfObject::parse(&cache) {
                debug.for_each_function(|symbol| {
                    scan.see(&symbol);
                    named.see(&symbol);
                });
            }
        }
    }
    let taken = named.resolve(&object, &facts, &attach_path, identity);
    Some(Object {
        file: file.clone(),
        executable,
        unwinders: scan.unwinders(&object, &facts),
        groups: scan.groups(&object, &facts, &taken),
        soname: facts.soname,
        attach_path,
        identity,
    })
}

/// The place of each object in the loader's order.
fn positions(mappings: &[Mapping], order: &SearchOrder) -> HashMap<MappedFile, usize> {
    let SearchOrder::Known { addresses, .. } = order else {
        return HashMap::new();
    };
    addresses
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(position, address)| {
            let mapping = mappings.iter().find(|mapping| mapping.contains(*address))?;
            Some((MappedFile::of(mapping)?, position))
        })
        .collect()
}

fn no_allocator(process: &Process, looked_at: &[String]) -> TargetError {
    const MOST_NAMES: usize = 8;
    let facts = process.exe_facts();
    let cause = if facts.go {
        "it is a Go program, and Go's own allocator takes its memory from the kernel directly (a heap profile of \
         Go's own, net/http/pprof, shows it)"
    } else if facts.interpreter.is_none() && !facts.symtab {
        "it is a static executable without symbols: install its debug file below /usr/lib/debug, or name its \
         functions with --alloc and --free"
    } else {
        "if it has an allocator of its own, name its functions with --alloc and --free"
    };
    let distinct: BTreeSet<&String> = looked_at.iter().collect();
    let mut names: Vec<&str> = distinct.iter().map(|name| name.as_str()).collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    let mut looked_at = names.join(", ");
    if more > 0 {
        looked_at = format!("{looked_at} and {more} more");
    }
    TargetError::NoAllocator {
        pid: process.pid(),
        comm: process.comm().to_owned(),
        looked_at,
        cause: cause.to_owned(),
    }
}
