//! Names from the target, made harmless for a terminal and for line-based formats.

use std::fmt::{self, Write};

/// Writes a name with everything escaped that could move a cursor, change a colour, end a line or reorder text.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_hostile(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Control characters, line separators, and characters that are invisible or change the direction of text.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
            // XML knows no way to write these two.
            | '\u{fffe}' | '\u{ffff}')
}

/// The name escaped, and cut in the middle if it is longer than `limit` characters.
#[must_use]
pub fn shorten(name: &str, limit: usize) -> String {
    let escaped = Escaped(name).to_string();
    let length = escaped.chars().count();
    if length <= limit {
        return escaped;
    }
    // Two thirds from the beginning, where the scopes are; one third from the end, where the function's own name is.
    let tail = limit / 3;
    let head = limit - tail - 1;
    let mut text: String = escaped.chars().take(head).collect();
    text.push('…');
    text.extend(escaped.chars().skip(length - tail));
    text
}

/// A path's last component.
#[must_use]
pub fn basename(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => path,
    }
}

/// As many of a path's last components as fit into `limit` characters, at least one.
#[must_use]
pub fn path_tail(path: &str, limit: usize) -> &str {
    path.match_indices('/')
        .map(|(at, _)| &path[at + 1..])
        .fold(path, |kept, rest| {
            if kept.chars().count() > limit && !rest.is_empty() {
                rest
            } else {
                kept
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that no control sequence, line break or bidirectional override survives, and that other text does.
    #[test]
    fn hostile_names() {
        let text = Escaped("a\u{1b}[31mb\n\u{9b}2J\u{7f}\u{202e}<script>é").to_string();
        assert_eq!(text, "a\\u{1b}[31mb\\n\\u{9b}2J\\u{7f}\\u{202e}<script>é");
    }

    /// Make sure that a long name keeps its ends and never exceeds the limit.
    #[test]
    fn long_names() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefghij", 9), "abcde…hij");
        assert_eq!(shorten(&"é".repeat(1_000), 30).chars().count(), 30);
    }

    /// Make sure that paths are cut at a slash, and that odd ones come out whole.
    #[test]
    fn paths() {
        assert_eq!(basename("/usr/lib/libc.so.6"), "libc.so.6");
        assert_eq!(basename("[vdso]"), "[vdso]");
        assert_eq!(basename("/"), "/");
        assert_eq!(path_tail("/a/b/c.c", 20), "/a/b/c.c");
        assert_eq!(path_tail("/long/way/b/c.c", 6), "b/c.c");
        assert_eq!(path_tail("/long/way/longer.c", 6), "longer.c");
        assert_eq!(path_tail("/long/way/", 2), "way/");
    }
}
