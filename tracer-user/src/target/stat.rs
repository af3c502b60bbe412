//! The parsers of `/proc/PID/stat` and `/proc/PID/status`.

use std::time::Duration;

/// Flag of a task that is part of the kernel (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process's name.
    pub comm: String,
    /// Its state as one letter: `R` running, `S` sleeping, `T` stopped, `Z` zombie, …
    pub state: char,
    /// The parent process.
    pub parent: u32,
    /// Whether it is part of the kernel.
    pub kernel_thread: bool,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that waited for the disk.
    pub major_faults: u64,
    /// Time on a CPU, of all threads, in user mode and in the kernel. Its resolution is a clock tick.
    pub cpu_time: Duration,
    /// When the process was started, in clock ticks since boot; with the id it names a process for ever.
    pub start_ticks: u64,
    /// Where the kernel put the stack of the current image; an exec changes it. 0 to those who may not trace it.
    pub start_stack: u64,
}

impl Stat {
    /// Whether the process has exited.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Parses the file's contents; `None` when they are not in the documented form.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        // The name stands in parentheses and may itself hold any byte, these included.
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let comm = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc_pid_stat(5) counts from 1; the state is the third field and the first one here.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            kernel_thread: number(9)? & KERNEL_THREAD != 0,
            minor_faults: number(10)?,
            major_faults: number(12)?,
            cpu_time: ticks(number(14)?.saturating_add(number(15)?)),
            start_ticks: number(22)?,
            start_stack: number(28)?,
        })
    }
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let nanoseconds = u128::from(count) * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// What `/proc/PID/status` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The process that the task belongs to.
    pub tgid: u32,
    /// The process's id in its own pid namespace.
    pub namespaced_pid: u32,
    /// Threads of the process.
    pub threads: u64,
    /// Resident set, in bytes; 0 for a process without memory.
    pub rss_bytes: u64,
    /// Its anonymous part, in bytes.
    pub rss_anon_bytes: u64,
}

impl Status {
    /// Parses the file's contents; `None` when a field that every task has is missing.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim())
        };
        let bytes_of = |name| {
            value(name)
                .and_then(|value| value.strip_suffix(" kB"))
                .and_then(|value| value.trim().parse::<u64>().ok())
                .map_or(0, |kilobytes| kilobytes.saturating_mul(1024))
        };
        let tgid = value("Tgid")?.parse().ok()?;
        Some(Self {
            tgid,
            // One id for each namespace, the process's own being the last.
            namespaced_pid: value("NStgid")
                .and_then(|ids| ids.split_ascii_whitespace().next_back())
                .and_then(|id| id.parse().ok())
                .unwrap_or(tgid),
            threads: value("Threads")?.parse().ok()?,
            rss_bytes: bytes_of("VmRSS"),
            rss_anon_bytes: bytes_of("RssAnon"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a) b (c) S 1 77 77 0 -1 4194560 1234 5 6 7 200 50 0 0 20 0 3 0 9876 8192 100 \
         18446744073709551615 94000000000000 94000000100000 140720000000000";

    /// Make sure that a name with spaces and parentheses does not shift the fields.
    #[test]
    fn stat() {
        let stat = Stat::parse(STAT.as_bytes()).unwrap();
        assert_eq!(stat.comm, "a) b (c");
        assert_eq!((stat.state, stat.parent), ('S', 1));
        assert!(!stat.kernel_thread && !stat.is_dead());
        assert_eq!((stat.minor_faults, stat.major_faults), (1234, 6));
        assert_eq!(stat.start_ticks, 9876);
        assert_eq!(stat.start_stack, 140_720_000_000_000);
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        assert_eq!(stat.cpu_time * ticks, Duration::from_secs(250));
    }

    /// Make sure that a kernel thread is known by its flag.
    #[test]
    fn kernel_thread() {
        let line = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0 \
                    18446744073709551615 0 0 0";
        assert!(Stat::parse(line.as_bytes()).unwrap().kernel_thread);
    }

    /// Make sure that a cut or foreign file is no value and no panic.
    #[test]
    fn malformed_stat() {
        let start = STAT.rfind(' ').unwrap();
        for length in 0..=start {
            assert_eq!(Stat::parse(&STAT.as_bytes()[..length]), None, "{length}");
        }
        assert_eq!(Stat::parse(b") ("), None);
    }

    /// Make sure that the id in the process's own namespace is the last one.
    #[test]
    fn status() {
        let text = b"Name:\tx\nTgid:\t500\nNStgid:\t500\t31\t1\nVmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\nThreads:\t4\n";
        assert_eq!(
            Status::parse(text).unwrap(),
            Status {
                tgid: 500,
                namespaced_pid: 1,
                threads: 4,
                rss_bytes: 2 << 20,
                rss_anon_bytes: 1 << 20,
            }
        );
        assert_eq!(Status::parse(b"Name:\tx\n"), None);
    }
}
