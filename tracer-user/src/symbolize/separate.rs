//! The separate debug files of modules: found on disk, or fetched before the names are looked up.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    CodeAddress, Modules,
    file::{Facts, ModuleFile},
};
use crate::files::debug::{DebugSearch, identifying};

/// Modules that debug files are fetched for in a run, at most: those with the most addresses to name.
const MAX_FETCHED: usize = 16;

/// Where debug files come from, but for the usual places.
#[derive(Debug, Default)]
pub(super) struct DebugFiles {
    folders: Vec<PathBuf>,
    /// By build id.
    fetched: HashMap<Vec<u8>, File>,
}

/// A debug file of a module.
pub(super) struct Separate {
    pub(super) file: File,
    /// Whether the files that it names may be opened.
    pub(super) follow: bool,
}

impl Modules {
    /// Searches debug files in these folders of the host first.
    pub fn search_debug_files_in(&mut self, folders: Vec<PathBuf>) {
        self.debug_files.folders = folders;
    }

    /// Asks `fetch` for the debug files that are missing to name the addresses. It is given a build id and the module's
    /// name; what it returns must be of that build.
    pub fn fetch_debug_files(
        &mut self,
        addresses: impl IntoIterator<Item = CodeAddress>,
        mut fetch: impl FnMut(&[u8], &str) -> Option<File>,
    ) {
        let mut used: HashMap<*const ModuleFile, (Arc<ModuleFile>, usize)> = HashMap::new();
        for address in addresses {
            if let Some((file, _)) = self.find(address.lookup()) {
                let entry = used.entry(Arc::as_ptr(file));
                entry.or_insert_with(|| (Arc::clone(file), 0)).1 += 1;
            }
        }
        let mut missing: Vec<(Arc<ModuleFile>, usize)> = used
            .into_values()
            .filter(|(file, _)| self.lacks_debug_file(file))
            .collect();
        missing.sort_by(|(file, count), (other, others)| {
            others.cmp(count).then_with(|| file.name.cmp(&other.name))
        });
        for (file, _) in missing.iter().take(MAX_FETCHED) {
            if let Some(id) = file.facts.as_ref().and_then(Facts::build_id)
                && let Some(fetched) = fetch(id, &file.name)
            {
                self.debug_files.fetched.insert(id.to_vec(), fetched);
            }
        }
    }

    fn lacks_debug_file(&self, file: &ModuleFile) -> bool {
        // The vDSO has all its names.
        file.facts.as_ref().is_some_and(|facts| {
            !file.name.starts_with('[')
                && !facts.debug_info
                && facts.build_id().is_some()
                && self.debug_file(file, facts).is_none()
        })
    }

    /// The debug file of a module.
    pub(super) fn debug_file(&self, file: &ModuleFile, facts: &Facts) -> Option<Separate> {
        let search = DebugSearch {
            folders: &self.debug_files.folders,
            target: self.target_root.as_ref(),
            host: self.host_root.as_ref(),
        };
        let found = search
            .find(Path::new(&*file.name), &facts.object)
            .map(|found| (found.file, found.trusted));
        let fetched = || {
            let fetched = self.debug_files.fetched.get(identifying(&facts.object)?)?;
            Some((fetched.try_clone().ok()?, false))
        };
        let (file, trusted) = found.or_else(fetched)?;
        let links = Facts::read(&file).ok()?.links;
        Some(Separate {
            file,
            follow: trusted || !links,
        })
    }
}
