//! The test binary names its own code.

mod debug_files;

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
};

use super::*;
use crate::symbolize::CodeMapping;

/// A line of a maps file that maps code.
struct Line {
    start: u64,
    end: u64,
    file_offset: u64,
    inode: u64,
    path: String,
    open_path: PathBuf,
}

fn code_mappings(maps: &str, pid: &str) -> Vec<Line> {
    maps.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(6, ' ');
            let range = fields.next()?;
            let (start, end) = range.split_once('-')?;
            let executable = fields.next()?.contains('x');
            let file_offset = fields.next()?;
            let inode = fields.nth(1)?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            executable.then_some(Line {
                start: hex(start)?,
                end: hex(end)?,
                file_offset: hex(file_offset)?,
                inode: inode.parse().ok()?,
                path: fields.next().unwrap_or_default().trim().to_owned(),
                open_path: format!("/proc/{pid}/map_files/{range}").into(),
            })
        })
        .collect()
}

fn add_all(modules: &mut Modules, lines: &[Line]) {
    for line in lines {
        modules.add(&CodeMapping {
            start: line.start,
            end: line.end,
            file_offset: line.file_offset,
            inode: line.inode,
            path: &line.path,
            // Only root may open map_files; these tests run as anybody.
            open_path: if line.open_path.metadata().is_ok() {
                &line.open_path
            } else {
                Path::new(&line.path)
            },
        });
    }
}

fn own_modules() -> Modules {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut modules = Modules::new(Path::new("/proc/self/root"));
    add_all(&mut modules, &code_mappings(&maps, "self"));
    modules
}

fn named(modules: &Modules, address: CodeAddress) -> Vec<Frame> {
    resolve(modules, [address]).stack([address])
}

fn function(frame: &Frame) -> &str {
    frame.function.as_deref().unwrap_or_default()
}

#[inline(never)]
fn generic<T: Into<u64> + Copy>(value: T) -> u64 {
    black_box(value.into() + 1)
}

#[expect(clippy::inline_always, reason = "also without optimization")]
#[inline(always)]
fn inner(value: u64) -> u64 {
    black_box(black_box(value) * 3)
}

#[inline(never)]
fn outer() -> u64 {
    inner(4) + black_box(1)
}

/// Make sure that a generic function of this binary gets its readable name, file and line.
#[test]
fn own_function() {
    let address = generic::<u32> as *const () as u64;
    assert_eq!(generic(1_u32), 2);
    let frames = named(&own_modules(), CodeAddress::Instruction(address));
    let frame = frames.last().unwrap();
    assert!(function(frame).contains("tests::generic"), "{frame:?}");
    assert!(!function(frame).contains("17h"), "{frame:?}");
    assert!(frame.file.as_deref().unwrap().ends_with("resolve/tests.rs"));
    assert!(frame.line.is_some() && frame.module.is_some());
}

/// Make sure that a function inlined into another is reported before it, with the same offset.
#[test]
fn inlined_function() {
    assert_eq!(outer(), 13);
    let modules = own_modules();
    let start = outer as *const () as u64;
    let addresses: Vec<_> = (start..start + 64).map(CodeAddress::Instruction).collect();
    let names = resolve(&modules, addresses.iter().copied());
    let frames = addresses
        .iter()
        .map(|address| names.frames(*address))
        .find(|frames| frames.len() == 2)
        .unwrap();
    assert!(function(&frames[0]).contains("inner"), "{frames:?}");
    assert!(function(&frames[1]).contains("outer"), "{frames:?}");
    assert!(frames[0].inlined && !frames[1].inlined);
    assert_eq!(frames[0].offset, frames[1].offset);
}

/// Make sure that a return address at a function's end belongs to that function, and keeps its own offset.
#[test]
fn return_address() {
    let modules = own_modules();
    let start = outer as *const () as u64;
    let instruction = named(&modules, CodeAddress::Instruction(start));
    let returned = named(&modules, CodeAddress::Return(start));
    assert!(function(instruction.last().unwrap()).contains("outer"));
    assert!(
        returned
            .last()
            .is_none_or(|frame| !function(frame).contains("outer"))
    );
    assert_eq!(
        instruction.last().unwrap().offset,
        returned.last().unwrap().offset
    );
}

/// Make sure that the vDSO's functions have names.
#[test]
fn vdso() {
    let modules = own_modules();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let vdso = code_mappings(&maps, "self")
        .into_iter()
        .find(|line| line.path == "[vdso]")
        .unwrap();
    let names = resolve(
        &modules,
        (vdso.start..vdso.end).map(CodeAddress::Instruction),
    );
    let known = |name: &str| {
        (vdso.start..vdso.end).any(|address| {
            names
                .frames(CodeAddress::Instruction(address))
                .iter()
                .any(|frame| {
                    function(frame).contains(name) && frame.module.as_deref() == Some("[vdso]")
                })
        })
    };
    assert!(known("clock_gettime") && known("getcpu"));
}

/// Make sure that an address outside of everything keeps its value, and one in anonymous memory its place.
#[test]
fn unknown() {
    let mut modules = own_modules();
    let frames = named(&modules, CodeAddress::Return(0x1000));
    assert_eq!(
        frames,
        [Frame {
            offset: 0x1000,
            ..Frame::default()
        }]
    );
    modules.add(&CodeMapping {
        start: 0x1_0000,
        end: 0x2_0000,
        file_offset: 0,
        inode: 0,
        path: "",
        open_path: Path::new(""),
    });
    let frames = named(&modules, CodeAddress::Return(0x1_2345));
    assert_eq!(frames[0].module.as_deref(), Some("[anon]"));
    assert_eq!((frames.len(), frames[0].offset), (1, 0x1_2345));
    assert!(named(&modules, CodeAddress::Return(0))[0].module.is_none());
}

/// Make sure that code is named after its file was deleted and replaced, as it must be when its process has gone.
#[test]
fn deleted_and_replaced() {
    let directory = std::env::temp_dir().join(format!("memtrace-named-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("sleeper");
    fs::copy("/proc/self/exe", &path).unwrap();
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = code_mappings(&maps, "self")
        .into_iter()
        .find(|line| Path::new(&line.path) == exe)
        .unwrap();
    let mut modules = Modules::new(&directory);
    modules.add(&CodeMapping {
        start: line.start,
        end: line.end,
        file_offset: line.file_offset,
        inode: line.inode,
        path: &format!("{} (deleted)", path.display()),
        open_path: &path,
    });
    fs::remove_file(&path).unwrap();
    fs::write(&path, "something else").unwrap();
    let frames = named(
        &modules,
        CodeAddress::Instruction(generic::<u8> as *const () as u64),
    );
    assert!(function(frames.last().unwrap()).contains("tests::generic"));
    assert_eq!(frames.last().unwrap().module.as_deref(), path.to_str());
    fs::remove_dir_all(directory).unwrap();
}

/// Make sure that a file that is not kept open is found again, and is not taken for another that replaced it.
#[test]
fn not_kept() {
    let directory = std::env::temp_dir().join(format!("memtrace-unkept-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("libc.so.6");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = code_mappings(&maps, "self")
        .into_iter()
        .find(|line| line.path.ends_with("libc.so.6"))
        .unwrap();
    fs::copy(&line.path, &path).unwrap();
    let mut modules = Modules::new(Path::new("/proc/self/root"));
    modules.keep_at_most(0);
    modules.add(&CodeMapping {
        start: line.start,
        end: line.end,
        file_offset: line.file_offset,
        inode: line.inode,
        path: "/nowhere/libc.so.6",
        open_path: &path,
    });
    // The first function of libc's that is found by its address, whichever it is.
    let addresses: Vec<_> = (line.start + 0x4_0000..line.start + 0x4_4000)
        .map(CodeAddress::Instruction)
        .collect();
    let any_named = |modules: &Modules| {
        resolve(modules, addresses.iter().copied())
            .stack(addresses.iter().copied())
            .iter()
            .any(|frame| frame.function.is_some())
    };
    assert!(any_named(&modules));
    modules.host_root = None;
    modules.target_root = None;
    assert!(any_named(&modules));
    fs::copy("/proc/self/exe", &path).unwrap();
    assert!(!any_named(&modules));
    fs::remove_dir_all(directory).unwrap();
}
