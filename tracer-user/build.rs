//! Puts the BPF object where the collector embeds it: the checked-in one when its sources are unchanged, otherwise
//! one compiled from them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

#[path = "../tracer-ebpf/object/mod.rs"]
mod object;

fn main() -> ExitCode {
    match embed() {
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
