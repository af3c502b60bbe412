//! Discovery on processes that run here. These tests belong to the root tier: they need root, a C compiler with
//! static libraries, musl-gcc, and Debian's packages of jemalloc, tcmalloc and mimalloc.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tracer_common::call::{CallFlags, CallShape};

use super::{
    Allocator, AllocatorKind, Discovery, Process, TargetError,
    loader::loader_probe,
    user::{UserFunction, UserKind},
};

const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// A program that says that it is up, then waits for a line and, if that names a library, loads it, says so and
/// waits again.
const WAITS: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    char line[4096];
    for (;;) {
        puts("ready");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin))
            return 0;
        line[strcspn(line, "\n")] = 0;
        if (!dlopen(line, RTLD_NOW))
            puts(dlerror());
    }
}
"#;

/// The same without loading anything, for static programs.
const PLAIN: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    void *volatile block = malloc(10);
    free(block);
    puts("ready");
    fflush(stdout);
    return getchar() != EOF;
}
"#;

/// The same without a C library.
const BARE: &str = r#"
static long call(long number, long a, const void *b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
void _start(void) {
    char byte;
    call(1, 1, "ready\n", 6);
    call(0, 0, &byte, 1);
    call(60, 0, 0, 0);
}
"#;

/// A folder for a test's files, removed with its contents at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("memtrace-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Compiles a program and gives its path.
    fn compile(&self, compiler: &str, source: &str, options: &[&str]) -> PathBuf {
        let language = if compiler == "c++" { "c++" } else { "c" };
        let output = self.0.join("program");
        let mut child = Command::new(compiler)
            .args(["-O1", "-x", language, "-", "-o"])
            .arg(&output)
            .args(options)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{compiler} is needed for this test: {error}"));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(source.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "{compiler} {options:?}");
        output
    }

    /// Runs a tool of binutils in the folder.
    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program)
            .current_dir(&self.0)
            .args(arguments)
            .status();
        let status =
            status.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        assert!(status.success(), "{program} {arguments:?}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that is up and waits.
struct Target(Child);

impl Target {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut target = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        target.await_ready();
        target
    }

    /// `cat` with a preloaded library: it answers when everything is loaded.
    fn with_preload(library: &str) -> Self {
        let path = Path::new(LIBRARIES).join(library);
        assert!(path.exists(), "{} is needed for this test", path.display());
        let mut command = Command::new("cat");
        command
            .env("LD_PRELOAD", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut target = Self(command.spawn().unwrap());
        target.tell("ready");
        target.await_ready();
        target
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn await_ready(&mut self) {
        let mut line = Vec::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        BufReader::with_capacity(1, stdout)
            .read_until(b'\n', &mut line)
            .unwrap();
        assert_eq!(line, b"ready\n", "{:?}", String::from_utf8_lossy(&line));
    }

    fn process(&self) -> Process {
        Process::open(self.0.id()).unwrap()
    }

    fn allocators(&self) -> Vec<Allocator> {
        Discovery::new(Vec::new()).scan(&self.process()).unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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

const POOL: &str = r#"
#include <cstdio>
struct Pool {
    __attribute__((noinline)) void *get(unsigned long size);
    __attribute__((noinline)) void put(void *block);
    __attribute__((noinline)) void put(void *block, int hint);
};
void *Pool::get(unsigned long size) { return (char *)this + size; }
void Pool::put(void *block) { std::printf("%p", block); }
void Pool::put(void *block, int hint) { std::printf("%p %d", block, hint); }
extern "C" __attribute__((noinline)) void *pool_get(Pool *pool, unsigned long size) { return pool->get(size); }
int main() {
    std::puts("ready");
    std::fflush(stdout);
    Pool pool;
    int line = std::getchar();
    if (line == EOF) return 0;
    pool.put(pool.get(line));
    pool.put(pool_get(&pool, line), line);
}
"#;

/// Make sure that functions which the user names in C or C++ are found, and mistakes are answered with names that
/// come close.
#[test]
fn user_functions() {
    let folder = Folder::new();
    let program = folder.compile("c++", POOL, &[]);
    let target = Target::start(&mut Command::new(&program));
    let process = target.process();
    let scan = |named: &[(UserKind, &str)]| {
        let functions = named
            .iter()
            .map(|(kind, text)| UserFunction::parse(*kind, text).unwrap())
            .collect();
        Discovery::new(functions).scan(&process)
    };
    let allocators = scan(&[
        (UserKind::Alloc, "exe:Pool::get(size=2)"),
        (UserKind::Alloc, "program:pool_get(size=2)"),
        (UserKind::Free, "exe:Pool::put(void*)(ptr=2)"),
    ])
    .unwrap();
    assert_eq!(allocators[0].kind, AllocatorKind::User);
    assert_eq!(allocators[0].functions.len(), 3);
    let put = find(&allocators[0], "_ZN4Pool3putEPv");
    assert!(put.shape.is_free() && put.shape.flags.contains(CallFlags::NESTS));
    assert_eq!(
        find(&allocators[0], "pool_get").shape.size,
        CallShape::alloc(1).size
    );
    assert_eq!(allocators[1].kind, AllocatorKind::Glibc);

    let error = |named: &str| scan(&[(UserKind::Alloc, named)]).unwrap_err().to_string();
    let answer = error("exe:pool_gett");
    assert!(
        answer.contains("defines no function pool_gett; did you mean pool_get?"),
        "{answer}"
    );
    let answer = error("exe:Pool::gett(size=2)");
    assert!(answer.contains("did you mean Pool::get"), "{answer}");
    let answer = error("libcc:x");
    assert!(
        answer.contains("no object libcc; did you mean libc.so.6"),
        "{answer}"
    );
    let answer = error("exe:Pool::put");
    assert!(answer.contains("names several functions"), "{answer}");
    // By its path, and a C library's function as the user sees it.
    let path = format!("{}:pool_get(size=2)", program.display());
    assert_eq!(
        scan(&[(UserKind::Alloc, &path)]).unwrap()[0]
            .functions
            .len(),
        1
    );
    let allocators = scan(&[(UserKind::Alloc, "libc.so.6:strdup")]).unwrap();
    assert!(allocators[0].object.ends_with("libc.so.6"));
}

/// Make sure that each process that cannot be traced is refused by what it is.
#[test]
fn refused() {
    let error = |pid| Process::open(pid).unwrap_err();
    assert!(matches!(error(0), TargetError::NoSuchProcess { .. }));
    assert!(matches!(error(u32::MAX), TargetError::NoSuchProcess { .. }));
    assert!(matches!(
        error(4_194_304),
        TargetError::NoSuchProcess { .. }
    ));
    assert!(matches!(error(std::process::id()), TargetError::Own { .. }));
    assert!(matches!(error(2), TargetError::KernelThread { .. }));

    let thread = std::thread::spawn(|| {
        u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).map(Process::open)
    });
    match thread.join().unwrap().unwrap().unwrap_err() {
        TargetError::Thread { tgid, .. } => assert_eq!(tgid, std::process::id()),
        other => panic!("{other}"),
    }

    let mut child = Command::new("true").spawn().unwrap();
    let pid = Pid::from_child(&child);
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .unwrap();
    match error(child.id()) {
        TargetError::Zombie { parent, .. } => assert_eq!(parent, std::process::id()),
        other => panic!("{other}"),
    }
    child.wait().unwrap();
    assert!(matches!(
        error(child.id()),
        TargetError::NoSuchProcess { .. }
    ));
}

/// Make sure that a process's state is read, and that its end is seen.
#[test]
fn life_and_death() {
    let folder = Folder::new();
    let program = folder.compile("cc", PLAIN, &[]);
    let mut target = Target::start(&mut Command::new(&program));
    let process = target.process();
    assert_eq!(process.comm(), "program");
    assert_eq!(process.exe(), program);
    assert_eq!(process.stat().unwrap().parent, std::process::id());
    let status = process.status().unwrap();
    assert!(status.rss_bytes >= status.rss_anon_bytes && status.rss_anon_bytes > 0);
    assert!(process.is_alive());
    drop(target.0.stdin.take());
    let mut rest = Vec::new();
    target
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_to_end(&mut rest)
        .unwrap();
    target.0.wait().unwrap();
    assert!(!process.is_alive());
    assert!(matches!(
        process.stat(),
        Err(TargetError::NoSuchProcess { .. })
    ));
    assert!(matches!(
        process.mappings(),
        Err(TargetError::NoSuchProcess { .. })
    ));
}
