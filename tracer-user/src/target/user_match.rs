//! Finds the functions that the user named among the symbols of the mapped objects.

use std::{collections::BTreeSet, ffi::OsStr, path::Path};

use cpp_demangle::{DemangleOptions, Symbol};
use object::ReadRef;

use super::{
    Allocator, AllocatorKind, Function,
    objects::{FileIdentity, base_name},
    scan::site_of,
    user::{ObjectName, UserFunction, UserFunctionError},
};
use crate::elf::{
    object_file::{ElfObject, ObjectFacts},
    symbols::FunctionSymbol,
};

/// Names offered when one is unknown.
const MOST_HINTS: usize = 3;

/// How alike a name must be to be offered, from 0 to 1.
const ALIKE: f64 = 0.75;

/// The search for the user's functions through one scan of a process's objects.
#[derive(Debug)]
pub(super) struct UserMatches<'u> {
    functions: &'u [UserFunction],
    resolved: &'u mut BTreeSet<usize>,
    allocators: Vec<Allocator>,
    errors: Vec<(usize, UserFunctionError)>,
    objects: Closest,
}

/// The search through one object.
#[derive(Debug)]
pub(super) struct ObjectMatches<'m, 'u> {
    matches: &'m mut UserMatches<'u>,
    path: String,
    wanted: Vec<Wanted<'u>>,
}

#[derive(Debug)]
struct Wanted<'u> {
    index: usize,
    function: &'u UserFunction,
    /// Whether the name can only be a demangled one.
    demangled: bool,
    found: Vec<Candidate>,
    closest: Closest,
}

#[derive(Debug)]
struct Candidate {
    name: String,
    address: u64,
    size_bytes: u64,
}

impl<'u> UserMatches<'u> {
    /// Prepares for a scan; functions in `resolved` were found by an earlier one.
    pub(super) fn new(functions: &'u [UserFunction], resolved: &'u mut BTreeSet<usize>) -> Self {
        Self {
            functions,
            resolved,
            allocators: Vec::new(),
            errors: Vec::new(),
            objects: Closest::default(),
        }
    }

    /// Begins with an object.
    pub(super) fn object(&mut self, path: &OsStr, executable: bool) -> ObjectMatches<'_, 'u> {
        let functions = self.functions;
        let name = base_name(path);
        for function in functions {
            self.objects.offer(&function.object.to_string(), &name);
        }
        let wanted = functions
            .iter()
            .enumerate()
            .filter(|(_, function)| is_meant(&function.object, path, &name, executable))
            .map(|(index, function)| Wanted {
                index,
                function,
                demangled: function.symbol.contains(|character: char| {
                    !character.is_ascii_alphanumeric() && !"_.$".contains(character)
                }),
                found: Vec::new(),
                closest: Closest::default(),
            })
            .collect();
        ObjectMatches {
            matches: self,
            path: path.to_string_lossy().into_owned(),
            wanted,
        }
    }

    /// The allocators that the user's functions make up. With `lenient`, functions that were not found are passed
    /// over: their object may still be loaded.
    pub(super) fn finish(self, lenient: bool) -> Result<Vec<Allocator>, UserFunctionError> {
        let mut errors = self.errors;
        for (index, function) in self.functions.iter().enumerate() {
            if lenient || self.resolved.contains(&index) {
                continue;
            }
            let position = errors.iter().position(|(of, _)| *of == index);
            return Err(match position {
                Some(position) => errors.swap_remove(position).1,
                None => UserFunctionError::NoObject {
                    kind: function.kind,
                    object: function.object.to_string(),
                    hint: self.objects.hint(),
                },
            });
        }
        Ok(self.allocators)
    }
}

fn is_meant(wanted: &ObjectName, path: &OsStr, name: &str, executable: bool) -> bool {
    match wanted {
        ObjectName::Executable => executable,
        ObjectName::Path(wanted) => Path::new(wanted) == Path::new(path),
        ObjectName::Name(wanted) => name
            .strip_prefix(wanted.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

impl ObjectMatches<'_, '_> {
    /// Whether a function is wanted from this object.
    pub(super) const fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Looks at one symbol.
    pub(super) fn see(&mut self, symbol: &FunctionSymbol<'_>) {
        for wanted in &mut self.wanted {
            let name = &wanted.function.symbol;
            let hit = if wanted.demangled {
                let Some(names) = demangle(symbol.name) else {
                    continue;
                };
                wanted.closest.offer(name, &names.short);
                *name == names.short || *name == names.full
            } else {
                wanted.closest.offer(name, symbol.name);
                name == symbol.name
            };
            if hit
                && !wanted
                    .found
                    .iter()
                    .any(|found| found.address == symbol.address)
            {
                wanted.found.push(Candidate {
                    name: symbol.name.to_owned(),
                    address: symbol.address,
                    size_bytes: symbol.size_bytes,
                });
            }
        }
    }

    /// Chooses the sites; gives the addresses of the functions.
    pub(super) fn resolve<'data, R: ReadRef<'data>>(
        self,
        object: &ElfObject<'data, R>,
        facts: &ObjectFacts,
        attach_path: &Path,
        identity: FileIdentity,
    ) -> BTreeSet<u64> {
        let Self {
            matches,
            path,
            wanted,
        } = self;
        let mut addresses = BTreeSet::new();
        let mut functions = Vec::new();
        for wanted in wanted {
            match wanted.resolve(object, facts, &path) {
                Ok((address, function)) => {
                    matches.resolved.insert(wanted.index);
                    if addresses.insert(address) {
                        functions.push(function);
                    }
                }
                Err(error) => matches.errors.push((wanted.index, error)),
            }
        }
        if !functions.is_empty() {
            functions.sort_by_key(|function| !function.shape.is_free());
            matches.allocators.push(Allocator {
                object: path,
                kind: AllocatorKind::User,
                reason: "its functions were named by --alloc, --realloc and --free".to_owned(),
                attach_path: attach_path.to_owned(),
                identity,
                functions,
                unprobed: Vec::new(),
            });
        }
        addresses
    }
}

impl Wanted<'_> {
    fn resolve<'data, R: ReadRef<'data>>(
        &self,
        object: &ElfObject<'data, R>,
        facts: &ObjectFacts,
        path: &str,
    ) -> Result<(u64, Function), UserFunctionError> {
        let UserFunction {
            kind,
            symbol,
            shape,
            ..
        } = self.function;
        let (kind, symbol, path) = (*kind, symbol.clone(), path.to_owned());
        match self.found.as_slice() {
            [] => Err(UserFunctionError::NoSymbol {
                kind,
                object: path,
                symbol,
                hint: self.closest.hint(),
            }),
            [one] => {
                let (site, shape) = site_of(object, facts, one.address, one.size_bytes, *shape)
                    .map_err(|reason| UserFunctionError::Unprobed {
                        kind,
                        object: path,
                        symbol,
                        reason,
                    })?;
                let function = Function {
                    name: one.name.clone(),
                    aliases: Vec::new(),
                    shape,
                    site,
                };
                Ok((one.address, function))
            }
            several => Err(UserFunctionError::Ambiguous {
                kind,
                object: path,
                symbol,
                names: several
                    .iter()
                    .map(|found| match demangle(&found.name) {
                        Some(names) => format!("{} ({})", found.name, names.full),
                        None => found.name.clone(),
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}

/// A demangled name, without and with its parameters.
struct Demangled {
    short: String,
    full: String,
}

fn demangle(name: &str) -> Option<Demangled> {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        let name = format!("{rust:#}");
        return Some(Demangled {
            short: name.clone(),
            full: name,
        });
    }
    if !name.starts_with("_Z") {
        return None;
    }
    let symbol = Symbol::new(name).ok()?;
    let options = DemangleOptions::new();
    Some(Demangled {
        short: symbol
            .demangle_with_options(&options.no_params().no_return_type())
            .ok()?,
        full: symbol
            .demangle_with_options(&DemangleOptions::new().no_return_type())
            .ok()?,
    })
}

/// The names most like one that was not found.
#[derive(Debug, Default)]
struct Closest(Vec<(f64, String)>);

impl Closest {
    fn offer(&mut self, wanted: &str, name: &str) {
        let alike = strsim::jaro_winkler(wanted, name);
        let enters = self.0.len() < MOST_HINTS || self.0.iter().any(|(other, _)| *other < alike);
        if alike >= ALIKE && enters && !self.0.iter().any(|(_, other)| other == name) {
            self.0.push((alike, name.to_owned()));
            self.0.sort_by(|(one, _), (other, _)| other.total_cmp(one));
            self.0.truncate(MOST_HINTS);
        }
    }

    fn hint(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(_, name)| name.as_str()).collect();
        if names.is_empty() {
            String::new()
        } else {
            format!("; did you mean {}?", names.join(", or "))
        }
    }
}
