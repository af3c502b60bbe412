//! A program that does work on request: asked by lines on its standard input, ended by closing it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell::line;

/// The running program; it ends when this value is dropped or this process dies.
pub(crate) struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Workload {
    /// Starts the program.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start `{}`", line(command)))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// Process id of the program that was started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the program prints.
    pub(crate) fn read_line(&mut self) -> Result<String> {
        let mut answer = String::new();
        if self.stdout.read_line(&mut answer)? == 0 {
            bail!("the workload has ended");
        }
        Ok(answer)
    }

    /// Sends a line and waits for a line with a number; what a launcher says in between is passed over.
    pub(crate) fn ask_number(&mut self, request: &str) -> Result<f64> {
        let stdin = self.stdin.as_mut().context("stdin is open")?;
        writeln!(stdin, "{request}")?;
        loop {
            if let Ok(number) = self.read_line()?.trim().parse() {
                return Ok(number);
            }
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself; there is nothing to do if waiting for it fails.
        drop(self.child.wait());
    }
}
