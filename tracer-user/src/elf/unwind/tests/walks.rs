//! Programs stepped through, instruction by instruction: after each one, the walk must give the calls that are open.

use std::{fs, path::PathBuf, process::Command};

use tracer_common::stop::StopReason;

use super::tracee::Tracee;

/// Calls itself, realigns its stack, allocates on it, is interrupted by signals, and calls back from the C library.
const PROGRAM: &str = r#"
#include <alloca.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static volatile long sink;
static char other_stack[1 << 16];

__attribute__((noinline)) static long leaf(long a, char *text) {
    char local[40];
    snprintf(local, sizeof local, "%ld %s", a, text);
    return sink += strlen(local) + (long)time(NULL);
}

__attribute__((noinline)) static long realigned(long a) {
    __attribute__((aligned(64))) char buffer[200];
    memset(buffer, 'x', sizeof buffer - 1);
    buffer[sizeof buffer - 1] = 0;
    return leaf(a, buffer) + 1;
}

__attribute__((noinline)) static long realigned_dynamic(long a) {
    __attribute__((aligned(32))) char buffer[64];
    char *more = alloca(16 + a * 8);
    strcpy(more, "more");
    strcpy(buffer, "fixed");
    return leaf(a, more) + leaf(a, buffer);
}

__attribute__((noinline)) static long large(long a) {
    char buffer[300000];
    buffer[a] = 'a';
    buffer[a + 1] = 0;
    return leaf(a, buffer + a) + 1;
}

__attribute__((noinline)) static long many(long a, long b, long c, long d, long e, long f, long g, long h, long i) {
    return i ? many(b, c, d, e, f, g, h, a, i - 1) + a : realigned(a + h);
}

static int compare(const void *a, const void *b) {
    leaf(1, "compare");
    return *(const int *)a - *(const int *)b;
}

static void handler(int number) {
    realigned(number);
}

static void at_exit(void) {
    realigned_dynamic(3);
}

int main(void) {
    int numbers[6] = {3, 1, 2, 9, 5, 4};
    struct timespec now;
    struct timeval then;
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    struct sigaction action = {.sa_handler = handler};
    atexit(at_exit);
    clock_gettime(CLOCK_MONOTONIC, &now);
    gettimeofday(&then, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    sigaltstack(&stack, NULL);
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR2, &action, NULL);
    raise(SIGUSR2);
    qsort(numbers, 6, sizeof numbers[0], compare);
    sink += many(1, 2, 3, 4, 5, 6, 7, 8, 5) + realigned_dynamic(numbers[0]) + large(7);
    free(malloc(100));
    return 0;
}
"#;

/// Becomes traced by its parent, then becomes the program.
const LAUNCHER: &str = r"
#include <sys/ptrace.h>
#include <unistd.h>
int main(int count, char **words) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    execv(words[1], words + 1);
    return 1;
}
";

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("memtrace-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn compile(&self, compiler: &str, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let source_path = self.0.join(format!("{name}.c"));
        fs::write(&source_path, source).unwrap();
        let program = self.0.join(name);
        let done = Command::new(compiler)
            .args(flags)
            .args(["-w", "-o"])
            .args([&program, &source_path])
            .status()
            .unwrap();
        assert!(done.success(), "{compiler} {flags:?}");
        program
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The folder is in the system's temporary one: at worst it stays there.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Make sure that at every instruction of a program, however it was compiled, each frame of the walk is a call that is
/// open, and that hardly a walk ends early: in start-up code that has no unwind information, and between the two
/// instructions by which a realigned frame of gcc's is left, where the place that it names for `rbp` is wrong.
#[test]
fn walks_equal_the_open_calls() {
    let folder = Folder::new("walks");
    let launcher = folder.compile("cc", "launcher", LAUNCHER, &[]);
    let builds: [(&str, &[&str]); 6] = [
        ("cc", &["-O0", "-Wl,-z,now"]),
        ("cc", &["-O2", "-Wl,-z,lazy"]),
        ("cc", &["-O3", "-fomit-frame-pointer", "-Wl,-z,now"]),
        ("cc", &["-O2", "-fno-omit-frame-pointer", "-Wl,-z,now"]),
        ("cc", &["-O2", "-fcf-protection", "-no-pie", "-Wl,-z,lazy"]),
        ("clang", &["-O2", "-Wl,-z,now"]),
    ];
    for (index, (compiler, flags)) in builds.into_iter().enumerate() {
        if Command::new(compiler).arg("--version").output().is_err() {
            println!("not installed: {compiler}");
            continue;
        }
        let program = folder.compile(compiler, &format!("program{index}"), PROGRAM, flags);
        let walks = Tracee::start(&launcher, &program).follow();
        println!("{compiler} {flags:?}: {walks:?}");
        let ended = |reason| walks.ends.get(&reason).copied().unwrap_or(0);
        // The loader's trampoline counts its frame from rbx while it resolves a function at its first call; the C
        // library has such calls too.
        let lazy = ended(StopReason::UnknownRegister);
        let gcc = ended(StopReason::Unreadable)
            + ended(StopReason::BadStackPointer)
            + ended(StopReason::BadFramePointer);
        assert!(gcc <= 8, "{walks:?}");
        let none = ended(StopReason::NoUnwindInfo);
        let complete = ended(StopReason::Complete);
        assert!(none * 200 < complete, "{walks:?}");
        assert!(
            lazy * 20 < complete || flags.contains(&"-Wl,-z,lazy"),
            "{walks:?}"
        );
        assert_eq!(
            lazy + gcc + none + complete,
            walks.ends.values().sum::<u64>()
        );
        assert!(walks.signals == 2 && walks.deepest > 10, "{walks:?}");
    }
}
