//! One tracing run, from the attach to the report. The only folder that names tokio.

mod budget;
mod care;
mod clock;
mod code;
mod cost;
mod debug_files;
mod detach;
mod finish;
mod guard;
mod launch;
mod observer;
mod options;
mod quiet;
mod readable;
mod run;
mod snapshot;
mod tables;
mod tracer;
mod wait;

pub use detach::Detaching;
pub use launch::Launched;
pub use observer::{Observer, Progress};
pub use options::{Options, Target};
pub use run::{Attached, Finished, attach};
pub use wait::forward_signals_until_exit;
