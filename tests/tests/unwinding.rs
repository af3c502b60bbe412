//! Whole stacks, frame by frame, against call chains that fixtures know of themselves.

use std::{fs, process::Command, thread::sleep, time::Duration};

use tests::{
    chains::Chains,
    fixture::{self, Variant},
    memtrace::Memtrace,
    need,
    needs::{self, Missing},
    scenario::PLAIN,
    target::Target,
    turn::Turn,
};

/// Time in which memtrace looks for new code, many times over.
const LEARNING: Duration = Duration::from_secs(1);

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

/// Make sure that stacks of C++ programs that gcc compiled are whole, exceptions or not.
#[test]
fn cxx_by_gcc() {
    let _turn = need!(Turn::shared());
    need!(check_levels("chains.cc", "g++"));
}

/// Make sure that stacks of C++ programs that clang compiled are whole.
#[test]
fn cxx_by_clang() {
    let _turn = need!(Turn::shared());
    need!(check_levels("chains.cc", "clang++"));
}

/// Make sure that stacks of a Rust program are whole as a release build makes it, a panic's included.
#[test]
fn rust_release() {
    let _turn = need!(Turn::shared());
    let variant = Variant {
        compiler: "rustc",
        name: "release",
        flags: &["--edition=2024", "-O", "-Cdebuginfo=1"],
    };
    need!(check("chains.rs", variant));
}

/// Make sure that options which change prologues, PLT stubs or the way of linking change nothing.
#[test]
fn other_builds() {
    let _turn = need!(Turn::shared());
    let builds: [(&str, &'static str, &[&str]); 6] = [
        ("gcc", "realigned", &["-O2", "-mstackrealign"]),
        ("clang", "realigned", &["-O2", "-mstackrealign"]),
        (
            "gcc",
            "checked-branches",
            &[
                "-O2",
                "-fcf-protection=full",
                "-Wl,-z,lazy",
                "-Wl,-z,ibtplt",
            ],
        ),
        ("gcc", "static", &["-O2", "-static"]),
        ("gcc", "static-pie", &["-O2", "-static-pie"]),
        (
            "gcc",
            "protected",
            &["-O2", "-fstack-protector-all", "-fstack-clash-protection"],
        ),
    ];
    for (compiler, name, flags) in builds {
        let variant = Variant {
            compiler,
            name,
            flags,
        };
        need!(check("chains.c", variant));
    }
}

/// Make sure that a static musl program has its stacks up to the C library, which Debian builds without unwind
/// information, and that each says so.
#[test]
fn musl() {
    let _turn = need!(Turn::shared());
    let variant = Variant {
        compiler: "musl-gcc",
        name: "static",
        flags: &["-O2", "-static", "-DLIBC_WITHOUT_UNWIND_INFO"],
    };
    need!(check("chains.c", variant));
}

/// Make sure that a function that a signal interrupted at its first instruction is named, and not the one before it.
#[test]
fn interrupted_at_the_first_instruction() {
    let _turn = need!(Turn::shared());
    let variant = Variant {
        compiler: "gcc",
        name: "O2",
        flags: &["-O2"],
    };
    need!(check("first_instruction.c", variant));
}

/// Make sure that code which comes while it is traced is walked through soon after: a library, and code without a file.
///
/// What is allocated at once may find no table, and must then say so; after the test has waited, each stack is whole.
#[test]
fn code_that_comes_later() {
    let _turn = need!(Turn::shared());
    let library = Variant {
        compiler: "gcc",
        name: "O2.so",
        flags: &["-O2", "-fPIC", "-shared"],
    };
    let library = need!(fixture::variant("library.c", library));
    let program = Variant {
        compiler: "gcc",
        name: "O2",
        flags: &["-O2"],
    };
    let program = need!(fixture::variant("grows.c", program));
    let mut target = Target::start(Command::new(program).arg(library));
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    for step in ["opened", "mapped"] {
        target.wait_for(step);
        sleep(LEARNING);
        target.go();
    }
    let chains = Chains::parse(&target.wait_for("chains "));
    let books = target.books();
    let report = memtrace.stop().report();
    target.end();
    chains.compare("code that comes later", &books, &report);
    let cut = report
        .stacks
        .iter()
        .filter(|stack| stack.truncated.is_some());
    let cut: u64 = cut.map(|stack| stack.counts.total_count).sum();
    assert!(
        cut <= 2,
        "only the first stack through new code may be cut: {cut}"
    );
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.ok()?.trim().parse().ok()
}

/// Make sure that a process in its own mount and pid namespace, whose program nobody else can see, has whole stacks
/// with full names.
#[test]
fn namespaces() {
    let _turn = need!(Turn::shared());
    let unshare = need!(needs::program("unshare"));
    let variant = Variant {
        compiler: "gcc",
        name: "O2",
        flags: &["-O2", "-fomit-frame-pointer", "-Wl,-z,lazy"],
    };
    let program = need!(fixture::variant("chains.c", variant));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(unshare);
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args([
            "sh",
            "-c",
            "mount -t tmpfs tmpfs \"$1\" && cp \"$2\" \"$1/hidden\" && exec \"$1/hidden\"",
            "sh",
        ])
        .arg(folder.path())
        .arg(program);
    let mut target = Target::start(&mut command);
    let pid = child_of(target.pid()).expect("the process in the namespaces");
    assert!(
        !folder.path().join("hidden").exists(),
        "its program cannot be seen from outside"
    );
    let memtrace = Memtrace::on(pid, &PLAIN);
    target.go();
    let chains = Chains::parse(&target.wait_for("chains "));
    let books = target.books();
    let report = memtrace.stop().report();
    target.end();
    chains.compare("namespaces", &books, &report);
}
