//! Attaching: which program goes to which site.

use std::{
    ffi::CString,
    io,
    num::NonZeroU32,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use aya::programs::{
    UProbe,
    uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
};
use tracer_common::{call::CallFlags, limits::MAX_SITES};

use super::{
    Kernel, KernelError, Programs,
    features::Backend,
    sys::{MultiAttach, MultiLink, link_multi},
};
use crate::target::{Allocator, Function, Site};

/// Whose hits a counter of the `SITES` map counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteOwner {
    /// The allocator, as the caller of [`Kernel::attach`] numbers them.
    pub allocator: usize,
    /// Whether the function releases.
    pub is_free: bool,
    /// Whether the kernel emulates the probed instruction.
    pub emulated: bool,
    /// Whether the probe sees the function's return as well.
    pub watches_return: bool,
}

/// What a function's probes do; one link serves all functions of an object that have the same role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Alloc,
    Free,
    NestingFree,
}

impl Role {
    const ALL: [Self; 3] = [Self::NestingFree, Self::Free, Self::Alloc];

    fn of(function: &Function) -> Self {
        if !function.shape.is_free() {
            Self::Alloc
        } else if function.shape.flags.contains(CallFlags::NESTS) {
            Self::NestingFree
        } else {
            Self::Free
        }
    }

    /// The programs in the order to attach them, and whether each runs at the return. A return program goes
    /// first: an entry without it would leave calls pending.
    fn programs(self, backend: Backend, programs: Programs) -> &'static [(&'static str, bool)] {
        match (backend, programs, self) {
            (_, Programs::Empty, Self::Free) => &[("empty", false)],
            (Backend::Session, Programs::Empty, _) => &[("empty_session", false)],
            (_, Programs::Empty, _) => &[("empty_exit", true), ("empty", false)],
            (_, Programs::Record, Self::Free) => &[("free_enter", false)],
            (Backend::Session, Programs::Record, Self::Alloc) => &[("alloc_session", false)],
            (Backend::Session, Programs::Record, Self::NestingFree) => &[("free_session", false)],
            (_, Programs::Record, Self::Alloc) => &[("alloc_exit", true), ("alloc_enter", false)],
            (_, Programs::Record, Self::NestingFree) => {
                &[("alloc_exit", true), ("free_enter", false)]
            }
        }
    }
}

/// A file to probe and where.
struct Points<'a> {
    path: &'a Path,
    offsets: Vec<u64>,
    cookies: Vec<u64>,
}

impl Kernel {
    /// Probes the functions of an allocator, releases first, so that no block is seen to be born and not to die.
    ///
    /// Returns the functions that the kernel refused to probe, each with its error.
    ///
    /// # Errors
    ///
    /// When none could be probed, or there is no room for their counters.
    pub fn attach(
        &mut self,
        allocator: &Allocator,
        number: usize,
    ) -> Result<Vec<(String, io::Error)>, KernelError> {
        if allocator.functions.len() > self.sites_left() {
            return Err(KernelError::TooManySites(MAX_SITES));
        }
        let mut refused = Vec::new();
        let mut attached = 0;
        for role in Role::ALL {
            let functions: Vec<&Function> = allocator
                .functions
                .iter()
                .filter(|function| Role::of(function) == role)
                .collect();
            if functions.is_empty() {
                continue;
            }
            let points = self.points(&allocator.attach_path, number, role, &functions)?;
            if self.link(role, &points).is_ok() {
                attached += functions.len();
                continue;
            }
            // One refused site refuses the whole link: attach one by one to keep the others.
            for (index, function) in functions.iter().enumerate() {
                let one = Points {
                    path: points.path,
                    offsets: vec![points.offsets[index]],
                    cookies: vec![points.cookies[index]],
                };
                match self.link(role, &one) {
                    Ok(()) => attached += 1,
                    Err(error) => refused.push((function.name.clone(), error)),
                }
            }
        }
        match refused.pop() {
            Some((_, cause)) if attached == 0 => Err(KernelError::Attach {
                object: allocator.object.clone(),
                cause,
            }),
            Some(last) => {
                refused.push(last);
                Ok(refused)
            }
            None => Ok(refused),
        }
    }

    /// Probes the function by which the dynamic loader announces changes.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn attach_loader(&mut self, path: &Path, site: &Site) -> io::Result<()> {
        let points = Points {
            path,
            offsets: vec![site.file_offset],
            cookies: vec![0],
        };
        self.link_program("objects_changed", false, &points)
    }

    /// Probes a function by which an unwinder begins. Until that worked, functions that may throw must not be
    /// probed at their return.
    ///
    /// # Errors
    ///
    /// What the kernel said, of the program or of the probe.
    pub fn attach_unwinder(&mut self, path: &Path, site: &Site) -> Result<(), KernelError> {
        const PROGRAM: &str = "unwind_begin";
        if let Some(refused) = self.unwind_refused.take() {
            return Err(refused);
        }
        let points = Points {
            path,
            offsets: vec![site.file_offset],
            cookies: vec![0],
        };
        self.link_program(PROGRAM, false, &points)
            .map_err(|cause| KernelError::System {
                action: "attach",
                program: PROGRAM,
                cause,
            })
    }

    /// Numbers the functions' sites, for their counters.
    fn points<'a>(
        &mut self,
        path: &'a Path,
        allocator: usize,
        role: Role,
        functions: &[&Function],
    ) -> Result<Points<'a>, KernelError> {
        let mut points = Points {
            path,
            offsets: Vec::with_capacity(functions.len()),
            cookies: Vec::with_capacity(functions.len()),
        };
        for function in functions {
            let number = u32::try_from(self.sites.len())
                .map_err(|_| KernelError::TooManySites(MAX_SITES))?;
            self.sites.push(SiteOwner {
                allocator,
                is_free: function.shape.is_free(),
                emulated: function.site.emulated,
                watches_return: role != Role::Free,
            });
            points.offsets.push(if self.options.at_entry {
                function.site.entry_offset
            } else {
                function.site.file_offset
            });
            points.cookies.push(function.shape.cookie(number));
        }
        Ok(points)
    }

    fn link(&mut self, role: Role, points: &Points<'_>) -> io::Result<()> {
        let links_before = self.links.len();
        for &(program, at_return) in role.programs(self.options.backend, self.options.programs) {
            if let Err(error) = self.link_program(program, at_return, points) {
                self.links.truncate(links_before);
                return Err(error);
            }
        }
        Ok(())
    }

    fn link_program(
        &mut self,
        program: &'static str,
        at_return: bool,
        points: &Points<'_>,
    ) -> io::Result<()> {
        let Points {
            path,
            offsets,
            cookies,
        } = points;
        let Some(fd) = self.multi.get(program) else {
            return self.link_perf_events(program, points);
        };
        let attach = if program.ends_with("_session") {
            MultiAttach::Session
        } else {
            MultiAttach::Multi
        };
        let path = CString::new(path.as_os_str().as_bytes())?;
        let link = link_multi(&MultiLink {
            program: fd.as_fd(),
            attach,
            at_return,
            path: &path,
            offsets,
            cookies,
            pid: self.options.tgid,
        })?;
        self.links.push(link);
        Ok(())
    }

    fn link_perf_events(&mut self, program: &'static str, points: &Points<'_>) -> io::Result<()> {
        let pid = NonZeroU32::new(self.options.tgid).ok_or(io::ErrorKind::InvalidInput)?;
        let probe: &mut UProbe = self.program(program).map_err(io::Error::other)?;
        for (offset, cookie) in points.offsets.iter().zip(&points.cookies) {
            let point = UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(*offset),
                cookie: Some(*cookie),
            };
            probe
                .attach(point, points.path, UProbeScope::OneProcess(pid))
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}
