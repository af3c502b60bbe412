//! The BPF side's log, forwarded to whoever prints.

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

/// Receives log records and hands each one's text to a function.
struct Sink(Box<dyn Fn(&str) + Send + Sync>);

impl log::Log for Sink {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        (self.0)(&format!("bpf {}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// The open end of the BPF side's log.
pub struct LogForwarder(EbpfLogger<Sink>);

impl LogForwarder {
    /// Takes the log's ring buffer from the loaded object.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        print: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, Sink(Box::new(print))).map(Self)
    }

    /// Forwards what has arrived.
    pub fn forward(&mut self) {
        self.0.flush();
    }
}

impl AsFd for LogForwarder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
