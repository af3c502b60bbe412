//! memtrace as a process: started, waited for, interrupted, and read.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    books::Books,
    lines::{Lines, PATIENCE},
    needs,
    report::Report,
    target::send,
};

/// A run of memtrace that goes on.
#[derive(Debug)]
pub struct Memtrace {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines,
    errors: Lines,
    json: PathBuf,
    _folder: TempDir,
}

/// A run of memtrace that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The lines of its stdout.
    pub output: Vec<String>,
    /// The lines of its stderr.
    pub errors: Vec<String>,
    /// Its JSON, if it wrote any.
    pub json: Option<String>,
    /// From the wait's begin to the end of the process.
    pub took: Duration,
    /// The last `VmHWM` that was seen while it ended, in bytes.
    pub peak_bytes: u64,
}

impl Memtrace {
    /// Starts `memtrace -p pid OPTIONS` and waits until it records.
    ///
    /// # Panics
    ///
    /// When it does not get that far.
    #[must_use]
    pub fn on<S: AsRef<OsStr>>(pid: u32, options: &[S]) -> Self {
        let run = Self::start(|command| {
            command.arg("-p").arg(pid.to_string()).args(options);
        });
        run.wait_for(&format!("tracing pid {pid}"));
        run
    }

    /// Starts `memtrace OPTIONS -- COMMAND`, and waits for nothing.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(command_line: &[S]) -> Self {
        Self::start(|command| {
            command.arg("--").args(command_line);
        })
    }

    /// Starts memtrace with `--json` and whatever `arguments` adds.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(arguments: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let json = folder.path().join("report.json");
        let mut command = Command::new(needs::memtrace().expect("a memtrace binary"));
        command.arg("--json").arg(&json);
        arguments(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = Lines::of(child.stdout.take().expect("its stdout"));
        let errors = Lines::of(child.stderr.take().expect("its stderr"));
        Self {
            input: child.stdin.take(),
            child,
            output,
            errors,
            json,
            _folder: folder,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its stderr that contains `text`.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn wait_for(&self, text: &str) -> String {
        match self.errors.wait_for(|line| line.contains(text)) {
            Ok(line) => line,
            Err(seen) => panic!("no `{text}` on memtrace's stderr: {seen}"),
        }
    }

    /// Waits for a line of its stdout, which a command that it started shares, that starts with `start`.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn wait_for_output(&self, start: &str) -> String {
        match self.output.wait_for(|line| line.starts_with(start)) {
            Ok(line) => line,
            Err(seen) => panic!(
                "no `{start}` on memtrace's stdout: {seen}\nits stderr:\n{}",
                self.errors.so_far().join("\n")
            ),
        }
    }

    /// Waits for the books of a fixture that memtrace started.
    pub fn books(&self) -> Books {
        Books::parse(&self.wait_for_output("{"))
    }

    /// Writes to its stdin, which a command that it started shares.
    ///
    /// # Panics
    ///
    /// When nobody reads.
    pub fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("its stdin");
        input
            .write_all(text.as_bytes())
            .expect("somebody who reads memtrace's stdin");
    }

    /// Whether it has ended.
    ///
    /// # Panics
    ///
    /// When its state cannot be read.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the state of memtrace")
            .is_some()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Interrupts it as Ctrl-C does, and waits for its end.
    #[must_use]
    pub fn stop(self) -> Ended {
        self.signal(Signal::INT);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        let start = Instant::now();
        let mut peak_bytes = 0;
        // Nobody writes to its stdin any more.
        self.input = None;
        let status = loop {
            peak_bytes = peak_resident_bytes(self.pid()).unwrap_or(peak_bytes);
            if let Some(status) = self.child.try_wait().expect("the state of memtrace") {
                break status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "memtrace does not end; its stderr:\n{}",
                self.errors.so_far().join("\n")
            );
            thread::sleep(Duration::from_millis(2));
        };
        let took = start.elapsed();
        Ended {
            code: status.code(),
            signal: status.signal(),
            output: self.output.all(),
            errors: self.errors.all(),
            json: fs::read_to_string(&self.json).ok(),
            took,
            peak_bytes,
        }
    }
}

impl Drop for Memtrace {
    fn drop(&mut self) {
        // Errors mean that it ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The report of a run that went well.
    ///
    /// # Panics
    ///
    /// When the exit code is another than `code`, or there is no report.
    #[must_use]
    pub fn report_with_code(&self, code: i32) -> Report {
        let errors = self.errors.join("\n");
        assert_eq!(
            self.code,
            Some(code),
            "memtrace's exit code (ended by signal {:?}); its stderr:\n{errors}",
            self.signal
        );
        assert!(
            !self.output.is_empty(),
            "no report on stdout; stderr:\n{errors}"
        );
        Report::parse(
            self.json
                .as_deref()
                .unwrap_or_else(|| panic!("no JSON; stderr:\n{errors}")),
        )
    }

    /// The report of a run with exit code 0.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report_with_code(0)
    }
}

/// Runs memtrace with these arguments only, to its end.
///
/// # Panics
///
/// When it cannot be started or does not end.
#[must_use]
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Ended {
    Memtrace::start(|command| {
        command.args(arguments);
    })
    .wait()
}

fn peak_resident_bytes(pid: u32) -> Option<u64> {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
