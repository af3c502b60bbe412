//! Processes that can be traced, and those that cannot.

use std::{io::Read, process::Command};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::fixtures::{Folder, PLAIN, Target};
use crate::target::{Process, TargetError};

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

/// Make sure that paths are those that the process sees, also in a changed root.
#[test]
fn changed_root() {
    let folder = Folder::new();
    folder.compile("cc", PLAIN, &["-static"]);
    let target = Target::start(Command::new("chroot").arg(&folder.0).arg("/program"));
    assert_eq!(target.process().exe(), "/program");
    assert_eq!(target.allocators()[0].object, "/program");
}
