//! The kernel side of a run: loads the BPF programs, attaches them, reads their maps. The only folder that names aya.

mod attach;
mod books;
mod btf;
pub mod calibrate;
mod error;
pub mod features;
mod load;
mod log;
mod object;
mod sys;

pub use attach::SiteOwner;
pub use books::{Events, Returns};
pub use error::KernelError;
pub use load::{Kernel, LoadOptions, Programs};
pub use log::LogForwarder;
pub use sys::RunStats;
