//! The parser on a small file made here, whole, cut short and garbled.

use super::{
    object_file::{DebugLink, ElfError, ElfObject},
    site::{Function, choose},
};

const CODE_OFFSET: usize = 0x200;
const CODE_ADDRESS: u64 = 0x1200;
const STRINGS: &[u8] = b"\0malloc\0free@@V1\0imported\0ifunc\0libx.so.2\0libc.so.6\0hidden\0";
const SECTION_NAMES: &[u8] = b"\0.gnu_debuglink\0";

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// Integers of different widths, one behind the other, in little-endian order.
macro_rules! bytes {
    ($($value:expr),+ $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend($value.to_le_bytes());)+
        bytes
    }};
}

fn name(text: &str) -> u32 {
    let text = text.as_bytes();
    let position = STRINGS
        .windows(text.len())
        .position(|window| window == text);
    u32::try_from(position.unwrap()).unwrap()
}

/// A symbol: its name, type and binding, section, address and size.
fn symbol(text: &str, info: u8, section: u16, address: u64, size_bytes: u64) -> Vec<u8> {
    bytes![name(text), info, 0u8, section, address, size_bytes]
}

fn segment(kind: u32, flags: u32, offset: u64, address: u64, size_bytes: u64) -> Vec<u8> {
    bytes![
        kind, flags, offset, address, address, size_bytes, size_bytes, 8u64
    ]
}

fn section(
    name: u32,
    kind: u32,
    offset: usize,
    size_bytes: usize,
    link: u32,
    entry: u64,
) -> Vec<u8> {
    bytes![
        name,
        kind,
        0u64,
        0u64,
        offset as u64,
        size_bytes as u64,
        link,
        0u32,
        8u64,
        entry
    ]
}

/// A shared object with two functions, an import, an ifunc, a hidden function in `.symtab`, a build id, a debug
/// link and a dynamic section.
fn small_object() -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    // Shared object, x86-64, version, entry, headers' offsets, flags, sizes and counts.
    let header = bytes![
        3u16, 62u16, 1u32, 0x1200u64, 0x40u64, 0x600u64, 0u32, 64u16, 56u16, 3u16, 64u16, 7u16,
        6u16
    ];
    put(&mut file, 16, &header);
    let segments = [
        segment(1, 5, 0, 0x1000, 0x600),
        segment(2, 6, 0x580, 0x1580, 0x50),
        segment(4, 4, 0x540, 0x1540, 0x18),
    ];
    put(&mut file, 0x40, &segments.concat());
    put(&mut file, CODE_OFFSET, &[0x41, 0x54, 0xc3, 0x90]);
    put(
        &mut file,
        CODE_OFFSET + 16,
        &[0x48, 0x85, 0xff, 0x74, 0x10, 0xc3],
    );
    put(&mut file, 0x300, STRINGS);
    let dynamic_symbols = [
        vec![0; 24],
        symbol("malloc", 0x12, 1, CODE_ADDRESS, 3),
        symbol("free@@V1", 0x22, 1, CODE_ADDRESS + 16, 6),
        symbol("imported", 0x12, 0, 0x1250, 8),
        symbol("ifunc", 0x1a, 1, 0x1260, 8),
    ]
    .concat();
    put(&mut file, 0x400, &dynamic_symbols);
    let symbols = [vec![0; 24], symbol("hidden", 0x02, 1, 0x1220, 0)].concat();
    put(&mut file, 0x4a0, &symbols);
    put(&mut file, 0x500, SECTION_NAMES);
    put(&mut file, 0x520, b"libx.debug\0\0\x78\x56\x34\x12");
    put(&mut file, 0x540, &bytes![4u32, 4u32, 3u32]);
    put(&mut file, 0x54c, b"GNU\0\xab\xcd\xef\x01");
    let dynamic = bytes![
        14u64,
        u64::from(name("libx.so.2")),
        1u64,
        u64::from(name("libc.so.6")),
        5u64,
        0x1300u64,
        10u64,
        STRINGS.len() as u64,
        0u64,
        0u64
    ];
    put(&mut file, 0x580, &dynamic);
    let sections = [
        vec![0; 64],
        section(0, 1, CODE_OFFSET, 0x40, 0, 0),
        section(0, 11, 0x400, dynamic_symbols.len(), 3, 24),
        section(0, 3, 0x300, STRINGS.len(), 0, 0),
        section(0, 2, 0x4a0, symbols.len(), 3, 24),
        section(1, 1, 0x520, 16, 0, 0),
        section(0, 3, 0x500, SECTION_NAMES.len(), 0, 0),
    ];
    put(&mut file, 0x600, &sections.concat());
    file
}

/// Make sure that every fact of a well-formed file is read.
#[test]
fn facts() {
    let file = small_object();
    let facts = ElfObject::parse(file.as_slice()).unwrap().facts();
    assert_eq!(facts.soname.as_deref(), Some("libx.so.2"));
    assert_eq!(facts.needed, ["libc.so.6"]);
    assert_eq!(
        facts.build_id.as_deref(),
        Some(&[0xab, 0xcd, 0xef, 0x01][..])
    );
    let link = DebugLink {
        name: b"libx.debug".to_vec(),
        crc: 0x1234_5678,
    };
    assert_eq!(facts.debug_link, Some(link));
    assert_eq!(facts.dynamic_address, Some(0x1580));
    assert!(facts.symtab && !facts.fixed_address && !facts.go);
    assert_eq!(facts.interpreter, None);
    assert_eq!(facts.file_offset(CODE_ADDRESS), Some(CODE_OFFSET as u64));
    assert_eq!(facts.file_offset(0xfff), None);
    assert_eq!(facts.file_offset(0x1600), None);
    assert_eq!(facts.file_offset(u64::MAX), None);
}

/// Make sure that defined functions are listed without their versions, and imports and ifuncs are not.
#[test]
fn functions() {
    let file = small_object();
    let object = ElfObject::parse(file.as_slice()).unwrap();
    let mut functions = Vec::new();
    object.for_each_function(|function| {
        functions.push((
            function.name,
            function.address,
            function.size_bytes,
            function.exported,
        ));
    });
    assert_eq!(
        functions,
        [
            ("malloc", CODE_ADDRESS, 3, true),
            ("free", CODE_ADDRESS + 16, 6, true),
            ("hidden", 0x1220, 0, false),
        ]
    );
}

/// Make sure that files of other kinds are refused by name.
#[test]
fn other_files() {
    let parse = |file: &[u8]| ElfObject::parse(file).map(|_| ()).unwrap_err();
    assert_eq!(parse(b""), ElfError::NotElf);
    assert_eq!(parse(b"#!/bin/sh\n"), ElfError::NotElf);
    let mut file = small_object();
    file[4] = 1;
    assert_eq!(parse(&file), ElfError::Class32);
    file[4] = 2;
    file[18] = 183;
    assert_eq!(parse(&file), ElfError::Machine(183));
    file[5] = 2;
    assert!(matches!(parse(&file), ElfError::Malformed(_)));
}

fn read_everything(file: &[u8]) {
    let Ok(object) = ElfObject::parse(file) else {
        return;
    };
    let facts = object.facts();
    object.for_each_function(|function| {
        if let Some(offset) = facts.file_offset(function.address) {
            let code = Function {
                code: object.bytes_at(offset, function.size_bytes),
                address: function.address,
                size_bytes: function.size_bytes,
            };
            let _ = choose(code, tracer_common::call::CallShape::free(0));
            let _ = object.stub_target(&facts, function.address);
        }
    });
}

/// Make sure that no cut and no garbled byte makes the parser panic.
#[test]
fn hostile_files() {
    let file = small_object();
    for length in 0..file.len() {
        read_everything(&file[..length]);
    }
    for position in 0..file.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut garbled = file.clone();
            garbled[position] = value;
            if let Some(next) = garbled.get_mut(position + 7) {
                *next = value;
            }
            read_everything(&garbled);
        }
    }
}
