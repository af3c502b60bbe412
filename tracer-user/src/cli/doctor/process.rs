//! What would be probed in a process, and whether the kernel takes the probes: they are put in place for a moment,
//! with programs that record nothing and let returns and exceptions alone.

use std::{
    fs,
    io::{self, Write},
};

use super::{
    features::{self, reasons},
    finding::{Finding, Sheet},
    table,
};
use crate::{
    kernel::{KernelError, features::Backend},
    report::{
        escape::{Escaped, basename},
        units::plural,
    },
    target::{
        Allocator, Discovery, Process, Site, TargetError, Unwinder,
        loader::{self, LoaderProbe},
        user::UserFunctions,
    },
};

/// A process and what would be probed in it.
pub(super) struct Found {
    process: Process,
    allocators: Vec<Allocator>,
    unwinders: Vec<Unwinder>,
    loader: Option<LoaderProbe>,
}

/// What the kernel said to the probes of an allocator.
enum Answer {
    /// They were not tried, for this reason; and what helps.
    Untried(&'static str, &'static str),
    /// All but these functions are probed.
    But(Vec<(String, io::Error)>),
    /// None is.
    None(KernelError),
}

impl Found {
    /// Opens a process and looks for its allocators, as a run does.
    ///
    /// # Errors
    ///
    /// When the process cannot be traced.
    pub(super) fn in_process(pid: u32, functions: UserFunctions) -> Result<Self, TargetError> {
        let process = Process::open(pid)?;
        let mut discovery = Discovery::new(functions);
        Ok(Self {
            allocators: discovery.scan(&process)?,
            unwinders: discovery.take_unwinders(),
            loader: loader::loader_probe(&process)?,
            process,
        })
    }

    /// Writes it, with the kernel's answer to the probes; `backend` is how to attach, if that is possible.
    pub(super) fn tell<W: Write>(
        &self,
        sheet: &mut Sheet<W>,
        backend: Option<Backend>,
    ) -> io::Result<()> {
        let Self {
            process,
            allocators,
            unwinders,
            loader,
        } = self;
        sheet.section("Process")?;
        sheet.tell(&about(process))?;
        if allocators.is_empty() {
            sheet.tell(&Finding::warn(
                "allocator",
                "none yet: the process's loader is still at work",
                "run doctor again in a moment",
            ))?;
        }
        let mut kernel = match backend {
            None => Err(("the kernel refused what is needed", FAILED_ABOVE)),
            // A session program decides at the entry that the return is none of its business. The older ways change
            // the return address at once, which takes the care of a whole run.
            Some(Backend::Multi | Backend::PerfEvent) => Err((
                "only uprobe_session can do so without a trace",
                "a short run tries them: memtrace -p PID -d 1s",
            )),
            Some(backend @ Backend::Session) => features::load(process.pid(), backend)
                .map_err(|_| ("the programs do not load for this process", FAILED_ABOVE)),
        };
        for (number, allocator) in allocators.iter().enumerate() {
            let answer = match &mut kernel {
                Ok(kernel) => kernel
                    .attach(allocator, number)
                    .map_or_else(Answer::None, Answer::But),
                Err((reason, remedy)) => Answer::Untried(reason, remedy),
            };
            tell_allocator(sheet, allocator, &answer)?;
        }
        for unwinder in unwinders {
            sheet.tell(&unwinder_finding(unwinder))?;
        }
        let answer = match (&mut kernel, loader) {
            (Ok(kernel), Some(LoaderProbe { attach_path, site })) => {
                kernel.attach_loader(attach_path, site)
            }
            _ => Ok(()),
        };
        sheet.tell(&loader_finding(loader.as_ref(), answer))
        // The probes end with the programs, here.
    }
}

fn about(process: &Process) -> Finding {
    let pid = process.pid();
    let inner = process.namespaced_pid();
    let inner = if inner == pid {
        String::new()
    } else {
        format!(", {inner} in its own pid namespace")
    };
    Finding::ok(
        "process",
        format!(
            "{} (pid {pid}{inner}), {}",
            Escaped(process.comm()),
            Escaped(&process.exe().to_string_lossy())
        ),
    )
}

fn tell_allocator<W: Write>(
    sheet: &mut Sheet<W>,
    allocator: &Allocator,
    answer: &Answer,
) -> io::Result<()> {
    let Allocator {
        object,
        kind,
        reason,
        attach_path: _,
        identity: _,
        functions,
        unprobed,
    } = allocator;
    sheet.tell(&Finding::ok(
        "allocator",
        format!("{}: {}\n{}", kind.name(), Escaped(object), Escaped(reason)),
    ))?;
    let refused: Vec<&str> = match answer {
        Answer::Untried(..) => Vec::new(),
        Answer::But(refused) => refused.iter().map(|(name, _)| name.as_str()).collect(),
        Answer::None(_) => functions
            .iter()
            .map(|function| function.name.as_str())
            .collect(),
    };
    for line in table::lines(functions, &refused) {
        sheet.line(&line)?;
    }
    for function in unprobed {
        sheet.tell(&Finding::lack(
            "not probed",
            format!(
                "{}; blocks that only it hands out or takes back are missed",
                Escaped(function)
            ),
        ))?;
    }
    let object = Escaped(basename(object)).to_string();
    for finding in probes(&object, functions.len(), answer) {
        sheet.tell(&finding)?;
    }
    Ok(())
}

/// What became of the probes.
fn probes(object: &str, functions: usize, answer: &Answer) -> Vec<Finding> {
    const SUBJECT: &str = "probes";
    let all = plural(functions as u64, "function");
    match answer {
        Answer::Untried(reason, remedy) => vec![Finding::warn(
            SUBJECT,
            format!("{all} of {object} not tried: {reason}"),
            *remedy,
        )],
        Answer::None(error) => {
            let remedy = match error {
                KernelError::Attach { cause, .. } => remedy(cause),
                _ => OTHER_FILE,
            };
            vec![Finding::fail(
                SUBJECT,
                format!("{all} of {object} refused: {}", reasons(error)),
                remedy,
            )]
        }
        Answer::But(refused) if refused.is_empty() => vec![Finding::ok(
            SUBJECT,
            format!("{all} of {object} probed for a moment, and released"),
        )],
        Answer::But(refused) => refused
            .iter()
            .map(|(name, error)| {
                Finding::fail(
                    SUBJECT,
                    format!("{} of {object} refused: {}", Escaped(name), reasons(error)),
                    remedy(error),
                )
            })
            .collect(),
    }
}

const FAILED_ABOVE: &str = "fix what failed above";
const OTHER_FILE: &str = "the object's file was changed while it was mapped, or its file system supports no probes: \
                          run the program from another file";

/// What helps where the kernel refuses a probe.
fn remedy(error: &io::Error) -> &'static str {
    // The kernel wants all probes on an instruction to agree about the counter of their users. bcc's tools name one
    // that does not exist.
    if error.raw_os_error() == Some(libc::EINVAL) {
        "end other tracers of the same object, such as bcc's memleak: their probes can keep others off the same \
         instruction (dmesg then says `ref_ctr_offset mismatch`)"
    } else {
        OTHER_FILE
    }
}

fn loader_finding(probe: Option<&LoaderProbe>, answer: io::Result<()>) -> Finding {
    const SUBJECT: &str = "loader";
    const LATE: &str = "libraries loaded later are found within a second";
    let Some(LoaderProbe { attach_path, site }) = probe else {
        return Finding::ok(
            SUBJECT,
            format!("none (a static program), or one that announces no changes: {LATE}"),
        );
    };
    let path = fs::read_link(attach_path).unwrap_or_else(|_| attach_path.clone());
    let place = place(&path.to_string_lossy(), site);
    match answer {
        Ok(()) => Finding::ok(SUBJECT, place),
        Err(error) => Finding::lack(
            SUBJECT,
            format!("{place}; refused: {}; {LATE}", reasons(&error)),
        ),
    }
}

/// Where C++ exceptions begin. Its program waits for a part of memtrace that only a run has, so it is not attached.
fn unwinder_finding(unwinder: &Unwinder) -> Finding {
    Finding::ok("exceptions", place(&unwinder.object, &unwinder.site))
}

/// A site of a file, in words.
fn place(path: &str, site: &Site) -> String {
    let Site {
        entry_offset: _,
        file_offset,
        instruction,
        emulated,
    } = site;
    format!(
        "{}+{file_offset:#x}: {}, {}",
        Escaped(basename(path)),
        Escaped(instruction),
        if *emulated {
            "emulated"
        } else {
            "single-stepped"
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Status, *};

    /// Make sure that every refused probe is told, and that probes that were not tried are no failure.
    #[test]
    fn answers_of_the_kernel() {
        let statuses = |answer: &Answer| -> Vec<Status> {
            probes("libc.so.6", 9, answer)
                .iter()
                .map(|finding| finding.status)
                .collect()
        };
        let refused = |name: &str| (name.to_owned(), io::ErrorKind::InvalidInput.into());
        assert_eq!(statuses(&Answer::But(Vec::new())), [Status::Ok]);
        assert_eq!(
            statuses(&Answer::But(vec![refused("malloc"), refused("free")])),
            [Status::Fail, Status::Fail]
        );
        assert_eq!(
            statuses(&Answer::None(KernelError::TooManySites(1))),
            [Status::Fail]
        );
        assert_eq!(statuses(&Answer::Untried("no", "rights")), [Status::Warn]);
    }

    /// Make sure that a probe that another tracer keeps off is told from one that the file does not allow.
    #[test]
    fn remedies() {
        assert!(remedy(&io::Error::from_raw_os_error(libc::EINVAL)).contains("other tracers"));
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::EIO)), OTHER_FILE);
    }
}
