//! Files that others chose or could have changed: opened without leaving a root, without opening anything but regular
//! files, and used only once they are known to be what they are taken for.

pub mod cache;
pub mod debug;
#[cfg(feature = "debuginfod")]
pub mod debuginfod;
pub mod root;
