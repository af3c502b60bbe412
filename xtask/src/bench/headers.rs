//! Kernel headers for bcc's memleak, on a machine whose running kernel brings none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::{run, step};

/// Where Debian installs headers.
const INSTALLED: &str = "/usr/src";

/// A folder of kernel headers in the shape that bcc expects; `None` where the running kernel has its own.
pub(crate) fn provide(workspace: &Path) -> Result<Option<PathBuf>> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let own = Path::new("/lib/modules").join(release.trim()).join("build");
    if own.is_dir() {
        return Ok(None);
    }
    let mut found: Vec<PathBuf> = fs::read_dir(INSTALLED)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with("-amd64"))
        .filter(|path| common(path).is_some_and(|common| common.is_dir()))
        .collect();
    found.sort();
    let newest = found
        .pop()
        .context("no kernel headers: apt-get install linux-headers-amd64")?;
    let common = common(&newest).context("the headers have a common part")?;
    let merged = workspace.join("target/xtask/kernel-headers");
    step("merge Debian's kernel headers for bcc", || {
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        for part in [&common, &newest] {
            run(Command::new("cp")
                .arg("-rsf")
                .arg(part.join("."))
                .arg(&merged))?;
        }
        Ok(())
    })?;
    Ok(Some(merged))
}

/// The part of Debian's headers that all flavours share.
fn common(flavour: &Path) -> Option<PathBuf> {
    let name = flavour.file_name()?.to_str()?.strip_suffix("-amd64")?;
    Some(flavour.with_file_name(format!("{name}-common")))
}
