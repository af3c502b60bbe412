//! The stacks of programs that were never prepared for it, against those that gdb finds in the same process.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use tests::{
    chains::shown,
    gdb::{self, Place},
    lines::PATIENCE,
    memtrace::Memtrace,
    need, needs,
    needs::Missing,
    report::Report,
    target::Target,
    turn::Turn,
};

/// Calls of malloc that gdb looks at.
const SAMPLES: usize = 40;
/// The least share of whole stacks.
const WHOLE: f64 = 0.999;

/// Lets gdb sample a process under load, then memtrace trace it under the same load, and compares.
fn compare(pid: u32) -> Result<(), Missing> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let truth = gdb::stacks(pid, SAMPLES, folder.path())?;
    let report = Memtrace::on(pid, &["-d", "4s"]).wait().report();
    in_code(&report);
    whole(&report);
    equal(&truth, &report);
    Ok(())
}

/// Makes sure that no frame lies outside of code.
fn in_code(report: &Report) {
    for stack in &report.stacks {
        assert!(
            stack.frames.iter().all(|frame| frame.module.is_some()),
            "a frame outside of code: {}",
            shown(stack)
        );
    }
}

/// Makes sure that nearly all stacks reach the start of their thread.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn whole(report: &Report) {
    let cut = report
        .stacks
        .iter()
        .filter(|stack| stack.truncated.is_some());
    let count: u64 = cut.clone().map(|stack| stack.counts.total_count).sum();
    let all = report.totals.total_count;
    let share = 1.0 - count as f64 / all as f64;
    let shown: Vec<String> = cut.take(20).map(shown).collect();
    assert!(
        all > 100 && share >= WHOLE,
        "{count} of {all} are cut:\n{}",
        shown.join("\n")
    );
}

/// Makes sure that memtrace saw the very stacks that gdb did, but for the few that a load does not repeat.
fn equal(truth: &[Vec<Place>], report: &Report) {
    let seen: BTreeSet<Vec<Place>> = report.stacks.iter().map(gdb::places).collect();
    let missing: Vec<&Vec<Place>> = truth
        .iter()
        .filter(|stack| !outermost(stack).any(|stack| seen.contains(stack)))
        .collect();
    let samples = truth.len();
    let shown: Vec<String> = missing
        .iter()
        .map(|stack| format!("gdb  {stack:x?}\nours {:x?}", nearest(stack, &seen)))
        .collect();
    assert!(
        samples > 0 && missing.len() * 10 <= samples,
        "{} of gdb's {samples} stacks are not among memtrace's {}:\n{}",
        missing.len(),
        seen.len(),
        shown.join("\n")
    );
}

/// A stack, and what is left of it without the allocator's own frames: memtrace takes the outermost call of the
/// allocator (`posix_memalign`), gdb also stops where that calls malloc.
fn outermost(stack: &[Place]) -> impl Iterator<Item = &[Place]> {
    let own = stack.iter().take(3);
    let own = own.take_while(|(path, _)| path.ends_with("/libc.so.6"));
    (0..=own.count()).filter_map(|first| stack.get(first..))
}

/// The stack of ours that shares most frames with one of gdb's, from the leaf on.
fn nearest<'a>(wanted: &[Place], seen: &'a BTreeSet<Vec<Place>>) -> Option<&'a Vec<Place>> {
    let shared = |stack: &&Vec<Place>| {
        let pairs = stack.iter().zip(wanted);
        pairs.take_while(|(ours, theirs)| ours == theirs).count()
    };
    seen.iter().max_by_key(shared)
}

/// A client, ended when it is dropped.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // Errors mean that it ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut attempt: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !attempt() {
        assert!(Instant::now() < end, "{what}: in vain");
        sleep(Duration::from_millis(20));
    }
}

/// Make sure that the stacks of redis-server, with jemalloc, are gdb's.
#[test]
fn redis() {
    let _turn = need!(Turn::shared());
    let server = need!(needs::program("redis-server"));
    let benchmark = need!(needs::program("redis-benchmark"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("redis.sock");
    let mut command = Command::new(server);
    command
        .args(["--port", "0", "--save", ""])
        // gdb makes commands slow, and the log of slow commands allocates.
        .args(["--slowlog-log-slower-than", "-1", "--unixsocket"])
        .arg(&socket)
        .current_dir(folder.path());
    let target = Target::spawn(&mut command);
    until("redis's socket", || UnixStream::connect(&socket).is_ok());
    let mut load = Command::new(benchmark);
    load.arg("-s")
        .arg(&socket)
        .args([
            "-q",
            "-l",
            "-t",
            "set,lpush,hset",
            "-r",
            "1000",
            "-n",
            "100000",
        ])
        .stdout(Stdio::null());
    let _client = Client(load.spawn().expect("redis-benchmark"));
    need!(compare(target.pid()));
}

/// Sends requests, each on a connection of its own, until it is told to stop.
fn requests(socket: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = UnixStream::connect(socket) else {
            return;
        };
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        if stream.write_all(request).is_err() || stream.read_to_end(&mut answer).is_err() {
            return;
        }
    }
}

/// Make sure that the stacks of nginx are gdb's.
#[test]
fn nginx() {
    let _turn = need!(Turn::shared());
    let nginx = need!(needs::program("nginx"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("nginx.sock");
    let configuration = folder.path().join("nginx.conf");
    let place = folder.path().display();
    fs::write(
        &configuration,
        format!(
            "user root; pid {place}/pid; error_log {place}/error.log; master_process off; events {{}}\n\
             http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
             server {{ listen unix:{place}/nginx.sock; location / {{ return 200 'served'; }} }} }}\n"
        ),
    )
    .expect("a configuration for nginx");
    let mut command = Command::new(nginx);
    command
        .args(["-g", "daemon off;", "-e", "stderr", "-p"])
        .arg(folder.path())
        .arg("-c")
        .arg(&configuration);
    let target = Target::spawn(&mut command);
    until("nginx's socket", || UnixStream::connect(&socket).is_ok());
    let stop = Arc::new(AtomicBool::new(false));
    let client = {
        let (socket, stop) = (socket.clone(), Arc::clone(&stop));
        thread::spawn(move || requests(&socket, &stop))
    };
    let compared = compare(target.pid());
    stop.store(true, Ordering::Relaxed);
    drop(target);
    client.join().expect("the client");
    need!(compared);
}

const PYTHON: &str = "
import json, re, sys, threading
def work():
    while True:
        text = json.dumps({str(k): [k, float(k), 'x' * k] for k in range(20)})
        json.loads(text); re.split('[,:]', text); sorted(text.split(','), key=len)
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
[thread.start() for thread in threads]
sys.stdout.write('ready\\n'); sys.stdout.flush()
work()
";

/// Make sure that the stacks of `CPython`, its threads' included, are gdb's.
#[test]
fn python() {
    let _turn = need!(Turn::shared());
    let python = Path::new("/usr/bin/python3");
    need!(
        python
            .is_file()
            .then_some(())
            .ok_or("/usr/bin/python3 is not installed".to_owned())
    );
    let mut command = Command::new(python);
    command
        .args(["-S", "-c", PYTHON])
        .env("PYTHONMALLOC", "malloc");
    let target = Target::start(&mut command);
    need!(compare(target.pid()));
}

const NODE: &str = "
const zlib = require('zlib');
console.log('ready');
const again = () => zlib.gzip('y'.repeat(10000), again);
for (let i = 0; i < 4; i++) again();
";

/// In which V8 compiles what it will.
const WARM_UP: Duration = Duration::from_secs(4);

/// Make sure that the stacks of node's own threads, where no JavaScript is, are gdb's; others say where they end.
#[test]
fn node() {
    let _turn = need!(Turn::shared());
    let node = need!(needs::program("node"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = Target::start(Command::new(node).args(["-e", NODE]));
    sleep(WARM_UP);
    let truth = need!(gdb::stacks(target.pid(), SAMPLES, folder.path()));
    let mut report = Memtrace::on(target.pid(), &["-d", "4s"]).wait().report();
    in_code(&report);
    // V8's builtins keep frame pointers and have no unwind information.
    let scripted = |name: &str| name.starts_with("Builtins_");
    report.stacks.retain(|stack| {
        !stack
            .frames
            .last()
            .is_some_and(|frame| scripted(frame.name()))
    });
    whole(&report);
    // Those that end in a thread's start, and not where gdb, too, can go no further.
    let native: Vec<Vec<Place>> = truth
        .into_iter()
        .filter(|stack| {
            stack.iter().all(|(path, _)| !path.is_empty())
                && stack
                    .last()
                    .is_some_and(|(path, _)| path.ends_with("/libc.so.6"))
        })
        .collect();
    equal(&native, &report);
}
