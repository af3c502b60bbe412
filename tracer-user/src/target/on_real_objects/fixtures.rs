//! Programs for the tests, compiled and run, and how they say that they are up.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::target::{Allocator, Discovery, Process};

/// Where Debian installs libraries.
pub(super) const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// A program that says that it is up, then waits for a line and, if that names a library, loads it, says so and
/// waits again.
pub(super) const WAITS: &str = r#"
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
pub(super) const PLAIN: &str = r#"
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
pub(super) const BARE: &str = r#"
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
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("memtrace-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Compiles a program and gives its path.
    pub(super) fn compile(&self, compiler: &str, source: &str, options: &[&str]) -> PathBuf {
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
    pub(super) fn run(&self, program: &str, arguments: &[&str]) {
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
pub(super) struct Target(pub(super) Child);

impl Target {
    pub(super) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut target = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        target.await_ready();
        target
    }

    /// `cat` with a preloaded library: it answers when everything is loaded.
    pub(super) fn with_preload(library: &str) -> Self {
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

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(super) fn await_ready(&mut self) {
        assert_eq!(self.read_line(), "ready");
    }

    /// The next line of its output; read byte by byte, so that nothing behind it is taken away.
    pub(super) fn read_line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        BufReader::with_capacity(1, stdout)
            .read_line(&mut line)
            .unwrap();
        line.trim_end().to_owned()
    }

    pub(super) fn process(&self) -> Process {
        Process::open(self.0.id()).unwrap()
    }

    pub(super) fn allocators(&self) -> Vec<Allocator> {
        Discovery::new(Vec::new()).scan(&self.process()).unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
