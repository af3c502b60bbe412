//! The target with its probes: found, attached, and kept up to date while it loads more code.

use std::{
    collections::HashSet,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Observer, Options, code::CodeTables, cost::CostMeter, guard::Guard, quiet::Baseline};
use crate::{
    kernel::{
        Kernel, LoadOptions,
        calibrate::{self, TrapCost},
        features::Backend,
    },
    report::{AllocatorInfo, Calls},
    symbolize::{CodeMapping, Modules},
    target::{Allocator, Discovery, FileIdentity, Process, TargetError, Unwinder, loader, maps},
};

/// A process and everything that traces it.
pub(super) struct Tracer {
    pub(super) process: Process,
    pub(super) kernel: Kernel,
    pub(super) modules: Modules,
    pub(super) meter: CostMeter,
    discovery: Discovery,
    code: CodeTables,
    unwind_by_tables: bool,
    allocators: Vec<Allocator>,
    allocator_files: HashSet<FileIdentity>,
    loader_probed: bool,
    /// Whether exceptions pass the return probes unharmed.
    exceptions_pass: bool,
    pub(super) guard: Option<Guard>,
    pub(super) warnings: Vec<String>,
    /// When the recording began.
    pub(super) began: Instant,
    /// What the target had used then.
    pub(super) baseline: Baseline,
}

impl Tracer {
    /// Loads the programs for a process. Nothing is probed yet.
    pub(super) fn new(process: Process, options: &Options) -> Result<Self> {
        let own_code = maps::read(std::process::id()).context("cannot read the own mappings")?;
        let own_offset = |address: u64| {
            own_code
                .iter()
                .find_map(|mapping| mapping.file_offset(address))
        };
        let trial = own_offset(calibrate::trial_address())
            .context("cannot find memtrace's own code in its mappings")?;
        let backend = options.backend.unwrap_or_else(|| Backend::probe(trial));
        let traps: io::Result<TrapCost> = calibrate::measure(backend, own_offset);
        let kernel = Kernel::load(LoadOptions {
            tgid: process.pid(),
            max_live: options.max_live,
            min_size_bytes: options.min_size_bytes,
            unwind_by_tables: options.unwind_by_tables,
            log: options.log_bpf,
            programs: options.programs,
            at_entry: options.at_entry,
            backend,
        })?;
        let mut warnings = Vec::new();
        if let Err(error) = &traps {
            warnings.push(format!("the cost of a trap could not be measured: {error}"));
        }
        let mut modules = Modules::new(&process.root());
        modules.search_debug_files_in(options.debug_folders.clone());
        let discovery = Discovery::new(options.functions.clone())
            .with_debug_folders(options.debug_folders.clone());
        Ok(Self {
            modules,
            meter: CostMeter::new(traps.ok()),
            code: CodeTables::new(options),
            unwind_by_tables: options.unwind_by_tables,
            discovery,
            allocators: Vec::new(),
            allocator_files: HashSet::new(),
            loader_probed: false,
            exceptions_pass: true,
            guard: None,
            warnings,
            began: Instant::now(),
            baseline: Baseline::of(&process),
            process,
            kernel,
        })
    }

    /// Looks for allocators that are new, probes them, and learns what code is mapped where.
    ///
    /// # Errors
    ///
    /// When there is none at all, the process is gone, or the kernel refuses every probe of one.
    pub(super) fn look(&mut self, observer: &dyn Observer) -> Result<()> {
        let late = !self.allocators.is_empty();
        let found = self.discovery.scan(&self.process);
        // The tables of allocators are among the first.
        let new = found.iter().flatten().map(|allocator| allocator.identity);
        self.allocator_files.extend(new);
        self.learn_code(observer)?;
        let allocators = found?;
        self.probe_unwinders(observer);
        for mut allocator in allocators {
            let number = self.allocators.len();
            if !self.exceptions_pass {
                self.leave_out_throwing(&mut allocator, observer);
            }
            for (function, error) in self.kernel.attach(&allocator, number)? {
                // The kernel allows one reference counter offset per instruction, and bcc leaves its own undefined.
                let hint = match error.raw_os_error() {
                    Some(libc::EINVAL) => {
                        " (another tracer, such as one of bcc's, holds a probe there: end it and try again)"
                    }
                    _ => "",
                };
                let object = &allocator.object;
                self.warn(
                    observer,
                    format!("{function} of {object} is not probed: {error}{hint}"),
                );
            }
            for function in &allocator.unprobed {
                self.warn(
                    observer,
                    format!("{}: not probed: {function}", allocator.object),
                );
            }
            if late {
                observer.notice(&format!(
                    "attached to {} ({})",
                    allocator.object, allocator.reason
                ));
            }
            self.allocators.push(allocator);
        }
        if !self.loader_probed
            && let Some(probe) = loader::loader_probe(&self.process)?
        {
            self.loader_probed = true;
            if let Err(error) = self.kernel.attach_loader(&probe.attach_path, &probe.site) {
                self.warn(
                    observer,
                    format!("libraries loaded later are found a second late: the loader cannot be probed: {error}"),
                );
            }
        }
        Ok(())
    }

    /// Makes C++ exceptions pass the return probes.
    fn probe_unwinders(&mut self, observer: &dyn Observer) {
        for unwinder in self.discovery.take_unwinders() {
            if let Err(error) = self.probe_unwinder(&unwinder) {
                self.exceptions_pass = false;
                self.warn(
                    observer,
                    format!(
                        "C++ exceptions of {} are not watched: {error}",
                        unwinder.object
                    ),
                );
            }
        }
    }

    fn probe_unwinder(&mut self, unwinder: &Unwinder) -> Result<()> {
        if self.guard.is_none() {
            let returns = self.kernel.take_returns()?;
            let guard = Guard::start(&self.process, returns)
                .context("cannot open the process's memory for writing")?;
            self.guard = Some(guard);
        }
        self.kernel
            .attach_unwinder(&unwinder.attach_path, &unwinder.site)?;
        Ok(())
    }

    /// Takes functions that may throw out of an allocator: an exception that meets a return probe ends the process.
    fn leave_out_throwing(&mut self, allocator: &mut Allocator, observer: &dyn Observer) {
        let before = allocator.functions.len();
        allocator.functions.retain(|function| !function.may_throw());
        let left_out = before - allocator.functions.len();
        if left_out > 0 {
            self.warn(
                observer,
                format!(
                    "{left_out} forms of operator new of {} are not traced, so that exceptions pass them",
                    allocator.object
                ),
            );
        }
    }

    /// Like [`Tracer::look`], for a process whose allocator may not be mapped yet.
    pub(super) fn look_early(&mut self, observer: &dyn Observer) -> Result<()> {
        match self.look(observer) {
            Err(error) if is_no_allocator(&error) => Ok(()),
            result => result,
        }
    }

    /// Looks while the recording goes on, when a failure is no reason to end it.
    pub(super) fn look_again(&mut self, observer: &dyn Observer) {
        match self.look(observer) {
            Err(error) if self.process.is_alive() && !is_no_allocator(&error) => {
                self.warn(observer, format!("{error:#}"));
            }
            _ => {}
        }
    }

    /// Whether an allocator was found.
    pub(super) fn has_allocator(&self) -> bool {
        !self.allocators.is_empty()
    }

    /// The allocators that are probed.
    pub(super) fn allocators(&self) -> &[Allocator] {
        &self.allocators
    }

    /// Reads what code is mapped. An exec in between would give the old stacks the names of the new image, so what
    /// was read counts only if the image is still the same.
    pub(super) fn learn_code(&mut self, observer: &dyn Observer) -> Result<()> {
        let image = self.process.stat()?.start_stack;
        let mappings = self.process.mappings()?;
        if self.process.stat()?.start_stack != image || self.kernel.state()?.execs != 0 {
            return Ok(());
        }
        let pid = self.process.pid();
        for mapping in mappings.iter().filter(|mapping| mapping.executable) {
            self.modules.add(&CodeMapping {
                start: mapping.start,
                end: mapping.end,
                file_offset: mapping.offset,
                inode: mapping.inode,
                path: &mapping.path.to_string_lossy(),
                open_path: &mapping.map_files_path(pid),
            });
        }
        if self.unwind_by_tables {
            let (kernel, allocators) = (&mut self.kernel, &self.allocator_files);
            self.code
                .update(kernel, &self.process, &mappings, allocators)?;
            for trouble in std::mem::take(&mut self.code.troubles) {
                self.warn(observer, trouble);
            }
        }
        Ok(())
    }

    /// Starts to record.
    pub(super) fn start(&mut self) -> Result<()> {
        self.kernel.set_recording(true)?;
        self.began = Instant::now();
        self.baseline = Baseline::of(&self.process);
        Ok(())
    }

    /// CPU time of the target; what was known last once it is gone.
    pub(super) fn cpu_time(&self) -> Duration {
        self.process
            .stat()
            .map_or(self.baseline.cpu_time, |stat| stat.cpu_time)
    }

    /// The probed allocators with the calls that were seen, for the report.
    pub(super) fn allocator_infos(&self) -> Result<Vec<AllocatorInfo>> {
        let mut calls = vec![Calls::default(); self.allocators.len()];
        for (site, hits) in self.kernel.site_calls()? {
            if let Some(calls) = calls.get_mut(site.allocator) {
                if site.is_free {
                    calls.frees += hits.enters;
                } else {
                    calls.allocs += hits.enters;
                }
            }
        }
        Ok(self
            .allocators
            .iter()
            .zip(calls)
            .map(|(allocator, calls)| AllocatorInfo {
                object: allocator.object.clone(),
                kind: allocator.kind.name(),
                reason: allocator.reason.clone(),
                functions: allocator.functions.len(),
                single_stepped: allocator
                    .functions
                    .iter()
                    .filter(|function| !function.site.emulated)
                    .count(),
                calls,
            })
            .collect())
    }

    /// Keeps a sentence for the report and tells it at once; the same one only once.
    pub(super) fn warn(&mut self, observer: &dyn Observer, text: String) {
        if !self.warnings.contains(&text) {
            observer.notice(&text);
            self.warnings.push(text);
        }
    }
}

/// Whether an error says that the process has no allocator.
pub(super) fn is_no_allocator(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TargetError::NoAllocator { .. }))
}
