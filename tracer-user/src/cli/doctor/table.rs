//! The table of an allocator's functions: where each is probed, and what the kernel makes of it.

use tracer_common::call::{Arg, CallShape};

use crate::{
    report::escape::shorten,
    target::{Function, Site},
};

/// Columns of a line.
const WIDTH: usize = 100;
/// Longest function name that is shown in full; the longest operator of C++ has 35 characters.
const NAME_WIDTH: usize = 40;
const INDENT: &str = "    ";

/// The lines of the table, the heads of its columns first; a site is a distance from the function's entry in bytes. `refused` names the functions that the kernel does not
/// probe.
pub(super) fn lines(functions: &[Function], refused: &[&str]) -> Vec<String> {
    let mut rows = vec![
        [
            "function",
            "aliases",
            "site",
            "kernel",
            "arguments",
            "instruction",
        ]
        .map(str::to_owned),
    ];
    rows.extend(
        functions
            .iter()
            .map(|function| row(function, refused.contains(&function.name.as_str()))),
    );
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3), width(4)];
    rows.iter()
        .map(|[name, aliases, site, kernel, arguments, instruction]| {
            let [w0, w1, w2, w3, w4] = widths;
            let line =
                format!("{INDENT}{name:<w0$}  {aliases:>w1$}  {site:<w2$}  {kernel:<w3$}  {arguments:<w4$}  ");
            let room = WIDTH.saturating_sub(line.chars().count()).max(8);
            line + &shorten(instruction, room)
        })
        .collect()
}

fn row(function: &Function, refused: bool) -> [String; 6] {
    let Function {
        name,
        aliases,
        shape,
        site,
    } = function;
    let Site {
        entry_offset,
        file_offset,
        instruction,
        emulated,
    } = site;
    let kernel = match (refused, emulated) {
        (true, _) => "refused",
        (false, true) => "emulated",
        (false, false) => "single-stepped",
    };
    [
        shorten(name, NAME_WIDTH),
        match aliases.len() {
            0 => String::new(),
            aliases => aliases.to_string(),
        },
        format!("+{}", file_offset.saturating_sub(*entry_offset)),
        kernel.to_owned(),
        arguments(*shape),
        instruction.clone(),
    ]
}

/// A shape as `--alloc` and its like spell it, arguments counted from 1.
fn arguments(shape: CallShape) -> String {
    let CallShape {
        size,
        count,
        ptr,
        out,
        flags: _,
    } = shape;
    let number = |arg: Arg| arg.index().map(|index| (index + 1).to_string());
    let mut parts = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        parts.extend(value.map(|value| format!("{name}={value}")));
    };
    add("ptr", number(ptr));
    add("out", number(out));
    add(
        "size",
        match (number(count), number(size)) {
            (Some(count), Some(size)) => Some(format!("{count}*{size}")),
            (_, size) => size,
        },
    );
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, aliases: usize, shape: CallShape, instruction: &str) -> Function {
        Function {
            name: name.to_owned(),
            aliases: vec!["alias".to_owned(); aliases],
            shape,
            site: Site {
                entry_offset: 0x1000,
                file_offset: if name == "free" { 0x1003 } else { 0x1000 },
                instruction: instruction.to_owned(),
                emulated: name != "calloc",
            },
        }
    }

    /// Make sure that the columns are aligned, and that a refusal is told before what the decoder thinks.
    #[test]
    fn columns() {
        let functions = [
            function("free", 2, CallShape::free(0), "je 0x9d1b0"),
            function("malloc", 0, CallShape::alloc(0), "push r12"),
            function("calloc", 0, CallShape::alloc_array(0, 1), "mov r11, rdi"),
        ];
        assert_eq!(
            lines(&functions, &["malloc"]),
            [
                "    function  aliases  site  kernel          arguments  instruction",
                "    free            2  +3    emulated        ptr=1      je 0x9d1b0",
                "    malloc             +0    refused         size=1     push r12",
                "    calloc             +0    single-stepped  size=1*2   mov r11, rdi",
            ]
        );
    }

    /// Make sure that names from the target stay harmless, and lines within the width.
    #[test]
    fn hostile_names() {
        let name = format!("a\u{1b}[31m{}", "x".repeat(500));
        let long = "mov rax, qword ptr fs:[0xffffffffffffffb8] ".repeat(4);
        for line in lines(&[function(&name, 0, CallShape::alloc(0), &long)], &[]) {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(!line.contains('\u{1b}'));
        }
    }

    /// Make sure that every shape is spelled as the options spell it.
    #[test]
    fn shapes() {
        for (shape, text) in [
            (CallShape::alloc(0), "size=1"),
            (CallShape::alloc_array(0, 1), "size=1*2"),
            (CallShape::alloc_out(0, 2), "out=1,size=3"),
            (CallShape::realloc(0, 1), "ptr=1,size=2"),
            (CallShape::realloc_array(0, 1, 2), "ptr=1,size=2*3"),
            (CallShape::free(0), "ptr=1"),
        ] {
            assert_eq!(arguments(shape), text);
        }
    }
}
