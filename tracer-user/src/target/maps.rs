//! The mappings of a process: the one parser of `/proc/PID/maps`.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

/// Largest `/proc/PID/maps` read, in bytes: about ten times what the kernel's default limit of mappings takes.
const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// One mapping of a process's address space.
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each letter of the kernel's own form"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether it can be executed.
    pub executable: bool,
    /// Whether writes reach the file and other processes.
    pub shared: bool,
    /// Where in the file the mapping begins, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file's inode number; 0 where no file is mapped.
    pub inode: u64,
    /// Path of the file, or a name like `[heap]`; empty for anonymous memory. The kernel tells paths as the reader
    /// sees them; [`super::Process::mappings`] turns them into the process's own.
    pub path: OsString,
    /// Whether the file was deleted or replaced.
    pub deleted: bool,
}

/// A line of `/proc/PID/maps` that is not in the documented form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the list of mappings is not in the known form")]
pub struct MapsError {
    /// Number of the line, counted from 1.
    pub line: usize,
}

impl Mapping {
    /// Whether `address` lies in the mapping.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// The offset in the mapped file of what is at `address`, if that lies in the mapping.
    #[must_use]
    pub const fn file_offset(&self, address: u64) -> Option<u64> {
        if self.contains(address) {
            Some(address - self.start + self.offset)
        } else {
            None
        }
    }

    /// The path at which the kernel offers exactly the mapped file, whatever happened to its name.
    #[must_use]
    pub fn map_files_path(&self, pid: u32) -> PathBuf {
        let Self { start, end, .. } = self;
        PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
    }
}

/// Reads the mappings of a process, with paths as memtrace sees them.
///
/// # Errors
///
/// When the file cannot be read, is larger than any real one, or is not in the documented form.
pub fn read(pid: u32) -> io::Result<Vec<Mapping>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/maps"))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("the list of mappings is too long"));
    }
    parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Parses the contents of `/proc/PID/maps`.
///
/// # Errors
///
/// When a line is not in the documented form.
pub fn parse(bytes: &[u8]) -> Result<Vec<Mapping>, MapsError> {
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| mapping(line).ok_or(MapsError { line: index + 1 }))
        .collect()
}

fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut text = || fields.next().and_then(|field| str::from_utf8(field).ok());
    let (start, end) = text()?.split_once('-')?;
    let [readable, writable, executable, shared] = *text()?.as_bytes() else {
        return None;
    };
    let offset = text()?;
    let (major, minor) = text()?.split_once(':')?;
    let inode = text()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let (path, deleted) = path
        .strip_suffix(b" (deleted)")
        .map_or((path, false), |path| (path, true));
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        readable: readable == b'r',
        writable: writable == b'w',
        executable: executable == b'x',
        shared: shared == b's',
        offset: u64::from_str_radix(offset, 16).ok()?,
        device: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode: inode.parse().ok()?,
        path: unescape(path),
        deleted,
    })
}

/// The kernel writes a newline in a path as `\012`, and nothing else in another form.
fn unescape(path: &[u8]) -> OsString {
    const NEWLINE: &[u8] = b"\\012";
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.first() {
        if let Some(behind) = rest.strip_prefix(NEWLINE) {
            plain.push(b'\n');
            rest = behind;
        } else {
            plain.push(*first);
            rest = &rest[1..];
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that each field of a line is read.
    #[test]
    fn fields() {
        let lines = b"7f01a000-7f01b000 r-xp 00026000 fd:10 1835  /usr/lib/libc.so.6\n\
            7ffc1000-7ffc3000 rw-s 00000000 00:00 0 \n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
        let mappings = parse(lines).unwrap();
        assert_eq!(
            mappings[0],
            Mapping {
                start: 0x7f01_a000,
                end: 0x7f01_b000,
                readable: true,
                writable: false,
                executable: true,
                shared: false,
                offset: 0x26000,
                device: (0xfd, 0x10),
                inode: 1835,
                path: "/usr/lib/libc.so.6".into(),
                deleted: false,
            }
        );
        assert!(mappings[1].shared && mappings[1].writable && mappings[1].path.is_empty());
        assert_eq!(mappings[2].path, "[vsyscall]");
        assert_eq!(
            mappings[0].map_files_path(7),
            PathBuf::from("/proc/7/map_files/7f01a000-7f01b000")
        );
        assert!(mappings[0].contains(0x7f01_a000) && !mappings[0].contains(0x7f01_b000));
    }

    /// Make sure that spaces, newlines and other bytes in a path survive, and that a deleted file is known.
    #[test]
    fn paths() {
        let lines = b"1000-2000 r-xp 00000000 00:01 9 /tmp/a b\\012\xffc (deleted)\n";
        let mapping = parse(lines).unwrap().remove(0);
        assert_eq!(
            mapping.path,
            OsString::from_vec(b"/tmp/a b\n\xffc".to_vec())
        );
        assert!(mapping.deleted);
    }

    /// Make sure that lines in another form are an error that names the line, not a panic.
    #[test]
    fn malformed() {
        for line in [
            "x",
            "1000 r-xp 0 0:0 0",
            "1000-2000 r-x 0 0:0 0",
            "1000-2000 r-xp 0 00 0",
            "1000-2000 r-xp 0 0:0",
            "1000-99999999999999999 r-xp 0 0:0 0",
        ] {
            let text = format!("1000-2000 r-xp 0 0:0 0\n{line}\n");
            assert_eq!(parse(text.as_bytes()), Err(MapsError { line: 2 }), "{line}");
        }
    }

    /// Make sure that the real thing is read: this process has a mapping of its own code.
    #[test]
    fn own() {
        let here = own as fn() as usize as u64;
        let mappings = read(std::process::id()).unwrap();
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.contains(here))
            .unwrap();
        assert!(mapping.executable && mapping.inode != 0);
    }
}
