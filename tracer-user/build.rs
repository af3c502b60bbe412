//! Puts the BPF object where the collector embeds it: the checked-in one when its sources are unchanged, otherwise
//! one compiled from them.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

#[path = "../tracer-ebpf/object/mod.rs"]
mod object;

/// What makes unwind tables: a table in the cache counts only for the very code that made it.
const TABLE_MAKERS: [&str; 3] = [
    "tracer-user/src/elf",
    "tracer-common/src/unwind",
    "Cargo.lock",
];

fn main() -> ExitCode {
    match embed().and_then(|()| name_table_makers()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Copies the object that fits the sources to where the collector embeds it.
fn embed() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in a workspace")?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    for source in object::SOURCES
        .iter()
        .chain([&object::OBJECT, &object::RECORDED, &"Cargo.lock"])
    {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    println!("cargo::rerun-if-env-changed=BPF_LINKER");

    let made = if object::is_current(workspace)? {
        workspace.join(object::OBJECT)
    } else {
        let linker = object::find_linker(workspace).with_context(|| {
            format!(
                "the sources of the BPF programs differ from those of the checked-in object, and bpf-linker, which \
                 links them anew, is not in PATH; to install it and to rebuild the object: {}",
                object::REBUILD
            )
        })?;
        object::build(workspace, &out_dir.join("ebpf"), &linker)?
    };
    let embedded = out_dir.join("memtrace.bpf.o");
    fs::copy(&made, &embedded).with_context(|| {
        format!(
            "could not copy {} to {}",
            made.display(),
            embedded.display()
        )
    })?;
    Ok(())
}

/// Tells the sources of the code that makes unwind tables apart from every other version of them.
fn name_table_makers() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in a workspace")?;
    let mut hash = Sha256::new();
    for maker in TABLE_MAKERS {
        let path = workspace.join(maker);
        println!("cargo::rerun-if-changed={}", path.display());
        add(&mut hash, &path)?;
    }
    let hex = hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _never = write!(hex, "{byte:02x}");
        hex
    });
    println!("cargo::rustc-env=MEMTRACE_TABLE_MAKERS={hex}");
    Ok(())
}

/// Adds a file, or all files of a folder.
fn add(hash: &mut Sha256, path: &Path) -> Result<()> {
    let unreadable = || format!("could not read {}", path.display());
    if path.is_dir() {
        let mut paths = fs::read_dir(path)
            .with_context(unreadable)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        paths.sort();
        return paths.iter().try_for_each(|path| add(hash, path));
    }
    let content = fs::read(path).with_context(unreadable)?;
    hash.update((content.len() as u64).to_le_bytes());
    hash.update(content);
    Ok(())
}
