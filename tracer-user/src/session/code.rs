//! The code that the unwinder walks through: a table for each object, made once, and where it is mapped now.

use std::{collections::HashMap, fs::File};

use anyhow::Result;
use object::read::ReadCache;
use tracer_common::{
    unwind::step::USER_ADDRESSES_END,
    wire::{CodeKind, CodeMapping},
};

use crate::{
    elf::{
        object_file::{ElfObject, Segment},
        unwind::{Table, UnwindError},
    },
    kernel::Kernel,
    symbolize::vdso,
    target::{FileIdentity, Process, maps::Mapping, open_mapped},
};

/// Kernel memory for tables, at most. Objects that come when it is used up have none: their frames end the stack.
const MAX_TABLE_BYTES: usize = 256 << 20;

/// How an object's code is unwound.
#[derive(Clone, Debug)]
struct ObjectCode {
    segments: Vec<Segment>,
    /// The virtual address where its table begins.
    base: u64,
    table: u32,
    kind: CodeKind,
}

impl ObjectCode {
    fn without_table(kind: CodeKind) -> Self {
        Self {
            segments: Vec::new(),
            base: 0,
            table: 0,
            kind,
        }
    }

    /// Where the table begins in the process, for a mapping of the object.
    fn origin(&self, mapping: &Mapping) -> u64 {
        let address = self
            .segments
            .iter()
            .filter(|segment| segment.executable)
            .find(|segment| {
                // The kernel maps whole pages, so a mapping may begin a little before its segment.
                let end = segment.offset.saturating_add(segment.file_bytes);
                mapping.offset < end
                    && segment.offset < mapping.offset.saturating_add(mapping.end - mapping.start)
            })
            .map_or(0, |segment| {
                segment
                    .address
                    .wrapping_add(mapping.offset)
                    .wrapping_sub(segment.offset)
            });
        mapping.start.wrapping_sub(address).wrapping_add(self.base)
    }
}

/// The objects whose code was seen, with their tables.
#[derive(Debug, Default)]
pub(super) struct CodeTables {
    objects: HashMap<FileIdentity, ObjectCode>,
    vdso: Option<ObjectCode>,
    bytes: usize,
    told: Vec<CodeMapping>,
    /// Objects for whose table there was no room, since they were asked for last.
    pub(super) dropped: Vec<String>,
}

impl CodeTables {
    /// Tells the unwinder what code the process maps, and uploads the tables that are new.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map.
    pub(super) fn update(
        &mut self,
        kernel: &mut Kernel,
        process: &Process,
        mappings: &[Mapping],
    ) -> Result<()> {
        let mut code = Vec::new();
        // The vsyscall page lies in the kernel's half, where the unwinder's search compares wrongly.
        let in_user_space =
            |mapping: &&Mapping| mapping.executable && mapping.end <= USER_ADDRESSES_END;
        for mapping in mappings.iter().filter(in_user_space) {
            let object = self.object(kernel, process, mapping)?;
            code.push(CodeMapping {
                start: mapping.start,
                end: mapping.end,
                origin: object.origin(mapping),
                table: object.table,
                kind: object.kind as u32,
            });
        }
        if code != self.told {
            kernel.set_mappings(&code)?;
            self.told = code;
        }
        Ok(())
    }

    fn object(
        &mut self,
        kernel: &mut Kernel,
        process: &Process,
        mapping: &Mapping,
    ) -> Result<ObjectCode> {
        if mapping.inode == 0 {
            return match mapping.path.to_str() {
                Some(vdso::NAME) => self.vdso(kernel),
                // Code that was compiled at run time has no other sign than its frame pointers.
                Some(path) if !path.starts_with('[') || path.starts_with("[anon") => {
                    Ok(ObjectCode::without_table(CodeKind::FramePointer))
                }
                _ => Ok(ObjectCode::without_table(CodeKind::Unknown)),
            };
        }
        let Ok(opened) = open_mapped(process, mapping) else {
            return Ok(ObjectCode::without_table(CodeKind::Unknown));
        };
        if let Some(object) = self.objects.get(&opened.identity) {
            return Ok(object.clone());
        }
        let object = self.make(kernel, opened.file, &mapping.path.to_string_lossy())?;
        self.objects.insert(opened.identity, object.clone());
        Ok(object)
    }

    fn vdso(&mut self, kernel: &mut Kernel) -> Result<ObjectCode> {
        if let Some(object) = &self.vdso {
            return Ok(object.clone());
        }
        let object = match vdso::image() {
            Ok(image) => self.make(kernel, image, vdso::NAME)?,
            Err(_) => ObjectCode::without_table(CodeKind::Unknown),
        };
        self.vdso = Some(object.clone());
        Ok(object)
    }

    fn make(&mut self, kernel: &mut Kernel, file: File, name: &str) -> Result<ObjectCode> {
        let cache = ReadCache::new(file);
        let Ok(object) = ElfObject::parse(&cache) else {
            return Ok(ObjectCode::without_table(CodeKind::FramePointer));
        };
        let table = match Table::read(&object) {
            Ok(table) => table,
            Err(UnwindError::NoFrames) => {
                return Ok(ObjectCode::without_table(CodeKind::FramePointer));
            }
            Err(UnwindError::NoCode) => return Ok(ObjectCode::without_table(CodeKind::Unknown)),
        };
        let bytes = size_of_val(table.words.as_slice());
        if self.bytes + bytes > MAX_TABLE_BYTES {
            self.dropped.push(name.to_owned());
            return Ok(ObjectCode::without_table(CodeKind::Unknown));
        }
        let Some(number) = kernel.add_table(table.chunks())? else {
            self.dropped.push(name.to_owned());
            return Ok(ObjectCode::without_table(CodeKind::Unknown));
        };
        self.bytes += bytes;
        Ok(ObjectCode {
            segments: object.facts().segments,
            base: table.base,
            table: number,
            kind: CodeKind::Table,
        })
    }
}
