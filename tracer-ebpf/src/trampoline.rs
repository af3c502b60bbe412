//! The page that return probes put in place of return addresses.
//!
//! While a return probe is pending, the stack holds the address of the kernel's trampoline where the return
//! address was. That is how a pending call is told from one that was left by a jump.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::config::{MM_XOL_AREA_OFFSET, TASK_MM_OFFSET, XOL_AREA_VADDR_OFFSET};

/// Address of the trampoline in the current process, if it has one and the kernel's BTF told where to look.
#[inline(always)]
pub(crate) fn address() -> Option<u64> {
    let task_mm = TASK_MM_OFFSET.load();
    if task_mm == 0 {
        return None;
    }
    // SAFETY: the helper takes no arguments.
    let task = unsafe { bpf_get_current_task() };
    let mm = read(task + u64::from(task_mm))?;
    let area = read(mm + u64::from(MM_XOL_AREA_OFFSET.load()))?;
    read(area + u64::from(XOL_AREA_VADDR_OFFSET.load()))
}

#[inline(always)]
fn read(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    match unsafe { bpf_probe_read_kernel(address as *const u64) } {
        Ok(value) if value != 0 => Some(value),
        _ => None,
    }
}
