//! What an ELF file says: symbols, build id, instructions. Pure: bytes in, facts out; no `/proc`, no kernel.

pub mod bounded;
pub mod object_file;
pub mod plt;
pub mod site;
pub mod symbols;
pub mod unwind;
pub mod uprobe;

#[cfg(test)]
mod tests;
