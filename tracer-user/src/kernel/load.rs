//! Loading: aya creates the maps and loads what it can; programs for many points are loaded here.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{RawTracePoint, UProbe},
};
use aya_obj::ProgramSection;
use tracer_common::limits::MAX_SITES;

use super::{
    KernelError, LogForwarder, RunStats,
    attach::SiteOwner,
    btf::TrampolineOffsets,
    features::Backend,
    object,
    sys::{self, FunctionTypes, MultiAttach, MultiProgram},
};

/// Which programs run at the probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Programs {
    /// Those that keep the books.
    #[default]
    Record,
    /// Programs that do nothing: what the kernel itself takes, for benchmarks.
    Empty,
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// The process to trace, in the initial pid namespace.
    pub tgid: u32,
    /// Live blocks to track at most.
    pub max_live: u32,
    /// Allocations of fewer bytes are passed by.
    pub min_size_bytes: u64,
    /// Whether to unwind by tables, or to follow frame pointers only.
    pub unwind_by_tables: bool,
    /// Whether the BPF side writes a log.
    pub log: bool,
    /// What runs at the probes.
    pub programs: Programs,
    /// Whether to probe functions at their first instruction even where a cheaper one was found.
    pub at_entry: bool,
    /// How to attach.
    pub backend: Backend,
}

/// The programs and maps of one run. Dropping it detaches everything.
pub struct Kernel {
    pub(super) links: Vec<OwnedFd>,
    pub(super) multi: HashMap<&'static str, OwnedFd>,
    pub(super) ebpf: Ebpf,
    pub(super) options: LoadOptions,
    pub(super) sites: Vec<SiteOwner>,
    /// Why exceptions cannot be helped, if they cannot.
    pub(super) unwind_refused: Option<KernelError>,
    /// Unwind tables uploaded.
    pub(super) tables: usize,
    /// How often the unwinder was told the mappings.
    pub(super) mappings_told: u32,
}

impl Kernel {
    /// Creates the maps and loads the programs. Nothing is attached but the tracepoints for exec and exit.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map or a program, with the end of the verifier's log.
    pub fn load(options: LoadOptions) -> Result<Self, KernelError> {
        object::check_abi()?;
        let mut loader = EbpfLoader::new();
        let level: u8 = if options.log { u8::MAX } else { 0 };
        let by_tables = u32::from(options.unwind_by_tables);
        let offsets = TrampolineOffsets::of_kernel();
        let TrampolineOffsets {
            task_mm,
            mm_xol_area,
            xol_area_vaddr,
        } = offsets.unwrap_or(TrampolineOffsets {
            task_mm: 0,
            mm_xol_area: 0,
            xol_area_vaddr: 0,
        });
        loader
            .override_global("TARGET_TGID", &options.tgid, true)
            .override_global("TASK_MM_OFFSET", &task_mm, true)
            .override_global("MM_XOL_AREA_OFFSET", &mm_xol_area, true)
            .override_global("XOL_AREA_VADDR_OFFSET", &xol_area_vaddr, true)
            .override_global("UNWIND_BY_TABLES", &by_tables, true)
            .override_global("MIN_SIZE_BYTES", &options.min_size_bytes, true)
            .override_global("AYA_LOG_LEVEL", &level, true)
            .map_max_entries("LIVE", options.max_live);
        let ebpf = loader.load(object::BYTES)?;
        let mut kernel = Self {
            links: Vec::new(),
            multi: HashMap::new(),
            ebpf,
            options,
            sites: Vec::new(),
            unwind_refused: None,
            tables: 0,
            mappings_told: 0,
        };
        kernel.prepare_totals()?;
        kernel.load_programs()?;
        kernel.unwind_refused = kernel.load_unwind_begin().err();
        Ok(kernel)
    }

    /// Starts to forward the BPF side's log.
    ///
    /// # Errors
    ///
    /// When it was forwarded before.
    pub fn forward_log(
        &mut self,
        print: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<LogForwarder, KernelError> {
        LogForwarder::new(&mut self.ebpf, print).map_err(|_| KernelError::Missing("AYA_LOGS"))
    }

    fn load_programs(&mut self) -> Result<(), KernelError> {
        for (program, tracepoint) in [
            ("task_exec", "sched_process_exec"),
            ("task_exit", "sched_process_exit"),
        ] {
            let tracer: &mut RawTracePoint = self.program(program)?;
            let failed = |action| {
                move |cause| KernelError::Program {
                    action,
                    program,
                    cause,
                }
            };
            tracer.load().map_err(failed("load"))?;
            tracer.attach(tracepoint).map_err(failed("attach"))?;
        }
        match self.options.backend {
            Backend::Session => self.load_multi(&[
                ("alloc_session", MultiAttach::Session),
                ("free_session", MultiAttach::Session),
                ("empty_session", MultiAttach::Session),
                ("free_enter", MultiAttach::Multi),
                ("empty", MultiAttach::Multi),
                ("objects_changed", MultiAttach::Multi),
            ]),
            Backend::Multi => self.load_multi(&[
                ("alloc_enter", MultiAttach::Multi),
                ("alloc_exit", MultiAttach::Multi),
                ("free_enter", MultiAttach::Multi),
                ("empty", MultiAttach::Multi),
                ("empty_exit", MultiAttach::Multi),
                ("objects_changed", MultiAttach::Multi),
            ]),
            Backend::PerfEvent => [
                "alloc_enter",
                "alloc_exit",
                "free_enter",
                "empty",
                "empty_exit",
                "objects_changed",
            ]
            .into_iter()
            .try_for_each(|program| self.load_perf_event(program)),
        }
    }

    /// Loads the program for exceptions, which a kernel before Linux 5.17 refuses.
    fn load_unwind_begin(&mut self) -> Result<(), KernelError> {
        const PROGRAM: &str = "unwind_begin";
        match self.options.backend {
            Backend::Session | Backend::Multi => self.load_multi(&[(PROGRAM, MultiAttach::Multi)]),
            Backend::PerfEvent => self.load_perf_event(PROGRAM),
        }
    }

    fn load_perf_event(&mut self, program: &'static str) -> Result<(), KernelError> {
        let probe: &mut UProbe = self.program(program)?;
        probe.load().map_err(|cause| KernelError::Program {
            action: "load",
            program,
            cause,
        })
    }

    /// Why functions that may throw cannot be probed, if they cannot.
    #[must_use]
    pub const fn exceptions_refused(&self) -> Option<&KernelError> {
        self.unwind_refused.as_ref()
    }

    /// A program of the object, as what it must be.
    pub(super) fn program<'a, T>(&'a mut self, name: &'static str) -> Result<&'a mut T, KernelError>
    where
        &'a mut T: TryFrom<&'a mut aya::programs::Program>,
    {
        self.ebpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(KernelError::Missing(name))
    }

    /// Loads programs for links to many points. aya 0.14 loads every uprobe program as one for perf events, so the
    /// object is parsed once more, pointed to the maps that exist, and loaded from here.
    fn load_multi(&mut self, programs: &[(&'static str, MultiAttach)]) -> Result<(), KernelError> {
        let relocate = |error: &dyn std::fmt::Display| KernelError::Relocate(error.to_string());
        let mut object = aya_obj::Object::parse(object::BYTES).map_err(|error| relocate(&error))?;
        let text: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let object_maps = std::mem::take(&mut object.maps);
        let maps: Vec<_> = object_maps
            .iter()
            .filter_map(|(name, map)| {
                let fd = map_fd(self.ebpf.map(name)?)?;
                Some((name.as_str(), fd.as_raw_fd(), map))
            })
            .collect();
        object
            .relocate_maps(maps.into_iter(), &text)
            .map_err(|error| relocate(&error))?;
        object
            .relocate_calls(&text)
            .map_err(|error| relocate(&error))?;
        let btf = self.object_btf()?;
        for &(name, attach) in programs {
            let program = object
                .programs
                .get(name)
                .ok_or(KernelError::Missing(name))?;
            let function = object
                .functions
                .get(&program.function_key())
                .ok_or(KernelError::Missing(name))?;
            let records = function.func_info.func_info_bytes();
            let fd = sys::load_multi_program(&MultiProgram {
                name,
                instructions: &function.instructions,
                license: &program.license,
                attach,
                sleepable: matches!(program.section, ProgramSection::UProbe { sleepable: true }),
                types: btf.as_ref().map(|btf| FunctionTypes {
                    btf: btf.as_fd(),
                    records: &records,
                    record_bytes: u32::try_from(function.func_info_rec_size).unwrap_or(0),
                }),
            })
            .map_err(|cause| KernelError::System {
                action: "load",
                program: name,
                cause,
            })?;
            self.multi.insert(name, fd);
        }
        Ok(())
    }

    /// The BTF that aya loaded for the object; `None` where the kernel takes none.
    fn object_btf(&mut self) -> Result<Option<OwnedFd>, KernelError> {
        let program: &mut RawTracePoint = self.program("task_exec")?;
        let Ok(fd) = program.fd() else {
            return Ok(None);
        };
        Ok(sys::btf_of(fd).ok())
    }

    /// What the kernel measured of all programs that run at probes.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn run_stats(&self) -> Result<RunStats, KernelError> {
        let mut sum = RunStats::default();
        for (program, fd) in &self.multi {
            let stats = sys::run_stats(fd).map_err(|cause| KernelError::System {
                action: "read the statistics of",
                program,
                cause,
            })?;
            sum.run_ns += stats.run_ns;
            sum.runs += stats.runs;
        }
        Ok(sum)
    }

    /// Makes the kernel measure the programs' time, until what is returned is dropped.
    #[must_use]
    pub fn enable_statistics() -> Option<OwnedFd> {
        aya::sys::enable_stats(aya::sys::Stats::RunTime).ok()
    }

    /// Room for probe sites that is left.
    pub(super) fn sites_left(&self) -> usize {
        (MAX_SITES as usize).saturating_sub(self.sites.len())
    }
}

impl Drop for Kernel {
    /// Removes the probes in the reverse order of their attachment: first those of allocating functions.
    fn drop(&mut self) {
        while let Some(link) = self.links.pop() {
            drop(link);
        }
    }
}

/// The descriptor of a map of any type that the object uses.
pub(super) fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::ArrayOfMaps(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}
