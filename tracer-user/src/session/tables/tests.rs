//! Tables from the cache are those that were made, and no other file's.

use std::{fs, os::unix::fs::FileExt as _, path::PathBuf};

use super::*;

/// A folder below the one for temporary files, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("memtrace-tables-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn table(made: Made) -> Table {
    match made {
        Made::Table { table, .. } => table,
        Made::Without(kind) => panic!("no table, but {kind:?}"),
    }
}

/// A small program that every machine has.
const PROGRAM: &str = "/bin/sh";

fn program() -> File {
    File::open(PROGRAM).unwrap()
}

/// Make sure that a table from the cache is the one that was made, and that a damaged one is made anew.
#[test]
fn kept_and_repaired() {
    let place = Place::new("kept");
    let direct = table(TableSource::default().make(&program()));
    let source = TableSource::with_cache(&place.0);
    assert_eq!(table(source.make(&program())), direct);
    let [path] = place.files().try_into().unwrap();
    let good = fs::read(&path).unwrap();
    let changed = || fs::metadata(&path).unwrap().modified().unwrap();
    let before = changed();
    assert_eq!(table(source.make(&program())), direct);
    assert_eq!(changed(), before);
    let middle = good.len() / 2;
    let mut flipped = good.clone();
    flipped[middle] ^= 1;
    let longer = [good.as_slice(), b"x"].concat();
    for bad in [&[][..], &good[..100], &good[..middle], &flipped, &longer] {
        fs::write(&path, bad).unwrap();
        assert_eq!(table(source.make(&program())), direct);
        assert!(fs::read(&path).unwrap() == good);
    }
}

/// Make sure that another file with the same build id does not get the first one's table.
#[test]
fn one_build_id_two_files() {
    let place = Place::new("forged");
    fs::create_dir(&place.0).unwrap();
    let forged = place.0.join("forged");
    fs::copy(PROGRAM, &forged).unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(&forged)
        .unwrap();
    let bytes = fs::read(&forged).unwrap();
    let cache = ReadCache::new(&file);
    let description = {
        let object = ElfObject::parse(&cache).unwrap();
        let segments = object.facts().segments;
        Description::locate(&object, &segments).unwrap()
    };
    // The last byte of a description near the section's middle: an operand, or padding between instructions.
    let section = description.eh_frame();
    let start = bytes
        .windows(64)
        .position(|window| window == &section[..64])
        .unwrap();
    let honest = description.convert();
    let mut position = section.len() / 2;
    let (changed, expected) = loop {
        let mut copy = bytes.clone();
        copy[start + position] ^= 1;
        let object = ElfObject::parse(copy.as_slice()).unwrap();
        let made = Table::read(&object).unwrap();
        if made != honest {
            break (copy[start + position], made);
        }
        position += 1;
    };
    let source = TableSource::with_cache(&place.0.join("cache"));
    assert_eq!(table(source.make(&program())), honest);
    file.write_all_at(&[changed], (start + position) as u64)
        .unwrap();
    assert_eq!(table(source.make(&file)), expected);
    assert_eq!(table(source.make(&program())), honest);
}

/// Make sure that a folder that others can write is not used, and that it is said.
#[test]
fn unsafe_folder() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new("unsafe");
    fs::create_dir(&place.0).unwrap();
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).unwrap();
    let mut source = TableSource::with_cache(&place.0);
    let direct = table(TableSource::default().make(&program()));
    assert_eq!(table(source.make(&program())), direct);
    assert_eq!(place.files(), [] as [PathBuf; 0]);
    let said = source.tidy().unwrap();
    assert!(said.contains("not safe"), "{said}");
    assert_eq!(source.tidy(), None);
}

/// Make sure that tables made on several cores come in the order of their files.
#[test]
fn in_order() {
    let paths = ["/bin/ls", "/etc/passwd", PROGRAM, "/bin/cat"];
    let files: Vec<File> = paths.iter().map(|path| File::open(path).unwrap()).collect();
    let source = TableSource::default();
    let alone: Vec<Made> = files.iter().map(|file| source.make(file)).collect();
    assert!(source.make_all(&files) == alone);
}
