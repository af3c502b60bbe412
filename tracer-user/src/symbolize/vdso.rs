//! The vDSO as a file: code that the kernel maps into every process and that no file system holds.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
};

use rustix::fs::{MemfdFlags, memfd_create};

/// Its name in `/proc/PID/maps`.
pub(crate) const NAME: &str = "[vdso]";

/// More than any kernel's vDSO takes.
const MAX_BYTES: usize = 1 << 20;

/// Copies our own vDSO, which is the target's too: the kernel has one for all 64-bit processes.
pub(crate) fn image() -> io::Result<File> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let (start, end) = maps
        .lines()
        .find(|line| line.ends_with(NAME))
        .and_then(range)
        .ok_or_else(|| io::Error::other("no vDSO is mapped"))?;
    let bytes = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let mut image = vec![0; bytes.min(MAX_BYTES)];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, start)?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(&image)?;
    Ok(file)
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(start)?, hex(end)?))
}
