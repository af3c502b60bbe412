//! Fetches debug files from the servers that the user named, before the names are looked up.

use super::{Observer, Options, snapshot::Snapshot};
use crate::symbolize::Modules;

/// Fetches what is missing to name a snapshot's stacks. Says why nothing is fetched, where the user asked for it.
#[cfg(feature = "debuginfod")]
pub(super) fn fetch(
    options: &Options,
    snapshot: &Snapshot,
    modules: &mut Modules,
    observer: &dyn Observer,
) {
    use crate::files::{
        cache::Folder,
        debuginfod::{Debuginfod, Patience},
    };

    let Some(urls) = &options.debuginfod_urls else {
        return;
    };
    let Some(folder) = &options.debuginfod_folder else {
        observer.notice(
            "no debug files are fetched, since there is no cache to keep them in (--no-cache; DEBUGINFOD_CACHE_PATH \
             names another)",
        );
        return;
    };
    let folder = match Folder::open(folder) {
        Ok(folder) => folder,
        Err(error) => {
            observer.notice(&format!("no debug files are fetched: {error}"));
            return;
        }
    };
    let mut client = Debuginfod::new(urls, folder, Patience::default());
    modules.fetch_debug_files(snapshot.addresses(), |build_id, module| {
        client.fetch(build_id, module, &mut |text| observer.notice(text))
    });
}

/// Says that nothing can be fetched, where the user asked for it.
#[cfg(not(feature = "debuginfod"))]
pub(super) fn fetch(
    options: &Options,
    _snapshot: &Snapshot,
    _modules: &mut Modules,
    observer: &dyn Observer,
) {
    if options.debuginfod_urls.is_some() {
        observer
            .notice("DEBUGINFOD_URLS has no effect: this memtrace was built without debuginfod");
    }
}
