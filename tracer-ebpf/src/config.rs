//! Constants that the collector writes into `.rodata` before the programs are loaded.

use aya_ebpf::Global;

/// The wire types that this object was built with; the collector compares before it loads.
#[unsafe(no_mangle)]
pub(crate) static ABI_VERSION: Global<u32> = Global::new(tracer_common::ABI_VERSION);

/// The traced process, in the initial pid namespace.
#[unsafe(no_mangle)]
pub(crate) static TARGET_TGID: Global<u32> = Global::new(0);

/// Offset of `mm` in the kernel's `struct task_struct`; 0 when the kernel's BTF does not tell.
#[unsafe(no_mangle)]
pub(crate) static TASK_MM_OFFSET: Global<u32> = Global::new(0);

/// Offset of `uprobes_state.xol_area` in `struct mm_struct`.
#[unsafe(no_mangle)]
pub(crate) static MM_XOL_AREA_OFFSET: Global<u32> = Global::new(0);

/// Offset of `vaddr` in `struct xol_area`.
#[unsafe(no_mangle)]
pub(crate) static XOL_AREA_VADDR_OFFSET: Global<u32> = Global::new(0);

/// 1 to unwind by tables, 0 to follow frame pointers only.
#[unsafe(no_mangle)]
pub(crate) static UNWIND_BY_TABLES: Global<u32> = Global::new(0);

/// Allocations of fewer bytes are passed by.
#[unsafe(no_mangle)]
pub(crate) static MIN_SIZE_BYTES: Global<u64> = Global::new(0);
