//! Tables of the machine's own objects: every row against gimli's evaluation, and walks against the calls and returns
//! that a program really made.

mod garbled;
mod rows;
mod small;
mod tracee;
mod walks;

use std::{fs, os::unix::fs::FileExt, path::Path};

use crate::target::maps;

/// The vDSO, from this process's memory.
fn vdso() -> Vec<u8> {
    let mappings = maps::read(std::process::id()).unwrap();
    let vdso = mappings
        .iter()
        .find(|mapping| mapping.path.as_encoded_bytes() == b"[vdso]")
        .expect("the kernel maps a vDSO");
    let mut bytes = vec![0; usize::try_from(vdso.end - vdso.start).unwrap()];
    fs::File::open("/proc/self/mem")
        .unwrap()
        .read_exact_at(&mut bytes, vdso.start)
        .unwrap();
    bytes
}

/// The files among `paths` that exist here.
fn installed(paths: &[&'static str]) -> Vec<&'static str> {
    let (found, missing): (Vec<_>, Vec<_>) = paths
        .iter()
        .copied()
        .partition(|path| Path::new(path).exists());
    if !missing.is_empty() {
        println!("not installed: {missing:?}");
    }
    found
}
