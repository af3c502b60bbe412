//! Which objects get their unwind tables first, and how many bytes tables may take.

use std::path::Path;

/// What an object is to the process, in the order in which tables are uploaded: the stacks of allocations go through
/// the first of these most often. Objects of one rank follow each other as they are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Executable,
    Allocator,
    CLibrary,
    CppLibrary,
    Other,
}

impl Rank {
    pub(super) fn of(path: &Path, is_executable: bool, is_allocator: bool) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_any_of = |names: &[&str]| names.iter().any(|prefix| name.starts_with(prefix));
        if is_executable {
            Self::Executable
        } else if is_allocator {
            Self::Allocator
        } else if is_any_of(&["libc.so", "libc-2.", "ld-musl-", "libc.musl-"]) {
            Self::CLibrary
        } else if is_any_of(&["libstdc++.so", "libc++.so", "libc++abi.so"]) {
            Self::CppLibrary
        } else {
            Self::Other
        }
    }
}

/// Bytes of kernel memory for tables. One that does not fit is left out; smaller ones after it may still fit.
#[derive(Debug)]
pub(super) struct Budget {
    left_bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left_bytes: bytes }
    }

    /// Takes bytes out of the budget, if so many are left.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.unwrap_or(self.left_bytes);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that objects come in the stated order, those of one rank as they are mapped, and that what does not
    /// fit is left out without taking room from what comes after it.
    #[test]
    fn order_and_room() {
        // As they are mapped, with the bytes of their tables.
        let mapped = [
            ("/usr/lib/libfirst.so.1", 40),
            ("/opt/app/server", 30),
            ("/usr/lib/libstdc++.so.6", 20),
            ("/usr/lib/libcrypto.so.3", 15),
            ("/usr/lib/libc.so.6", 10),
            ("/usr/lib/libjemalloc.so.2", 10),
        ];
        let mut objects = mapped.map(|(path, bytes)| {
            let rank = Rank::of(
                Path::new(path),
                path.ends_with("server"),
                path.contains("jemalloc"),
            );
            (rank, path, bytes)
        });
        objects.sort_by_key(|(rank, ..)| *rank);
        let mut budget = Budget::new(85);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            objects.iter().partition(|(.., bytes)| budget.take(*bytes));
        let names = |objects: Vec<&(Rank, &'static str, u64)>| -> Vec<&str> {
            objects
                .iter()
                .map(|(_, path, _)| path.rsplit('/').next().unwrap())
                .collect()
        };
        assert_eq!(
            names(kept.iter().collect()),
            [
                "server",
                "libjemalloc.so.2",
                "libc.so.6",
                "libstdc++.so.6",
                "libcrypto.so.3"
            ]
        );
        assert_eq!(names(dropped.iter().collect()), ["libfirst.so.1"]);
        assert!(budget.take(0));
        assert!(!budget.take(1));
    }

    /// Make sure that C libraries are known by their names, and others with such names inside are not.
    #[test]
    fn names() {
        let rank = |path| Rank::of(Path::new(path), false, false);
        for path in [
            "/lib/libc.so.6",
            "/lib/libc-2.31.so",
            "/lib/ld-musl-x86_64.so.1",
        ] {
            assert_eq!(rank(path), Rank::CLibrary, "{path}");
        }
        assert_eq!(rank("/usr/lib/libc++.so.1"), Rank::CppLibrary);
        for path in ["/lib/libcrypto.so.3", "/lib/libcap.so.2", "", "/libc.so/x"] {
            assert_eq!(rank(path), Rank::Other, "{path}");
        }
    }
}
