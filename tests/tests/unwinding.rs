//! Whole stacks, frame by frame, against call chains that fixtures know of themselves.

use std::process::Command;

use tests::{
    chains::Chains,
    fixture::{self, Variant},
    memtrace::Memtrace,
    need,
    needs::Missing,
    scenario::PLAIN,
    target::Target,
    turn::Turn,
};

/// Traces a fixture of chains, and compares.
fn check(file: &str, variant: Variant) -> Result<(), Missing> {
    let program = fixture::variant(file, variant)?;
    let mut target = Target::start(&mut Command::new(program));
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let chains = Chains::parse(&target.wait_for("chains "));
    let books = target.books();
    let report = memtrace.stop().report();
    target.end();
    let what = format!("{file} by {} {:?}", variant.compiler, variant.flags);
    chains.compare(&what, &books, &report);
    Ok(())
}

/// Each level of optimization, without frame pointers and with them. Calls into libraries are bound when first made.
const LEVELS: [(&str, &[&str]); 6] = [
    ("O0", &["-O0", "-fomit-frame-pointer", "-Wl,-z,lazy"]),
    ("O2", &["-O2", "-fomit-frame-pointer", "-Wl,-z,lazy"]),
    ("O3", &["-O3", "-fomit-frame-pointer", "-Wl,-z,lazy"]),
    ("O0-fp", &["-O0", "-fno-omit-frame-pointer", "-Wl,-z,lazy"]),
    ("O2-fp", &["-O2", "-fno-omit-frame-pointer", "-Wl,-z,lazy"]),
    ("O3-fp", &["-O3", "-fno-omit-frame-pointer", "-Wl,-z,lazy"]),
];

fn check_levels(file: &str, compiler: &'static str) -> Result<(), Missing> {
    for (name, flags) in LEVELS {
        let variant = Variant {
            compiler,
            name,
            flags,
        };
        check(file, variant)?;
    }
    Ok(())
}

/// Make sure that stacks of C programs that gcc compiled are whole.
#[test]
fn c_by_gcc() {
    let _turn = need!(Turn::shared());
    need!(check_levels("chains.c", "gcc"));
}

/// Make sure that stacks of C programs that clang compiled are whole.
#[test]
fn c_by_clang() {
    let _turn = need!(Turn::shared());
    need!(check_levels("chains.c", "clang"));
}
