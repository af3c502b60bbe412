//! Gives the unwinder its tables, and tells it what code is mapped where.

use std::os::fd::AsFd as _;

use tracer_common::{
    limits::{MAX_CODE_MAPPINGS, MAX_TABLES},
    unwind::search::Chunk,
    wire::{CodeMapping, CodeMappings},
};

use super::{Kernel, KernelError, books::failed, sys};

impl Kernel {
    /// Uploads objects' tables and returns their numbers; `None` for those that come when there is no number left.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory for them.
    pub fn add_tables(&mut self, tables: &[&[Chunk]]) -> Result<Vec<Option<u32>>, KernelError> {
        let write = failed("write", "TABLES");
        let first = u32::try_from(self.tables).map_err(failed("write", "TABLES"))?;
        let added = tables.len().min(MAX_TABLES.saturating_sub(self.tables));
        if added == 0 {
            return Ok(vec![None; tables.len()]);
        }
        let mut inner = Vec::with_capacity(added);
        for chunks in tables.iter().take(added) {
            let table =
                sys::create_inner_array(size_of::<Chunk>(), chunks.len()).map_err(&write)?;
            for (index, chunk) in (0_u32..).zip(*chunks) {
                sys::update_array(table.as_fd(), index, chunk).map_err(&write)?;
            }
            inner.push(table);
        }
        sys::update_array_of_maps(self.fd("TABLES")?, first, &inner).map_err(&write)?;
        self.tables += added;
        let numbers = (first..).take(added).map(Some);
        let missing = std::iter::repeat_n(None, tables.len() - added);
        Ok(numbers.chain(missing).collect())
    }

    /// Tells the unwinder what code is mapped, by rising address. Mappings beyond [`MAX_CODE_MAPPINGS`] are left
    /// out; their number is returned.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn set_mappings(&mut self, mappings: &[CodeMapping]) -> Result<usize, KernelError> {
        let told = mappings.get(..MAX_CODE_MAPPINGS).unwrap_or(mappings);
        // `CodeMappings`, word by word.
        let mut words = Vec::with_capacity(size_of::<CodeMappings>() / 8);
        words.push(told.len() as u64);
        for CodeMapping {
            start,
            end,
            origin,
            table,
            kind,
        } in told
        {
            words.extend([
                *start,
                *end,
                *origin,
                u64::from(*kind) << 32 | u64::from(*table),
            ]);
        }
        words.resize(size_of::<CodeMappings>() / 8, 0);
        let next = self.mappings_told.wrapping_add(1);
        sys::update_array_words(self.fd("MAPPINGS")?, next & 1, &words)
            .map_err(failed("write", "MAPPINGS"))?;
        sys::update_array(self.fd("MAPPINGS_TOLD")?, 0, &next)
            .map_err(failed("write", "MAPPINGS_TOLD"))?;
        self.mappings_told = next;
        Ok(mappings.len().saturating_sub(MAX_CODE_MAPPINGS))
    }
}
