//! `cargo xtask ebpf`: the checked-in BPF object, rebuilt or checked against its sources.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::bpf_object::{self, OBJECT, RECORDED};
use crate::shell::{run, step, workspace};
use crate::strip::strip;

const LINKER_VERSION: &str = "0.13.0";

/// Rebuilds the object and checks it in, or with `check` only compares.
pub(crate) fn run_task(check: bool) -> Result<()> {
    let workspace = workspace()?;
    let linker = linker(&workspace)?;
    let built = step("compile the BPF programs", || {
        let built = bpf_object::build(&workspace, &workspace.join("target/ebpf"), &linker)?;
        strip(&fs::read(built)?)
    })?;
    if check {
        step("compare with the checked-in object", || {
            compare(&workspace, &built)
        })?;
        return step("lint the BPF programs", || {
            let target_dir = workspace.join("target/ebpf");
            let mut clippy = bpf_object::cargo_for_bpf(&workspace, "clippy", &target_dir)?;
            run(clippy.args(["--", "--deny", "warnings"]))
        });
    }
    fs::write(workspace.join(OBJECT), &built)
        .with_context(|| format!("could not write {OBJECT}"))?;
    let hash = bpf_object::sources_hash(&workspace)?;
    fs::write(workspace.join(RECORDED), format!("{hash}\n"))
        .with_context(|| format!("could not write {RECORDED}"))?;
    println!("{OBJECT}: {} bytes, sources {hash}", built.len());
    Ok(())
}

fn compare(workspace: &Path, built: &[u8]) -> Result<()> {
    if !bpf_object::is_current(workspace)? {
        bail!(
            "{RECORDED} does not name this tree's sources: run `{}`",
            bpf_object::REBUILD
        );
    }
    if built != fs::read(workspace.join(OBJECT))? {
        bail!(
            "{OBJECT} is not what its sources make: run `{}`",
            bpf_object::REBUILD
        );
    }
    println!("    {OBJECT} is what its sources make");
    Ok(())
}

/// bpf-linker, installed below `target/tools` where it is missing.
fn linker(workspace: &Path) -> Result<PathBuf> {
    if let Some(found) = bpf_object::find_linker(workspace) {
        return Ok(found);
    }
    let what = format!("install bpf-linker {LINKER_VERSION} into target/tools (about a minute)");
    step(&what, || install_linker(workspace))?;
    bpf_object::find_linker(workspace).context("bpf-linker was installed, but is not there")
}

/// Builds bpf-linker against the LLVM that rustc ships, so that it reads the bitcode of exactly this rustc.
fn install_linker(workspace: &Path) -> Result<()> {
    let lib = bpf_object::sysroot(workspace)?.join("lib");
    let llvm = fs::read_dir(&lib)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libLLVM.so.")
        })
        .with_context(|| format!("rustc has no shared LLVM in {}", lib.display()))?;
    let prefix = workspace.join("target/tools/llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    symlink(&llvm, &link)?;
    run(bpf_object::cargo(workspace)
        .args(["install", "bpf-linker", "--quiet", "--locked"])
        .args(["--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", "llvm-22"])
        .arg("--root")
        .arg(workspace.join("target/tools"))
        .env("CARGO_TARGET_DIR", workspace.join("target/tools/build"))
        .env("LLVM_PREFIX", &prefix)
        .env(
            "RUSTFLAGS",
            format!("-Clink-arg=-Wl,-rpath,{}", lib.display()),
        ))
}
