//! A call of a probed function, as the registers show it.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::{bpf_get_attach_cookie, bpf_get_func_ip, bpf_probe_read_user},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::call::{Arg, CallShape};

/// A probed function at its entry or its return.
pub(crate) struct Call {
    regs: *const pt_regs,
}

impl Call {
    /// The call that an entry probe, or a session program, runs for.
    #[inline(always)]
    pub(crate) fn at_entry(ctx: &ProbeContext) -> Self {
        Self {
            regs: ctx.as_ptr().cast_const().cast(),
        }
    }

    /// The call that a return probe runs for.
    #[inline(always)]
    pub(crate) fn at_return(ctx: &RetProbeContext) -> Self {
        Self {
            regs: ctx.as_ptr().cast_const().cast(),
        }
    }

    #[inline(always)]
    fn regs(&self) -> &pt_regs {
        // SAFETY: the kernel runs the program with a context that is a `pt_regs`.
        unsafe { &*self.regs }
    }

    /// Whether a session program runs for the return: the instruction pointer is then the return address, and
    /// the kernel still knows the probed instruction.
    #[inline(always)]
    pub(crate) fn is_return(&self) -> bool {
        // SAFETY: the program's own context.
        let probed = unsafe { bpf_get_func_ip(self.regs.cast_mut().cast()) };
        probed != self.regs().rip
    }

    /// The cookie that the probe was attached with.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: the program's own context.
        unsafe { bpf_get_attach_cookie(self.regs.cast_mut().cast()) }
    }

    /// The shape and the site in a cookie.
    #[inline(always)]
    pub(crate) fn shape(cookie: u64) -> (CallShape, u32) {
        CallShape::from_cookie(cookie)
    }

    /// The stack pointer. At the entry it points to the return address, at the return 8 bytes above that.
    #[inline(always)]
    pub(crate) fn sp(&self) -> u64 {
        self.regs().rsp
    }

    /// At the entry: where the call returns to, which is on top of the stack.
    #[inline(always)]
    pub(crate) fn return_address(&self) -> Option<u64> {
        // SAFETY: the helper checks the address and fails on one that cannot be read.
        unsafe { bpf_probe_read_user(self.sp() as *const u64) }.ok()
    }

    /// The frame pointer of the caller.
    #[inline(always)]
    pub(crate) fn fp(&self) -> u64 {
        self.regs().rbp
    }

    /// The function's result.
    #[inline(always)]
    pub(crate) fn result(&self) -> u64 {
        self.regs().rax
    }

    /// An argument, by the System V x86-64 calling convention; 0 where the function has none.
    ///
    /// All registers are read before one is chosen: a load from a chosen address within the context is what the
    /// compiler would make of it otherwise, and the verifier refuses that.
    #[inline(always)]
    pub(crate) fn arg(&self, arg: Arg) -> u64 {
        // SAFETY: the kernel runs the program with a context that is a `pt_regs`.
        let read = |register: *const u64| unsafe { core::ptr::read_volatile(register) };
        let regs = self.regs();
        let rdi = read(&raw const regs.rdi);
        let rsi = read(&raw const regs.rsi);
        let rdx = read(&raw const regs.rdx);
        let rcx = read(&raw const regs.rcx);
        let r8 = read(&raw const regs.r8);
        let r9 = read(&raw const regs.r9);
        match arg.index() {
            Some(0) => rdi,
            Some(1) => rsi,
            Some(2) => rdx,
            Some(3) => rcx,
            Some(4) => r8,
            Some(5) => r9,
            _ => 0,
        }
    }
}
