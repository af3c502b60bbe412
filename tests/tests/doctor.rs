//! `memtrace doctor`: what would be probed, and where.

use std::process::Command;

use tests::{
    code::changed_bytes,
    fixture::{self, Link},
    lines::Lines,
    need,
    needs::{self, Missing},
    scenario::Allocator,
    target::Target,
    turn::Turn,
};

/// Runs `memtrace doctor` and gives its exit code and its stdout.
fn doctor(arguments: &[&str]) -> Result<(Option<i32>, String), Missing> {
    let output = Command::new(needs::memtrace()?)
        .arg("doctor")
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    let text = Lines::of(std::io::Cursor::new(output.stdout))
        .all()
        .join("\n");
    Ok((output.status.code(), text))
}

/// Make sure that for each allocator the object, its functions and its sites are listed, and nothing is attached.
#[test]
fn lists_functions_of_each_allocator() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("functions", Link::Dynamic));
    for (allocator, object) in [
        (Allocator::Glibc, "libc.so.6"),
        (Allocator::Jemalloc, "libjemalloc.so.2"),
        (Allocator::Tcmalloc, "libtcmalloc_minimal.so.4"),
        (Allocator::Mimalloc, "libmimalloc.so.2"),
    ] {
        let target = Target::start(&mut need!(allocator.command(&program)));
        let (code, text) = need!(doctor(&["-p", &target.pid().to_string()]));
        assert_eq!(code, Some(0), "{text}");
        for word in [
            object,
            allocator.kind(),
            "malloc",
            "free",
            "calloc",
            "realloc",
            "posix_memalign",
        ] {
            assert!(text.contains(word), "{word} in:\n{text}");
        }
        assert_eq!(changed_bytes(target.pid()), 0, "doctor attaches nothing");
        target.work_and_end();
    }
}

/// Make sure that glibc's free is probed where the kernel emulates the instruction, three bytes after its entry.
#[test]
fn tells_the_site_of_free() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("functions", Link::Dynamic));
    let target = Target::start(&mut Command::new(program));
    let (_, text) = need!(doctor(&["-p", &target.pid().to_string()]));
    let line = text
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == "free"))
        .unwrap_or_else(|| panic!("a line for free in:\n{text}"));
    assert!(
        line.contains("+3") || line.contains("+0x3"),
        "the site in: {line}"
    );
    target.work_and_end();
}

/// Make sure that the machine alone can be checked, too.
#[test]
fn checks_the_machine() {
    let _turn = need!(Turn::shared());
    let (code, text) = need!(doctor(&[]));
    assert_eq!(code, Some(0), "{text}");
    for word in ["BTF", "uprobe"] {
        assert!(
            text.to_lowercase().contains(&word.to_lowercase()),
            "{word} in:\n{text}"
        );
    }
}

/// Make sure that a process without an allocator is told apart from a machine that lacks something.
#[test]
fn refuses_what_a_trace_would_refuse() {
    let _turn = need!(Turn::shared());
    let target = Target::start(&mut Command::new(need!(fixture::without_allocator(64))));
    let (code, _) = need!(doctor(&["-p", &target.pid().to_string()]));
    assert_ne!(code, Some(0));
    target.end();
    let (code, _) = need!(doctor(&["-p", "4194305"]));
    assert_eq!(code, Some(2));
}
