//! `memtrace -- COMMAND`: the first allocation is seen, and the command's streams and its end are its own.

use std::ffi::OsString;

use tests::{
    fixture::{self, Link},
    memtrace::{Ended, Memtrace},
    need,
    report::Comparison,
    turn::Turn,
};

/// Make sure that allocations in `.preinit_array`, constructors, global and thread-local objects are counted exactly,
/// and that stdin, stdout and the exit code pass through.
#[test]
fn sees_the_first_allocation() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::cxx("startup"));
    let mut memtrace = Memtrace::command(&[program.into_os_string(), OsString::from("7")]);
    memtrace.wait_for_output("ready");
    memtrace.write("x");
    let books = memtrace.books();
    memtrace.write("x");
    let ended = memtrace.wait();
    Comparison::of(&books, &ended.report_with_code(7)).exact();
}

/// Make sure that a static program, which no dynamic loader starts, is traced from its first allocation, too.
#[test]
fn sees_a_static_program() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::c("functions", Link::StaticMusl));
    let mut memtrace = Memtrace::command(&[program]);
    memtrace.wait_for_output("ready");
    memtrace.write("x");
    let books = memtrace.books();
    memtrace.write("x");
    Comparison::of(&books, &memtrace.wait().report()).exact();
}

/// Make sure that a command that a signal kills gives 128 and the signal's number, and a report.
#[test]
fn death_by_signal() {
    let _turn = need!(Turn::shared());
    let program = need!(fixture::cxx("startup"));
    let mut memtrace = Memtrace::command(&[program.into_os_string(), OsString::from("signal")]);
    memtrace.write("xx");
    let books = memtrace.books();
    let ended = memtrace.wait();
    Comparison::of(&books, &ended.report_with_code(128 + 11)).exact();
}

fn run(command_line: &[&str], input: &str) -> Ended {
    let mut memtrace = Memtrace::command(command_line);
    if !input.is_empty() {
        memtrace.write(input);
    }
    memtrace.wait()
}

/// Make sure that the exit code of a short command is memtrace's.
#[test]
fn exit_code_passes_through() {
    let _turn = need!(Turn::shared());
    for code in [0, 1, 2, 77] {
        let ended = run(&["sh", "-c", &format!("exit {code}")], "");
        assert_eq!(ended.code, Some(code), "{:?}", ended.errors);
    }
}

/// Make sure that a command reads memtrace's stdin to its end and writes to memtrace's stdout.
#[test]
fn streams_pass_through() {
    let _turn = need!(Turn::shared());
    let ended = run(&["cat"], "one\ntwo\n");
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(
        ended.output[..2],
        ["one".to_owned(), "two".to_owned()],
        "{:?}",
        ended.output
    );
}

/// Make sure that a command that does not exist is a usage error.
#[test]
fn no_such_command() {
    let _turn = need!(Turn::shared());
    let ended = run(&["/nonexistent/program"], "");
    assert_eq!(ended.code, Some(2), "{:?}", ended.errors);
    assert_eq!(ended.errors.len(), 1, "one line: {:?}", ended.errors);
    assert!(
        ended.errors[0].contains("/nonexistent/program"),
        "{:?}",
        ended.errors
    );
}
