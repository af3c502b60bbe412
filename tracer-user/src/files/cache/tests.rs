//! A hostile folder, and files in it that are not ours.

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use super::*;

/// A folder below the one for temporary files, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("memtrace-cache-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        mode(&path, 0o700);
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn write(folder: &Folder, name: &str, text: &str) {
    let mut new = folder.create(name).unwrap();
    new.file().write_all(text.as_bytes()).unwrap();
    new.keep().unwrap();
}

fn read(folder: &Folder, name: &str) -> io::Result<String> {
    let mut text = String::new();
    folder.read(name, 100)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Make sure that the folder is made for its owner alone, and that what is kept in it can be read again.
#[test]
fn kept() {
    let place = Place::new();
    let path = place.0.join("a/b");
    let folder = Folder::open(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
    write(&folder, "x", "first");
    write(&folder, "x", "second");
    assert_eq!(read(&folder, "x").unwrap(), "second");
    drop(folder.create("y").unwrap());
    assert!(read(&folder, "y").is_err());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    let file = path.join("x");
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// Make sure that a folder that others can write, or that lies in one, is refused.
#[test]
fn hostile_folder() {
    let place = Place::new();
    let path = place.0.join("a");
    Folder::open(&path).unwrap();
    for bits in [0o770, 0o707, 0o720, 0o702, 0o1777] {
        mode(&path, bits);
        let refused = Folder::open(&path);
        assert!(
            matches!(refused, Err(FolderError::Unsafe { .. })),
            "{bits:o}"
        );
    }
    mode(&path, 0o700);
    mode(&place.0, 0o777);
    assert!(matches!(
        Folder::open(&path),
        Err(FolderError::Unsafe { .. })
    ));
    mode(&place.0, 0o700);
    Folder::open(&path).unwrap();
    // A link is no way around the check.
    mode(&path, 0o777);
    symlink(&path, place.0.join("link")).unwrap();
    let refused = Folder::open(&place.0.join("link/b"));
    assert!(matches!(refused, Err(FolderError::Unsafe { .. })));
    fs::write(place.0.join("file"), "").unwrap();
    assert!(Folder::open(&place.0.join("file")).is_err());
}

/// Make sure that a folder of another user is refused, where the test may make one.
#[test]
fn foreign_folder() {
    let place = Place::new();
    let path = place.0.join("a");
    fs::create_dir(&path).unwrap();
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        println!("skipped: only root can give a folder away");
        return;
    }
    let refused = Folder::open(&path);
    assert!(matches!(
        refused,
        Err(FolderError::Unsafe { uid: 12_345, .. })
    ));
    let refused = Folder::open(&path.join("b"));
    assert!(matches!(
        refused,
        Err(FolderError::Unsafe { uid: 12_345, .. })
    ));
}

/// Make sure that links, pipes, hard links, files that others can write and large ones are not read.
#[test]
fn hostile_files() {
    let place = Place::new();
    let folder = Folder::open(&place.0).unwrap();
    write(&folder, "x", "text");
    let path = |name: &str| place.0.join(name);
    symlink(path("x"), path("link")).unwrap();
    assert!(read(&folder, "link").is_err());
    rustix::fs::mkfifoat(&folder.0, "pipe", Mode::RUSR | Mode::WUSR).unwrap();
    assert!(read(&folder, "pipe").is_err());
    fs::create_dir(path("folder")).unwrap();
    assert!(read(&folder, "folder").is_err());
    for bits in [0o620, 0o602] {
        mode(&path("x"), bits);
        assert!(read(&folder, "x").is_err());
    }
    mode(&path("x"), 0o600);
    assert!(read(&folder, "x").is_ok());
    assert!(folder.read("x", 3).is_err());
    fs::hard_link(path("x"), path("y")).unwrap();
    assert!(read(&folder, "x").is_err());
}

/// Make sure that the files that were not used for longest go first.
#[test]
fn bounded() {
    let place = Place::new();
    let folder = Folder::open(&place.0).unwrap();
    for name in ["a", "b", "c"] {
        write(&folder, name, "0123456789");
    }
    for (name, seconds) in [("a", 1_000), ("b", 2_000), ("c", 3_000)] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let file = File::open(place.0.join(name)).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(time))
            .unwrap();
    }
    folder.shrink(30).unwrap();
    assert!(read(&folder, "a").is_ok());
    folder.shrink(29).unwrap();
    assert!(read(&folder, "b").is_err());
    folder.shrink(10).unwrap();
    assert!(read(&folder, "c").is_err());
    assert!(read(&folder, "a").is_ok());
}
