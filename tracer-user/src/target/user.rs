//! Functions of a program's own allocator, as the user names them: `OBJECT:SYMBOL(size=2)`.

use std::fmt;

use tracer_common::call::{Arg, CallFlags, CallShape};

pub(super) use super::user_match::UserMatches;

/// What a function that the user named does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserKind {
    /// It allocates a block: `--alloc`.
    Alloc,
    /// It resizes a block: `--realloc`.
    Realloc,
    /// It releases a block: `--free`.
    Free,
}

impl fmt::Display for UserKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Alloc => "--alloc",
            Self::Realloc => "--realloc",
            Self::Free => "--free",
        })
    }
}

/// The object that a user's function lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ObjectName {
    /// The executable.
    Executable,
    /// The object with this path in the target's root.
    Path(String),
    /// Objects with this file name, a version behind `.so` left out or not.
    Name(String),
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executable => formatter.write_str("exe"),
            Self::Path(name) | Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// A function that the user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFunction {
    pub(super) kind: UserKind,
    pub(super) object: ObjectName,
    pub(super) symbol: String,
    pub(super) shape: CallShape,
}

/// All functions that the user named.
pub type UserFunctions = Vec<UserFunction>;

/// Why a function that the user named cannot be traced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserFunctionError {
    /// The text is not of the form that the option takes.
    #[error(
        "{kind} '{text}': {problem}; the form is {kind} 'OBJECT:SYMBOL({example})', arguments counted from 1"
    )]
    Syntax {
        /// The option.
        kind: UserKind,
        /// Its value.
        text: String,
        /// What is wrong with it.
        problem: String,
        /// Arguments as the option takes them.
        example: &'static str,
    },
    /// The process maps no such object as code.
    #[error("{kind}: the process has no object {object}{hint}")]
    NoObject {
        /// The option.
        kind: UserKind,
        /// The object asked for.
        object: String,
        /// Names that come close, or nothing.
        hint: String,
    },
    /// The object defines no such function.
    #[error("{kind}: {object} defines no function {symbol}{hint}")]
    NoSymbol {
        /// The option.
        kind: UserKind,
        /// The object.
        object: String,
        /// The function asked for.
        symbol: String,
        /// Names that come close, or nothing.
        hint: String,
    },
    /// The name stands for several functions.
    #[error(
        "{kind}: {symbol} names several functions of {object}: {names}; name one of them in full"
    )]
    Ambiguous {
        /// The option.
        kind: UserKind,
        /// The object.
        object: String,
        /// The function asked for.
        symbol: String,
        /// The functions that it may mean.
        names: String,
    },
    /// The function is there, but no probe can be put on it.
    #[error("{kind}: {symbol} of {object} cannot be probed: {reason}")]
    Unprobed {
        /// The option.
        kind: UserKind,
        /// The object.
        object: String,
        /// The function asked for.
        symbol: String,
        /// Why.
        reason: String,
    },
}

impl UserFunction {
    /// Reads the value of `--alloc`, `--realloc` or `--free`.
    ///
    /// # Errors
    ///
    /// When it is not of the form `OBJECT:SYMBOL` or `OBJECT:SYMBOL(argument=number, …)`.
    pub fn parse(kind: UserKind, text: &str) -> Result<Self, UserFunctionError> {
        let (object, symbol, arguments) =
            split(text).map_err(|problem| syntax(kind, text, problem))?;
        let shape = shape(kind, arguments).map_err(|problem| syntax(kind, text, &problem))?;
        Ok(Self {
            kind,
            object: match object {
                "exe" => ObjectName::Executable,
                path if path.starts_with('/') => ObjectName::Path(path.to_owned()),
                name => ObjectName::Name(name.to_owned()),
            },
            symbol: symbol.to_owned(),
            shape,
        })
    }
}

fn syntax(kind: UserKind, text: &str, problem: &str) -> UserFunctionError {
    UserFunctionError::Syntax {
        kind,
        text: text.to_owned(),
        problem: problem.to_owned(),
        example: match kind {
            UserKind::Alloc => "size=1",
            UserKind::Realloc => "ptr=1,size=2",
            UserKind::Free => "ptr=1",
        },
    }
}

/// Splits into object, symbol and arguments. C++'s names hold colons and parentheses too, but no `=` in the last
/// parentheses.
fn split(text: &str) -> Result<(&str, &str, &str), &'static str> {
    let (object, rest) = text
        .split_once(':')
        .ok_or("there is no ':' behind the object")?;
    let (symbol, arguments) = rest
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once('('))
        .filter(|(_, arguments)| arguments.contains('='))
        .unwrap_or((rest, ""));
    let (object, symbol) = (object.trim(), symbol.trim());
    if object.is_empty() {
        return Err("there is no object before the ':'");
    }
    if symbol.is_empty() {
        return Err("there is no symbol behind the ':'");
    }
    Ok((object, symbol, arguments))
}

fn shape(kind: UserKind, arguments: &str) -> Result<CallShape, String> {
    let mut given = CallShape::free(0);
    given.ptr = Arg::NONE;
    let mut used = Vec::new();
    for argument in arguments
        .split(',')
        .filter(|argument| !argument.trim().is_empty())
    {
        let (name, value) = argument
            .split_once('=')
            .ok_or_else(|| format!("'{argument}' is not of the form name=number"))?;
        let place = match (kind, name.trim()) {
            (UserKind::Alloc | UserKind::Realloc, "size") => &mut given.size,
            (UserKind::Realloc | UserKind::Free, "ptr") => &mut given.ptr,
            (UserKind::Alloc, "out") => &mut given.out,
            (_, name) => return Err(format!("{kind} has no argument '{name}'")),
        };
        if place.is_some() {
            return Err(format!("'{}' is given twice", name.trim()));
        }
        let value = match value.split_once('*') {
            Some((count, size)) if name.trim() == "size" => {
                given.count = number(count, &mut used)?;
                size
            }
            _ => value,
        };
        *place = number(value, &mut used)?;
    }
    Ok(match kind {
        UserKind::Alloc if !given.size.is_some() && given.out.is_some() => {
            return Err("'out' needs 'size' beside it".to_owned());
        }
        UserKind::Alloc if !given.size.is_some() => CallShape::alloc(0),
        UserKind::Alloc => given,
        UserKind::Realloc => {
            if !given.ptr.is_some() {
                given.ptr = Arg::at(0);
            }
            if !given.size.is_some() {
                given.size = Arg::at(1);
            }
            if [given.size, given.count].contains(&given.ptr) {
                return Err("an argument is named twice".to_owned());
            }
            given.flagged(CallFlags::REALLOC)
        }
        UserKind::Free => {
            if !given.ptr.is_some() {
                given.ptr = Arg::at(0);
            }
            // It may end in a call of the C library's free, for the same block.
            given.flagged(CallFlags::NESTS)
        }
    })
}

fn number(text: &str, used: &mut Vec<u8>) -> Result<Arg, String> {
    let number = text
        .trim()
        .parse::<u8>()
        .ok()
        .filter(|number| (1..=Arg::REGISTERS).contains(number))
        .ok_or_else(|| {
            format!(
                "'{}' is not an argument from 1 to {}, which lie in registers",
                text.trim(),
                Arg::REGISTERS
            )
        })?;
    if used.contains(&number) {
        return Err(format!("argument {number} is named twice"));
    }
    used.push(number);
    Ok(Arg::at(number - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: UserKind, text: &str) -> UserFunction {
        UserFunction::parse(kind, text).unwrap()
    }

    /// Make sure that objects, symbols and arguments are told apart, in C++'s names too.
    #[test]
    fn forms() {
        let function = parse(UserKind::Alloc, "libpool.so:pool_get(size=2)");
        assert_eq!(function.object, ObjectName::Name("libpool.so".to_owned()));
        assert_eq!(function.symbol, "pool_get");
        assert_eq!(function.shape, CallShape::alloc(1));
        let function = parse(UserKind::Alloc, "exe:ns::Pool::get(unsigned long)(size=2)");
        assert_eq!(function.object, ObjectName::Executable);
        assert_eq!(function.symbol, "ns::Pool::get(unsigned long)");
        let function = parse(UserKind::Free, "/opt/a b/x:ns::Pool::put(void*)");
        assert_eq!(function.object, ObjectName::Path("/opt/a b/x".to_owned()));
        assert_eq!(function.symbol, "ns::Pool::put(void*)");
    }

    /// Make sure that arguments have defaults and are counted from 1.
    #[test]
    fn shapes() {
        let shape = |kind, arguments: &str| parse(kind, &format!("exe:f{arguments}")).shape;
        assert_eq!(shape(UserKind::Alloc, ""), CallShape::alloc(0));
        assert_eq!(
            shape(UserKind::Alloc, "(size=1*2)"),
            CallShape::alloc_array(0, 1)
        );
        assert_eq!(
            shape(UserKind::Alloc, "(out=1, size=3)"),
            CallShape::alloc_out(0, 2)
        );
        assert_eq!(shape(UserKind::Realloc, ""), CallShape::realloc(0, 1));
        assert_eq!(
            shape(UserKind::Realloc, "(ptr=2,size=3*4)"),
            CallShape::realloc_array(1, 2, 3)
        );
        let free = |ptr| CallShape::free(ptr).flagged(CallFlags::NESTS);
        assert_eq!(shape(UserKind::Free, ""), free(0));
        assert_eq!(shape(UserKind::Free, "(ptr=6)"), free(5));
    }

    /// Make sure that what cannot be meant is refused with a sentence that quotes it.
    #[test]
    fn mistakes() {
        for (kind, text) in [
            (UserKind::Alloc, ""),
            (UserKind::Alloc, "malloc"),
            (UserKind::Alloc, ":f"),
            (UserKind::Alloc, "exe:"),
            (UserKind::Alloc, "exe:(size=1)"),
            (UserKind::Alloc, "exe:f(size=0)"),
            (UserKind::Alloc, "exe:f(size=7)"),
            (UserKind::Alloc, "exe:f(size=x)"),
            (UserKind::Alloc, "exe:f(size=1,size=2)"),
            (UserKind::Alloc, "exe:f(size=1*1)"),
            (UserKind::Alloc, "exe:f(ptr=1)"),
            (UserKind::Alloc, "exe:f(out=1)"),
            (UserKind::Alloc, "exe:f(out=1*2,size=3)"),
            (UserKind::Realloc, "exe:f(ptr=2)"),
            (UserKind::Realloc, "exe:f(size=1)"),
            (UserKind::Free, "exe:f(size=1)"),
        ] {
            let error = UserFunction::parse(kind, text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
