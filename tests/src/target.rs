//! A process to trace: a fixture with its handshake, ended when it is dropped.

use std::{
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    books::Books,
    lines::{Lines, PATIENCE},
};

/// A running process with its three streams in our hands.
#[derive(Debug)]
pub struct Target {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines,
    errors: Lines,
}

impl Target {
    /// Starts `command` and waits for its `ready`.
    ///
    /// # Panics
    ///
    /// When it does not get that far.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let target = Self::spawn(command);
        target.wait_for("ready");
        target
    }

    /// Starts `command` and waits for nothing.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
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
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the byte that lets a fixture go on.
    ///
    /// # Panics
    ///
    /// When it does not read any more.
    pub fn go(&mut self) {
        let sent = self.input.as_mut().expect("its stdin").write_all(b"x");
        if let Err(error) = sent {
            panic!("the target does not read: {error}; {}", self.state());
        }
    }

    /// Waits for a line of its stdout that starts with `start`.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn wait_for(&self, start: &str) -> String {
        match self.output.wait_for(|line| line.starts_with(start)) {
            Ok(line) => line,
            Err(seen) => panic!(
                "no `{start}` from the target: {seen}\nits stderr:\n{}",
                self.errors.so_far().join("\n")
            ),
        }
    }

    /// Waits for the books that a fixture prints at the end of its work.
    pub fn books(&self) -> Books {
        Books::parse(&self.wait_for("{"))
    }

    /// Whether it runs.
    ///
    /// # Panics
    ///
    /// When its state cannot be read.
    pub fn is_alive(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the state of the target")
            .is_none()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// When it cannot be sent.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Lets a fixture that waits for its start work and end, and makes sure that it does both well.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn work_and_end(mut self) {
        self.go();
        assert!(self.books().sum().total_count > 0, "the target works");
        self.end();
    }

    /// Lets a fixture end, and makes sure that it ends well.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn end(mut self) {
        self.go();
        let status = self.wait();
        assert!(
            status.success(),
            "the target ended with {status} (signal {:?}); its stderr:\n{}",
            status.signal(),
            self.errors.all().join("\n")
        );
    }

    fn state(&mut self) -> String {
        let status = wait(&mut self.child);
        format!(
            "it ended with {status}; its stderr:\n{}",
            self.errors.all().join("\n")
        )
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Errors mean that it ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a program. By another process: a file that this one has open for writing is also open in every child that
/// another thread forks meanwhile, and then cannot be executed.
///
/// # Panics
///
/// When it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "a copy of {}",
        from.display()
    );
}

/// Sends a signal to a process.
///
/// # Panics
///
/// When it cannot be sent.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, signal).expect("a signal to a process of ours");
}

/// Waits for the end of a child, with a limit.
///
/// # Panics
///
/// When the limit is reached.
pub fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("the state of a child") {
            return status;
        }
        assert!(Instant::now() < end, "process {} does not end", child.id());
        thread::sleep(Duration::from_millis(2));
    }
}
