//! The code that the unwinder walks through: a table for each object, made once, and where it is mapped now.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    path::Path,
};

use anyhow::Result;
use tracer_common::{
    unwind::{search::Chunk, step::USER_ADDRESSES_END},
    wire::{CodeKind, CodeMapping},
};

use super::{
    Options,
    budget::{Budget, Rank},
    tables::{Made, TableSource},
};
use crate::{
    elf::{object_file::Segment, unwind::Table},
    kernel::Kernel,
    symbolize::vdso,
    target::{FileIdentity, Process, maps::Mapping, open_mapped},
};

/// Tables that are made before the first of them is uploaded: bounds the memory that they take meanwhile.
const BATCH: usize = 16;

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
#[derive(Debug)]
pub(super) struct CodeTables {
    source: TableSource,
    /// Kernel memory for tables. Objects that come when it is used up have none: their frames end the stack.
    budget: Budget,
    objects: HashMap<FileIdentity, ObjectCode>,
    vdso: Option<ObjectCode>,
    told: Vec<CodeMapping>,
    /// What went wrong since it was asked for last, in one sentence each.
    pub(super) troubles: Vec<String>,
}

/// An object that has no table yet, in a mapping of it.
struct Wanted<'a> {
    identity: FileIdentity,
    rank: Rank,
    mapping: &'a Mapping,
}

impl CodeTables {
    pub(super) fn new(options: &Options) -> Self {
        let folder = options.cache_folder.as_ref();
        Self {
            source: folder.map_or_else(TableSource::default, |folder| {
                TableSource::with_cache(&folder.join("unwind"))
            }),
            budget: Budget::new(options.table_memory_bytes),
            objects: HashMap::new(),
            vdso: None,
            told: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Tells the unwinder what code the process maps, and uploads the tables that are new, those of the allocators
    /// among the first.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map.
    pub(super) fn update(
        &mut self,
        kernel: &mut Kernel,
        process: &Process,
        mappings: &[Mapping],
        allocators: &HashSet<FileIdentity>,
    ) -> Result<()> {
        let identities: Vec<Option<FileIdentity>> = mappings
            .iter()
            .map(|mapping| {
                let is_file = mapping.executable && mapping.inode != 0;
                let opened = is_file
                    .then(|| open_mapped(process, mapping).ok())
                    .flatten();
                opened.map(|opened| opened.identity)
            })
            .collect();
        let mut seen = HashSet::new();
        let mut wanted: Vec<Wanted<'_>> = mappings
            .iter()
            .zip(&identities)
            .filter_map(|(mapping, identity)| Some((mapping, (*identity)?)))
            .filter(|(_, identity)| !self.objects.contains_key(identity) && seen.insert(*identity))
            .map(|(mapping, identity)| {
                let path = Path::new(&mapping.path);
                let is_executable = path == process.exe();
                Wanted {
                    identity,
                    rank: Rank::of(path, is_executable, allocators.contains(&identity)),
                    mapping,
                }
            })
            .collect();
        wanted.sort_by_key(|object| object.rank);
        for batch in wanted.chunks(BATCH) {
            self.add(kernel, process, batch)?;
        }
        let mut code = Vec::new();
        for (mapping, identity) in mappings.iter().zip(&identities) {
            // The vsyscall page lies in the kernel's half, where the unwinder's search compares wrongly.
            if !mapping.executable || mapping.end > USER_ADDRESSES_END {
                continue;
            }
            let object = self.object(kernel, mapping, identity.as_ref())?;
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
        self.troubles.extend(self.source.tidy());
        Ok(())
    }

    /// Makes and uploads the tables of objects.
    fn add(&mut self, kernel: &mut Kernel, process: &Process, batch: &[Wanted<'_>]) -> Result<()> {
        let mut objects = Vec::with_capacity(batch.len());
        let mut files = Vec::with_capacity(batch.len());
        for object in batch {
            // What is mapped there now may be another file, which is looked at next time.
            if let Ok(opened) = open_mapped(process, object.mapping)
                && opened.identity == object.identity
            {
                objects.push(object);
                files.push(opened.file);
            }
        }
        let made = self.source.make_all(&files);
        let names = objects
            .iter()
            .map(|object| object.mapping.path.to_string_lossy());
        let codes = self.upload(kernel, made, names)?;
        for (object, code) in objects.iter().zip(codes) {
            self.objects.insert(object.identity, code);
        }
        Ok(())
    }

    /// Uploads tables as far as there is room, and says how the objects are unwound.
    fn upload(
        &mut self,
        kernel: &mut Kernel,
        made: Vec<Made>,
        names: impl Iterator<Item = impl Display>,
    ) -> Result<Vec<ObjectCode>> {
        let bytes = |table: &Table| size_of_val(table.words.as_slice()) as u64;
        let fits: Vec<bool> = made
            .iter()
            .map(|made| matches!(made, Made::Table { table, .. } if self.budget.take(bytes(table))))
            .collect();
        let tables: Vec<&[Chunk]> = made
            .iter()
            .zip(&fits)
            .filter_map(|(made, fits)| match made {
                Made::Table { table, .. } if *fits => Some(table.chunks()),
                _ => None,
            })
            .collect();
        let mut numbers = kernel.add_tables(&tables)?.into_iter();
        let mut codes = Vec::with_capacity(made.len());
        for ((made, fits), name) in made.into_iter().zip(fits).zip(names) {
            let number = fits.then(|| numbers.next().flatten()).flatten();
            codes.push(match (made, number) {
                (Made::Table { table, segments }, Some(number)) => ObjectCode {
                    segments,
                    base: table.base,
                    table: number,
                    kind: CodeKind::Table,
                },
                (Made::Table { .. }, None) => {
                    self.troubles.push(format!(
                        "stacks end in {name}: there was no room left for its unwind table (--table-memory)"
                    ));
                    ObjectCode::without_table(CodeKind::Unknown)
                }
                (Made::Without(kind), _) => ObjectCode::without_table(kind),
            });
        }
        Ok(codes)
    }

    fn object(
        &mut self,
        kernel: &mut Kernel,
        mapping: &Mapping,
        identity: Option<&FileIdentity>,
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
        let known = identity.and_then(|identity| self.objects.get(identity));
        Ok(known.map_or_else(
            || ObjectCode::without_table(CodeKind::Unknown),
            ObjectCode::clone,
        ))
    }

    fn vdso(&mut self, kernel: &mut Kernel) -> Result<ObjectCode> {
        if let Some(object) = &self.vdso {
            return Ok(object.clone());
        }
        let object = match vdso::image() {
            Ok(image) => {
                let made = vec![self.source.make(&image)];
                let mut codes = self.upload(kernel, made, [vdso::NAME].into_iter())?;
                codes
                    .pop()
                    .unwrap_or_else(|| ObjectCode::without_table(CodeKind::Unknown))
            }
            Err(_) => ObjectCode::without_table(CodeKind::Unknown),
        };
        self.vdso = Some(object.clone());
        Ok(object)
    }
}
