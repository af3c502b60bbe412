//! Names from separate debug files.

use super::*;
use crate::files::debug::hex;

/// Make sure that code without symbols is named by a debug file of its build in a folder that the user named, and by
/// none of another build, whatever that is called.
#[test]
fn debug_folder() {
    let directory = std::env::temp_dir().join(format!("memtrace-debugged-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let exe = fs::read_link("/proc/self/exe").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = code_mappings(&maps, "self")
        .into_iter()
        .find(|line| Path::new(&line.path) == exe)
        .unwrap();
    let strip = |arguments: &[&str], to: &Path| {
        let status = std::process::Command::new("objcopy")
            .args(arguments)
            .args([exe.as_path(), to])
            .status()
            .unwrap();
        assert!(status.success());
    };
    let stripped = directory.join("stripped");
    strip(&["--strip-all"], &stripped);
    let mut modules = Modules::new(&directory);
    modules.add(&CodeMapping {
        start: line.start,
        end: line.end,
        file_offset: line.file_offset,
        inode: line.inode,
        path: "/stripped",
        open_path: &stripped,
    });
    let address = CodeAddress::Instruction(generic::<u16> as *const () as u64);
    let name = |modules: &Modules| function(named(modules, address).last().unwrap()).to_owned();
    assert_eq!(name(&modules), "");

    let folder = directory.join("debug");
    modules.search_debug_files_in(vec![folder.clone()]);
    let id = modules
        .find(address.get())
        .and_then(|(file, _)| file.facts.as_ref()?.build_id().map(hex))
        .unwrap();
    let place = folder.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    let debug = place.join(format!("{}.debug", &id[2..]));
    fs::copy("/bin/sh", &debug).unwrap();
    assert_eq!(name(&modules), "");
    strip(&["--only-keep-debug"], &debug);
    assert!(name(&modules).contains("tests::generic"));
    // The same debug information under another build id.
    let mut bytes = fs::read(&debug).unwrap();
    let raw: Vec<u8> = (0..id.len() / 2)
        .map(|byte| u8::from_str_radix(&id[byte * 2..byte * 2 + 2], 16).unwrap())
        .collect();
    let position = bytes
        .windows(raw.len())
        .position(|window| window == raw)
        .unwrap();
    bytes[position] ^= 1;
    fs::write(&debug, bytes).unwrap();
    assert_eq!(name(&modules), "");
    // What a server gave names it as well.
    strip(&["--only-keep-debug"], &directory.join("fetched"));
    let mut asked = Vec::new();
    modules.fetch_debug_files([address, address], |id, module| {
        asked.push((hex(id), module.to_owned()));
        fs::File::open(directory.join("fetched")).ok()
    });
    assert_eq!(asked, [(id, "/stripped".to_owned())]);
    assert!(name(&modules).contains("tests::generic"));
    fs::remove_dir_all(directory).unwrap();
}
