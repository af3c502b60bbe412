//! Readable names from C++ and Rust symbols.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// Longest mangled name that is demangled, in bytes; longer ones are machine-made.
const MANGLED_LIMIT: usize = 16 * 1024;

/// Longest readable name, in bytes. A few hundred mangled bytes can stand for gigabytes.
const NAME_LIMIT: usize = 4 * 1024;

/// What the C++ library calls `std::string` in every symbol.
const STRING: &str =
    "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";

/// The name as its source spells it; the name itself if it is not mangled. Cut at 4 KiB.
pub(super) fn demangle(name: &str) -> String {
    let mut readable = Bounded(String::new());
    if name.len() > MANGLED_LIMIT {
        // The write fails where the name is cut, which is what it is for; here and below.
        let _cut = readable.write_str(name);
    } else if let Ok(rust) = rustc_demangle::try_demangle(name) {
        let _cut = write!(readable, "{rust:#}");
    } else if let Some(symbol) = cpp(name) {
        let _cut = symbol.structured_demangle(&mut readable, &DemangleOptions::new());
    }
    if readable.0.is_empty() {
        let _cut = readable.write_str(name);
    }
    readable.0.replace(STRING, "std::string")
}

fn cpp(name: &str) -> Option<Symbol<&str>> {
    // The demangler also reads bare types: without this check a C function `f` would become `float`.
    (name.starts_with("_Z") || name.starts_with("__Z"))
        .then(|| Symbol::new(name).ok())
        .flatten()
}

/// A string that refuses to grow past the limit.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = NAME_LIMIT.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if !self.0.ends_with('…') {
            self.0.push('…');
        }
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that C++ and both Rust schemes are read, and that C names stay.
    #[test]
    fn languages() {
        for (mangled, readable) in [
            ("main", "main"),
            ("f", "f"),
            ("_Zzzz", "_Zzzz"),
            ("", ""),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back(int const&)",
            ),
            (
                "_ZNSt6vectorINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESaIS5_EED2Ev",
                "std::vector<std::string, std::allocator<std::string > >::~vector()",
            ),
            (
                "_ZN4core3fmt9Formatter9write_str17h0123456789abcdefE",
                "core::fmt::Formatter::write_str",
            ),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
        ] {
            assert_eq!(demangle(mangled), readable);
        }
    }

    /// Make sure that a short symbol that stands for an endless name is cut.
    #[test]
    fn explosion() {
        // Each pair holds the previous one twice.
        let mut symbol = "_Z1fSt4pairIiiE".to_owned();
        for digit in [
            "", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B", "C",
        ] {
            symbol.extend(["S_IS", digit, "_S", digit, "_E"]);
        }
        let deep = format!("_Z1f{}i", "P".repeat(MANGLED_LIMIT));
        for symbol in [symbol, deep, "é".repeat(MANGLED_LIMIT)] {
            assert!(demangle(&symbol).len() <= NAME_LIMIT + '…'.len_utf8());
        }
    }
}
