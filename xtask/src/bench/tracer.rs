//! The tracers that are compared: how each is started on a process, when it is ready, how it is ended.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell::{as_root, line, run};

/// How often a tracer is started before the benchmark gives up, and how long it waits in between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_secs(3);

/// Who traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tracer {
    Nobody,
    Floor,
    Memtrace,
    FramePointers,
    Entries,
    Memleak,
    Heaptrack,
}

/// The tracers that are compared, in the order of the tables.
pub(crate) const ALL: [Tracer; 6] = [
    Tracer::Nobody,
    Tracer::Floor,
    Tracer::Memtrace,
    Tracer::Entries,
    Tracer::Memleak,
    Tracer::Heaptrack,
];

impl Tracer {
    /// Its row in the tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Nobody => "untraced",
            Self::Floor => "empty BPF programs on memtrace's sites (the floor)",
            Self::Memtrace => "memtrace",
            Self::FramePointers => "memtrace, walking by frame pointers only",
            Self::Entries => "memtrace's programs at the functions' entries",
            Self::Memleak => "memleak (bcc)",
            Self::Heaptrack => "heaptrack",
        }
    }
}

/// Where the tracers are.
pub(crate) struct Tools {
    /// The binary under test.
    pub(crate) memtrace: PathBuf,
    /// Kernel headers for bcc; `None` where bcc finds those of the running kernel by itself.
    pub(crate) kernel_headers: Option<PathBuf>,
    /// For logs and captures.
    pub(crate) folder: PathBuf,
}

impl Tools {
    /// The command that runs `program` so that `tracer` can see it: itself, but for heaptrack.
    pub(crate) fn launch(&self, tracer: Tracer, program: &str) -> Command {
        if tracer != Tracer::Heaptrack {
            return Command::new(program);
        }
        let mut heaptrack = Command::new("heaptrack");
        heaptrack
            .arg("-o")
            .arg(self.folder.join("heaptrack"))
            .arg(program);
        heaptrack
    }

    /// Starts `tracer` on a process and waits until it is in place.
    ///
    /// Tries again for a while: the kernel refuses a probe while one that differs in its reference counter is still
    /// being removed from the same instruction, and bcc 0.26 sets that counter where the others do not.
    pub(crate) fn attach(&self, tracer: Tracer, pid: u32) -> Result<Option<Attached>> {
        let mut attempt = 1;
        loop {
            match self.try_attach(tracer, pid) {
                Err(error) if attempt < ATTEMPTS => {
                    println!("    {tracer:?}, attempt {attempt}: {error:#}");
                    thread::sleep(PAUSE);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_attach(&self, tracer: Tracer, pid: u32) -> Result<Option<Attached>> {
        let pid_text = pid.to_string();
        let memtrace = |more: &[&str]| {
            let mut command = as_root(&self.memtrace);
            command.args(["-p", &pid_text]).args(more);
            command
        };
        let mut command = match tracer {
            Tracer::Nobody | Tracer::Heaptrack => return Ok(None),
            Tracer::Floor => memtrace(&["--programs", "empty"]),
            Tracer::Memtrace => memtrace(&[]),
            Tracer::FramePointers => memtrace(&["--unwind", "fp"]),
            Tracer::Entries => memtrace(&["--sites", "entry"]),
            Tracer::Memleak => {
                let mut command = as_root("env");
                if let Some(headers) = &self.kernel_headers {
                    command.arg(format!("BCC_KERNEL_SOURCE={}", headers.display()));
                }
                // The interval is longer than the benchmark: no time is taken by intermediate reports.
                command.args(["memleak-bpfcc", "-p", &pid_text, "3600"]);
                command
            }
        };
        let log = self.folder.join(format!("{tracer:?}.log"));
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("could not start `{}`", line(&command)))?;
        let mut attached = Attached { child };
        attached
            .wait_until_ready(pid)
            .with_context(|| format!("`{}`, see {}", line(&command), log.display()))?;
        Ok(Some(attached))
    }
}

/// A tracer at work; it is ended when this value is dropped.
pub(crate) struct Attached {
    child: Child,
}

impl Attached {
    /// Waits until the probes are in the code of `pid`, and none has been added for a while.
    fn wait_until_ready(&mut self, pid: u32) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut since = Instant::now();
        let mut last = 0;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("the tracer ended at once: {status}");
            }
            let now = patched_kib(pid)?;
            if now != last {
                last = now;
                since = Instant::now();
            }
            if last > 0 && since.elapsed() > Duration::from_secs(2) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("the tracer set no probe within a minute")
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Asked like a user asks; a tracer that does not end within a minute is killed.
        let pid = self.child.id().to_string();
        let mut interrupt = as_root("kill");
        let asked = run(interrupt.args(["-INT", &pid])).is_ok();
        let deadline = Instant::now() + Duration::from_mins(1);
        while asked && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        drop(run(as_root("kill").args(["-KILL", &pid])));
        drop(self.child.wait());
    }
}

/// How much of the code of a process differs from its files, in KiB: the pages that hold breakpoints.
fn patched_kib(pid: u32) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut is_code = false;
    let mut sum = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:"), Some(kib)) if is_code => sum += kib.parse::<u64>()?,
            (Some(field), Some(permissions)) if !field.ends_with(':') => {
                is_code = permissions.starts_with("r-x") && line.contains('/');
            }
            _ => {}
        }
    }
    Ok(sum)
}
