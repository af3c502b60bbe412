//! Whether breakpoints are in a process: its code in memory, compared with the files that it was mapped from.

use std::{fs, fs::File, io::Read as _, os::unix::fs::FileExt as _};

/// Bytes of executable mappings of a process that differ from their files: one or more per probe.
///
/// # Panics
///
/// When the process cannot be read.
#[must_use]
pub fn changed_bytes(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process's mappings");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("the process's memory");
    maps.lines()
        .filter_map(|line| changed_in(pid, &memory, line))
        .sum()
}

fn changed_in(pid: u32, memory: &File, line: &str) -> Option<usize> {
    let mut fields = line.split_whitespace();
    let range = fields.next()?;
    let executable = fields.next()?.contains('x');
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    if !executable || !fields.nth(2)?.starts_with('/') {
        return None;
    }
    let mut mapped = vec![0; usize::try_from(end - start).ok()?];
    memory.read_exact_at(&mut mapped, start).ok()?;
    let file = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}")).ok()?;
    let mut original = Vec::new();
    // The last page can reach beyond the file's end, so that the file has less.
    std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(offset)).ok()?;
    (&file).take(end - start).read_to_end(&mut original).ok()?;
    Some(
        mapped
            .iter()
            .zip(&original)
            .filter(|(mapped, original)| mapped != original)
            .count(),
    )
}
