//! Servers of all kinds, in threads of the test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use object::read::ReadCache;

use super::*;
use crate::elf::object_file::ElfObject;

/// Patience of a test.
const SHORT: Patience = Patience {
    answer: Duration::from_millis(300),
    all: Duration::from_secs(1),
};

/// A server on this machine that counts what it is asked.
struct Local {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Local {
    fn start(answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                let mut header = String::new();
                if reader.read_line(&mut line).is_err() {
                    continue;
                }
                while reader.read_line(&mut header).is_ok_and(|bytes| bytes > 2) {
                    header.clear();
                }
                counter.fetch_add(1, Ordering::SeqCst);
                // The client may have gone.
                let _gone = answer(line.split(' ').nth(1).unwrap_or_default(), &mut stream);
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn send(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)
}

/// A cache folder, removed at the end, and what the client told.
struct Run {
    folder: PathBuf,
    told: Vec<String>,
}

impl Run {
    fn new(name: &str) -> Self {
        let name = format!("memtrace-debuginfod-{name}-{}", std::process::id());
        Self {
            folder: std::env::temp_dir().join(name),
            told: Vec::new(),
        }
    }

    fn client(&self, urls: &str) -> Debuginfod {
        Debuginfod::new(urls, Folder::open(&self.folder).unwrap(), SHORT)
    }

    fn fetch(&mut self, client: &mut Debuginfod, build_id: &[u8]) -> Option<File> {
        client.fetch(build_id, "/bin/sh", &mut |text| {
            self.told.push(text.to_owned());
        })
    }

    fn told(&self, text: &str) -> bool {
        self.told.iter().any(|told| told.contains(text))
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.folder).unwrap().count()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

fn program() -> (Vec<u8>, Vec<u8>) {
    let file = File::open("/bin/sh").unwrap();
    let cache = ReadCache::new(&file);
    let id = ElfObject::parse(&cache).unwrap().facts().build_id.unwrap();
    (fs::read("/bin/sh").unwrap(), id)
}

/// Make sure that a file with the right build id is fetched once, under the protocol's path, and then comes from the
/// cache.
#[test]
fn fetched_once() {
    let (body, id) = program();
    let path = format!("/buildid/{}/debuginfo", hex(&id));
    let server = Local::start(move |asked, stream| {
        assert_eq!(asked, path);
        send(stream, &body)
    });
    let mut run = Run::new("once");
    let mut client = run.client(&server.url);
    let file = run.fetch(&mut client, &id).unwrap();
    assert!(has_build_id(&file, &id));
    assert!(run.told("asking http://127.0.0.1") && run.told("fetched"));
    let mut client = run.client(&server.url);
    assert!(run.fetch(&mut client, &id).is_some());
    assert_eq!(server.asked(), 1);
    // What is in the cache is looked at as well.
    let cached = run.folder.join(format!("{}.debug", hex(&id)));
    fs::write(cached, "damaged").unwrap();
    assert!(run.fetch(&mut client, &id).is_some());
    assert_eq!(server.asked(), 2);
}

/// Make sure that a file of another build is thrown away, and the next server asked.
#[test]
fn other_build() {
    let (body, id) = program();
    let server = Local::start(move |_, stream| send(stream, &body));
    let mut run = Run::new("other");
    let mut client = run.client(&server.url);
    let mut other = id.clone();
    other[0] ^= 1;
    assert!(run.fetch(&mut client, &other).is_none());
    assert!(run.told("another build"), "{:?}", run.told);
    assert_eq!(run.files(), 0);
    assert!(run.fetch(&mut client, &id).is_some());
}

/// Make sure that a server that does not have the file is asked for the next one, and another for the same one.
#[test]
fn not_there() {
    let (body, id) = program();
    let empty = Local::start(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let full = Local::start(move |_, stream| send(stream, &body));
    let mut run = Run::new("absent");
    let mut client = run.client(&format!("{} {}", empty.url, full.url));
    assert!(run.fetch(&mut client, &id).is_some());
    assert!(run.told("it has none"), "{:?}", run.told);
    assert!(run.fetch(&mut client, &[7; 20]).is_none());
    assert_eq!((empty.asked(), full.asked()), (2, 2));
}

/// Make sure that a body without an end costs no more than the time for all, and leaves nothing behind.
#[test]
fn never_ending() {
    let server = Local::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        loop {
            stream.write_all(b"one more byte, slowly")?;
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut run = Run::new("endless");
    let mut client = run.client(&server.url);
    let began = Instant::now();
    assert!(run.fetch(&mut client, &[7; 20]).is_none());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(run.told("not asked again"), "{:?}", run.told);
    assert_eq!(run.files(), 0);
}

/// Make sure that a promise of more bytes than a debug file may have is not kept waiting for.
#[test]
fn too_large() {
    let server = Local::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nstart")
    });
    let mut run = Run::new("large");
    let mut client = run.client(&server.url);
    assert!(run.fetch(&mut client, &[7; 20]).is_none());
    assert_eq!(run.files(), 0);
}

/// Make sure that a server that accepts and says nothing, and one that is not there, cost little, and only once.
#[test]
fn dead() {
    let silent = Local::start(|_, _| {
        thread::sleep(Duration::from_secs(30));
        Ok(())
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let mut run = Run::new("dead");
    let mut client = run.client(&format!("{} {gone} file:///etc", silent.url));
    let began = Instant::now();
    assert!(run.fetch(&mut client, &[7; 20]).is_none());
    assert!(run.fetch(&mut client, &[8; 20]).is_none());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(silent.asked(), 1);
    assert_eq!(run.told.len(), 4, "{:?}", run.told);
}
