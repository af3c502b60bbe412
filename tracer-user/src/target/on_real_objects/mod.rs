//! Discovery on processes that run here. These tests belong to the root tier: they need root, a C compiler with
//! static libraries, musl-gcc, and Debian's packages of jemalloc, tcmalloc and mimalloc.

mod fixtures;
mod processes;
mod user_functions;

use std::process::Command;

use tracer_common::call::CallFlags;

use self::fixtures::{BARE, Folder, LIBRARIES, PLAIN, Target, WAITS};
use super::{Allocator, AllocatorKind, Discovery, Process, TargetError, loader::loader_probe};

/// Asserts what holds for every allocator: no code is probed twice, releases come first, and each of `hot` is
/// there and is probed at an instruction that the kernel emulates.
fn check(allocator: &Allocator, hot: &[&str]) {
    let functions = &allocator.functions;
    let mut entries: Vec<u64> = functions
        .iter()
        .map(|function| function.site.entry_offset)
        .collect();
    entries.sort_unstable();
    entries.dedup();
    assert_eq!(entries.len(), functions.len(), "{}", allocator.object);
    assert!(functions.is_sorted_by_key(|function| !function.shape.is_free()));
    assert_eq!(allocator.unprobed, Vec::<String>::new());
    for function in functions {
        let distance = function.site.file_offset - function.site.entry_offset;
        assert!(distance <= 64, "{}", function.name);
    }
    for name in hot {
        let function = find(allocator, name);
        assert!(function.site.emulated, "{name}: {:?}", function.site);
    }
}

fn find<'a>(allocator: &'a Allocator, name: &str) -> &'a super::Function {
    allocator
        .functions
        .iter()
        .find(|function| {
            function.name == name || function.aliases.iter().any(|alias| alias == name)
        })
        .unwrap_or_else(|| panic!("{name} in {}", allocator.object))
}

/// Make sure that a preloaded allocator is found to serve malloc before the C library, for each of the three.
#[test]
fn preloaded() {
    for (library, kind, hot) in [
        (
            "libjemalloc.so.2",
            AllocatorKind::Jemalloc,
            &[
                "malloc", "free", "calloc", "realloc", "_Znwm", "_ZdlPv", "_ZdaPvm", "mallocx",
                "xallocx",
            ][..],
        ),
        (
            "libtcmalloc_minimal.so.4",
            AllocatorKind::Tcmalloc,
            &[
                "malloc",
                "free",
                "_Znwm",
                "_ZdlPv",
                "tc_malloc",
                "tc_delete_sized",
            ],
        ),
        (
            "libmimalloc.so.2",
            AllocatorKind::Mimalloc,
            &[
                "malloc",
                "free",
                "_Znwm",
                "_ZdlPvm",
                "mi_malloc",
                "mi_free_size",
            ],
        ),
    ] {
        let target = Target::with_preload(library);
        let allocators = target.allocators();
        let [first, second] = allocators.as_slice() else {
            panic!("{allocators:#?}");
        };
        assert_eq!(first.kind, kind);
        assert!(first.object.contains(library), "{}", first.object);
        assert_eq!(
            first.reason,
            "first in the loader's search order that exports malloc (preloaded before libc.so.6)"
        );
        check(first, hot);
        assert_eq!(second.kind, AllocatorKind::Glibc);
        assert!(
            second.reason.contains("plain malloc is served by"),
            "{}",
            second.reason
        );
    }
}

/// Make sure that glibc is found, with its aliases as one function, and its loader's announcements.
#[test]
fn glibc() {
    let folder = Folder::new();
    let program = folder.compile("cc", WAITS, &[]);
    let target = Target::start(&mut Command::new(program));
    let allocators = target.allocators();
    let [glibc] = allocators.as_slice() else {
        panic!("{allocators:#?}");
    };
    assert_eq!(glibc.kind, AllocatorKind::Glibc);
    assert_eq!(
        glibc.reason,
        "first in the loader's search order that exports malloc"
    );
    check(
        glibc,
        &[
            "malloc",
            "free",
            "calloc",
            "realloc",
            "posix_memalign",
            "aligned_alloc",
        ],
    );
    assert!(
        find(glibc, "free")
            .aliases
            .iter()
            .any(|alias| alias == "__libc_free")
    );
    let loader = loader_probe(&target.process()).unwrap().unwrap();
    assert!(loader.attach_path.starts_with("/proc"));
}

/// Make sure that a second scan finds exactly what was loaded since, and that one without news finds nothing.
#[test]
fn dlopen() {
    let folder = Folder::new();
    let program = folder.compile("cc", WAITS, &[]);
    let mut target = Target::start(&mut Command::new(program));
    let process = target.process();
    let mut discovery = Discovery::new(Vec::new());
    assert_eq!(discovery.scan(&process).unwrap().len(), 1);
    assert_eq!(discovery.scan(&process).unwrap().len(), 0);
    target.tell(&format!("{LIBRARIES}/libmimalloc.so.2"));
    target.await_ready();
    let new = discovery.scan(&process).unwrap();
    let [mimalloc] = new.as_slice() else {
        panic!("{new:#?}");
    };
    assert_eq!(mimalloc.kind, AllocatorKind::Mimalloc);
    assert_eq!(
        mimalloc.reason,
        "loaded while memtrace ran; also mapped; plain malloc is served by libc.so.6, this object only calls that are bound to it"
    );
    assert_eq!(discovery.scan(&process).unwrap().len(), 0);
}

/// Make sure that static programs of both C libraries are told apart by their symbols.
#[test]
fn static_programs() {
    for (compiler, options, kind) in [
        ("cc", &["-static"][..], AllocatorKind::Glibc),
        ("cc", &["-static-pie"], AllocatorKind::Glibc),
        ("musl-gcc", &["-static"], AllocatorKind::Musl),
    ] {
        let folder = Folder::new();
        let program = folder.compile(compiler, PLAIN, options);
        let target = Target::start(&mut Command::new(program));
        let allocators = target.allocators();
        let [only] = allocators.as_slice() else {
            panic!("{allocators:#?}");
        };
        assert_eq!(only.kind, kind);
        assert_eq!(
            only.reason,
            "the executable is static and defines malloc itself"
        );
        check(only, &["malloc", "free"]);
    }
}

/// Make sure that musl's shared library, which is its loader too, is known.
#[test]
fn shared_musl() {
    let folder = Folder::new();
    let program = folder.compile("musl-gcc", WAITS, &[]);
    let target = Target::start(&mut Command::new(program));
    let allocators = target.allocators();
    let [musl] = allocators.as_slice() else {
        panic!("{allocators:#?}");
    };
    assert_eq!(musl.kind, AllocatorKind::Musl);
    assert_eq!(
        musl.reason,
        "first in the loader's search order that exports malloc"
    );
    check(musl, &["malloc", "free", "calloc", "realloc"]);
    assert!(loader_probe(&target.process()).unwrap().is_some());
}

/// Make sure that a stripped static program is refused with the likely cause, and found once its debug file is
/// beside it; a debug file with another checksum is not believed.
#[test]
fn separate_debug_file() {
    let folder = Folder::new();
    let program = folder.compile("cc", PLAIN, &["-static", "-Wl,--build-id=none"]);
    folder.run(
        "objcopy",
        &["--only-keep-debug", "program", "program.debug"],
    );
    folder.run(
        "objcopy",
        &[
            "--strip-all",
            "--add-gnu-debuglink=program.debug",
            "program",
        ],
    );
    let debug = folder.0.join("program.debug");
    let kept = std::fs::read(&debug).unwrap();
    std::fs::write(&debug, [kept.as_slice(), b"x"].concat()).unwrap();
    let target = Target::start(&mut Command::new(program));
    let process = target.process();
    let error = Discovery::new(Vec::new()).scan(&process).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("static executable without symbols"),
        "{error}"
    );
    std::fs::write(&debug, kept).unwrap();
    let allocators = target.allocators();
    assert_eq!(allocators.len(), 1);
    assert_eq!(allocators[0].kind, AllocatorKind::Glibc);
    check(&allocators[0], &["malloc", "free"]);
}

/// Make sure that a deleted executable is reached through its mapping.
#[test]
fn deleted_executable() {
    let folder = Folder::new();
    let program = folder.compile("cc", PLAIN, &["-static"]);
    let target = Target::start(&mut Command::new(&program));
    std::fs::remove_file(&program).unwrap();
    assert_eq!(target.process().exe(), program);
    let allocators = target.allocators();
    assert_eq!(allocators[0].object, program.to_str().unwrap());
    assert!(
        allocators[0]
            .attach_path
            .to_str()
            .unwrap()
            .contains("/map_files/")
    );
}

/// Make sure that an executable's own malloc comes first, that nothing about it is taken for granted, and that
/// allocators with a prefix are listed beside the C library.
#[test]
fn executables_own() {
    let folder = Folder::new();
    let own = format!(
        "{WAITS}
        static char heap[1 << 24];
        static unsigned long used;
        void *malloc(unsigned long size) {{ used += (size + 31) & ~15ul; return heap + used; }}
        void *calloc(unsigned long count, unsigned long size) {{ return malloc(count * size); }}
        void *realloc(void *block, unsigned long size) {{ return malloc(size); }}
        void free(void *block) {{ }}"
    );
    let program = folder.compile("cc", &own, &["-fno-builtin"]);
    let target = Target::start(&mut Command::new(program));
    let allocators = target.allocators();
    assert_eq!(allocators.len(), 2);
    assert_eq!(allocators[0].kind, AllocatorKind::Other);
    assert_eq!(
        allocators[0].reason,
        "the executable defines malloc itself, before any library"
    );
    assert!(
        find(&allocators[0], "free")
            .shape
            .flags
            .contains(CallFlags::NESTS)
    );
    assert_eq!(allocators[1].kind, AllocatorKind::Glibc);

    let folder = Folder::new();
    let prefixed = format!(
        "{WAITS}
        void *_rjem_malloc(unsigned long size) {{ return 0; }}
        void _rjem_sdallocx(void *block, unsigned long size, int flags) {{ }}"
    );
    let program = folder.compile("cc", &prefixed, &[]);
    let target = Target::start(&mut Command::new(program));
    let allocators = target.allocators();
    assert_eq!(allocators.len(), 2);
    assert_eq!(allocators[0].kind, AllocatorKind::Glibc);
    assert_eq!(allocators[1].kind, AllocatorKind::Jemalloc);
    assert_eq!(
        allocators[1].reason,
        "serves only calls that name its _rjem_ prefix"
    );
}

/// Make sure that a program without an allocator is refused, one made by Go with its own cause.
#[test]
fn no_allocator() {
    let bare = ["-static", "-nostdlib", "-ffreestanding"];
    let folder = Folder::new();
    let program = folder.compile("cc", BARE, &bare);
    let target = Target::start(&mut Command::new(program));
    let error = Discovery::new(Vec::new())
        .scan(&target.process())
        .unwrap_err();
    assert!(matches!(error, TargetError::NoAllocator { .. }), "{error}");
    assert!(error.to_string().contains("looked at program"), "{error}");

    let folder = Folder::new();
    let go = format!("__attribute__((section(\".go.buildinfo\"))) char info[16] = {{1}};{BARE}");
    let program = folder.compile("cc", &go, &bare);
    let target = Target::start(&mut Command::new(program));
    let error = Discovery::new(Vec::new())
        .scan(&target.process())
        .unwrap_err();
    assert!(error.to_string().contains("it is a Go program"), "{error}");
}

/// Starts a program under trace and leaves it stopped before its loader's first instruction.
const STOPPED: &str = r#"
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execl("/bin/cat", "cat", (char *)0);
    }
    ptrace(PTRACE_SETOPTIONS, waitpid(child, &status, 0), 0, PTRACE_O_EXITKILL);
    puts("ready");
    printf("%d\n", child);
    fflush(stdout);
    return getchar() != EOF;
}
"#;

/// Make sure that in a program which has not run its loader yet, nothing is found without an error, and the place
/// where the loader will announce its libraries is known.
#[test]
fn before_the_loader() {
    let folder = Folder::new();
    let program = folder.compile("cc", STOPPED, &[]);
    let mut target = Target::start(&mut Command::new(program));
    let child = Process::open(target.read_line().parse().unwrap()).unwrap();
    let mut discovery = Discovery::new(Vec::new());
    assert_eq!(discovery.scan(&child).unwrap().len(), 0);
    assert_eq!(discovery.scan(&child).unwrap().len(), 0);
    assert!(loader_probe(&child).unwrap().is_some());
}
