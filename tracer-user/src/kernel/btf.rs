//! Offsets of fields in the kernel's own structs, from its BTF.
//!
//! Only what the BPF side needs: struct members by name. The format is that of the kernel's
//! `Documentation/bpf/btf.rst`. aya-obj parses BTF too, but keeps the members to itself.

use std::{collections::HashMap, fs, io, path::Path};

/// Where the kernel shows its BTF.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// The fields that lead to the trampoline of a process's return probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrampolineOffsets {
    /// `task_struct.mm`.
    pub(super) task_mm: u32,
    /// `mm_struct.uprobes_state.xol_area`.
    pub(super) mm_xol_area: u32,
    /// `xol_area.vaddr`.
    pub(super) xol_area_vaddr: u32,
}

impl TrampolineOffsets {
    /// Reads them from the running kernel; `None` where it has no BTF or names them otherwise.
    pub(super) fn of_kernel() -> Option<Self> {
        let members = struct_members(
            Path::new(VMLINUX),
            &["task_struct", "mm_struct", "uprobes_state", "xol_area"],
        )
        .ok()?;
        let offset = |owner: &str, member: &str| members.get(owner)?.get(member).copied();
        Some(Self {
            task_mm: offset("task_struct", "mm")?,
            mm_xol_area: offset("mm_struct", "uprobes_state")?
                .checked_add(offset("uprobes_state", "xol_area")?)?,
            xol_area_vaddr: offset("xol_area", "vaddr")?,
        })
    }
}

/// Byte offsets of the members of each struct named, members of unnamed inner structs included.
type Members = HashMap<String, HashMap<String, u32>>;

fn struct_members(path: &Path, names: &[&str]) -> io::Result<Members> {
    let data = fs::read(path)?;
    Btf::parse(&data)
        .map(|btf| btf.members_of(names))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed BTF"))
}

/// A struct or union: name, and (name, type, bit offset) of its members.
struct Composite<'a> {
    name: &'a str,
    is_struct: bool,
    members: Vec<(&'a str, u32, u32)>,
}

struct Btf<'a> {
    /// By type id, from 1.
    composites: HashMap<u32, Composite<'a>>,
}

impl<'a> Btf<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(data.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = |index: usize| word(data, index);
        let header_bytes = header(1)? as usize;
        let section = |offset: u32, length: u32| {
            let start = header_bytes.checked_add(offset as usize)?;
            data.get(start..start.checked_add(length as usize)?)
        };
        let types = section(header(2)?, header(3)?)?;
        let strings = section(header(4)?, header(5)?)?;
        let mut composites = HashMap::new();
        let mut rest = types;
        let mut id = 1;
        while !rest.is_empty() {
            let (name, info) = (word(rest, 0)?, word(rest, 1)?);
            let entries = info & 0xffff;
            let kind = info >> 24 & 0x1f;
            let has_bit_sizes = info >> 31 != 0;
            if matches!(kind, KIND_STRUCT | 5) {
                let members = (0..entries as usize)
                    .map(|member| {
                        let at = 3 + 3 * member;
                        let bits = word(rest, at + 2)?;
                        let bits = if has_bit_sizes {
                            bits & 0xff_ffff
                        } else {
                            bits
                        };
                        Some((string(strings, word(rest, at)?)?, word(rest, at + 1)?, bits))
                    })
                    .collect::<Option<_>>()?;
                let composite = Composite {
                    name: string(strings, name)?,
                    is_struct: kind == KIND_STRUCT,
                    members,
                };
                composites.insert(id, composite);
            }
            rest = rest.get(12 + extra_bytes(kind, entries as usize)?..)?;
            id += 1;
        }
        Some(Self { composites })
    }

    fn members_of(&self, names: &[&str]) -> Members {
        let mut found = Members::new();
        for composite in self.composites.values() {
            if composite.is_struct && names.contains(&composite.name) {
                let members = found.entry(composite.name.to_owned()).or_default();
                self.collect(composite, 0, 0, members);
            }
        }
        found
    }

    fn collect(
        &self,
        composite: &Composite<'_>,
        base: u32,
        depth: u32,
        members: &mut HashMap<String, u32>,
    ) {
        const DEEPEST_NESTING: u32 = 8;
        for &(name, member_type, bits) in &composite.members {
            let Some(offset) = base.checked_add(bits / 8) else {
                continue;
            };
            if !name.is_empty() {
                members.entry(name.to_owned()).or_insert(offset);
            } else if let Some(inner) = self.composites.get(&member_type)
                && depth < DEEPEST_NESTING
            {
                self.collect(inner, offset, depth + 1, members);
            }
        }
    }
}

/// Bytes that follow the 12 bytes common to all types.
fn extra_bytes(kind: u32, entries: usize) -> Option<usize> {
    Some(match kind {
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => 12 * entries,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * entries,
        _ => return None,
    })
}

fn word(data: &[u8], index: usize) -> Option<u32> {
    let bytes = data.get(index * 4..index * 4 + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn string(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(offset as usize..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that the offsets are found in the running kernel's BTF, where it has one.
    #[test]
    fn kernel_has_the_trampoline_offsets() {
        if !Path::new(VMLINUX).exists() {
            return;
        }
        let offsets = TrampolineOffsets::of_kernel().expect("fields of the kernel's structs");
        assert!(offsets.task_mm > 0);
        assert!(offsets.mm_xol_area > 0);
    }

    /// Make sure that bytes that are no BTF are refused, wherever they are cut.
    #[test]
    fn malformed_input_is_refused() {
        assert!(Btf::parse(b"").is_none());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0]).is_none());
        let mut header = vec![0x9f, 0xeb, 1, 0];
        for value in [24_u32, 0, u32::MAX, 0, 0] {
            header.extend(value.to_ne_bytes());
        }
        assert!(Btf::parse(&header).is_none());
    }
}
