//! The sentence that says why an object is taken for an allocator of the process.

use super::loader::SearchOrder;

/// What decides about an object's place.
#[derive(Clone, Debug)]
pub(super) struct Standing<'a> {
    /// The prefix of the functions; `None` for the standard names.
    pub(super) prefix: Option<&'static str>,
    /// Whether the object is the executable.
    pub(super) executable: bool,
    /// Why the loader loaded it.
    pub(super) link: Link,
    /// Base name of the object that serves plain `malloc`, if it is another one.
    pub(super) server: Option<&'a str>,
    /// Base name of the next object that would serve it.
    pub(super) runner_up: Option<&'a str>,
    /// The loader's order.
    pub(super) order: &'a SearchOrder,
    /// Whether the object was found after the tracing began.
    pub(super) late: bool,
}

/// Why the loader loaded an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// It stands before everything that the executable asks for.
    Preload,
    /// The executable asks for it by name.
    Executable,
    /// A library asks for it, or the program itself did while it ran.
    Library,
}

impl Standing<'_> {
    /// The sentence.
    pub(super) fn sentence(&self) -> String {
        let sentence = match (self.prefix, self.server) {
            (Some(prefix), _) => format!("serves only calls that name its {prefix} prefix"),
            (None, None) => self.serving(),
            (None, Some(server)) => format!(
                "also mapped; plain malloc is served by {server}, this object only calls that are bound to it"
            ),
        };
        if self.late {
            format!("loaded while memtrace ran; {sentence}")
        } else {
            sentence
        }
    }

    fn serving(&self) -> String {
        if self.executable {
            return match self.order {
                SearchOrder::Static => "the executable is static and defines malloc itself",
                _ => "the executable defines malloc itself, before any library",
            }
            .to_owned();
        }
        let before = |first: &str| match self.runner_up {
            Some(other) => format!("{first} before {other}"),
            None => first.to_owned(),
        };
        match self.order {
            SearchOrder::Known { .. } => {
                let how = match (self.runner_up, self.link) {
                    (None, _) => String::new(),
                    (Some(_), Link::Preload) => format!(" ({})", before("preloaded")),
                    (Some(_), Link::Executable) => format!(" ({})", before("linked")),
                    (Some(_), Link::Library) => format!(" ({})", before("loaded for a library")),
                };
                format!("first in the loader's search order that exports malloc{how}")
            }
            SearchOrder::Static => "defines malloc, though the program is static".to_owned(),
            SearchOrder::Starting => before("exports malloc; the loader is still at work; taken"),
            SearchOrder::Unknown(why) => format!(
                "{}; the loader's search order cannot be read: {why}",
                before("exports malloc; taken")
            ),
        }
    }
}
