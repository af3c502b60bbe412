//! Programs that were never prepared for it: what memtrace saw against what their own counters say.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::{
    lines::PATIENCE, memtrace::Memtrace, need, needs, scenario::PLAIN, target::Target, turn::Turn,
};

/// Tries until it works, within the limit for all waits.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: in vain");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks a Redis server, by its own protocol.
fn ask_redis(socket: &Path, command: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A number of `INFO`.
fn redis_info(socket: &Path, field: &str) -> Option<u64> {
    let answer = ask_redis(socket, "INFO")?;
    let line = answer.lines().find_map(|line| line.strip_prefix(field))?;
    line.strip_prefix(':')?.trim().parse().ok()
}

/// Waits until only the asking client is connected, so that no buffers of others are counted.
fn redis_memory_at_rest(socket: &Path) -> u64 {
    until("redis at rest", || {
        (redis_info(socket, "connected_clients")? == 1).then_some(())
    });
    until("redis's used_memory", || redis_info(socket, "used_memory"))
}

/// Make sure that the growth of redis-server's heap under redis-benchmark is what its `used_memory` says.
///
/// Redis counts what jemalloc gives, memtrace what Redis asked for. jemalloc's classes are 8 or 16 bytes apart up to
/// 128 bytes and four to the doubling above that: they add less than 16 bytes, or less than a quarter. Blocks of the
/// start that are released meanwhile lower Redis's number only (its tables grow, connections end): a megabyte covers
/// them, and is under a tenth of the growth.
#[test]
fn redis_under_redis_benchmark() {
    const SLACK: u64 = 1 << 20;
    let _turn = need!(Turn::alone());
    let server = need!(needs::program("redis-server"));
    let benchmark = need!(needs::program("redis-benchmark"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("redis.sock");
    let mut command = Command::new(server);
    command
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ])
        .args(["--activerehashing", "no", "--unixsocket"])
        .arg(&socket)
        .current_dir(folder.path());
    let mut target = Target::spawn(&mut command);
    until("redis's socket", || ask_redis(&socket, "PING"));

    let before = redis_memory_at_rest(&socket);
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    let load = Command::new(benchmark)
        .arg("-s")
        .arg(&socket)
        .args([
            "-q",
            "-t",
            "set,lpush,hset",
            "-n",
            "60000",
            "-r",
            "50000",
            "-d",
            "100",
        ])
        .output()
        .expect("redis-benchmark");
    assert!(
        load.status.success(),
        "{}",
        String::from_utf8_lossy(&load.stderr)
    );
    let after = redis_memory_at_rest(&socket);
    let ended = memtrace.stop();
    let report = ended.report();
    target.signal(Signal::TERM);
    target.wait();

    let grown = after - before;
    let live = report.totals.live_bytes;
    assert!(grown > 10 * SLACK, "the load makes Redis grow: {grown}");
    assert!(
        report.losses.values().all(|count| *count == 0),
        "{:?}",
        report.losses
    );
    assert!(
        report
            .allocator
            .iter()
            .any(|allocator| allocator.kind == "jemalloc"),
        "Debian's Redis is linked with jemalloc: {:?}",
        report.allocator
    );
    assert!(live <= grown + SLACK, "seen {live}, Redis says {grown}");
    let largest = live + live / 4 + 16 * report.totals.live_count;
    assert!(
        grown <= largest + SLACK,
        "seen {live} in {} blocks, so at most {largest} held; Redis says {grown}",
        report.totals.live_count
    );
}

/// One request on a connection that stays open.
fn request(stream: &mut UnixStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("a request to nginx");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"served") {
        let count = stream.read(&mut buffer).expect("an answer of nginx");
        assert!(
            count > 0,
            "nginx closed the connection: {}",
            String::from_utf8_lossy(&answer)
        );
        answer.extend_from_slice(&buffer[..count]);
    }
}

/// Make sure that nginx's pools are seen: one of 4 KiB for each request (`request_pool_size`), released after it.
#[test]
fn nginx_under_requests() {
    const REQUESTS: u64 = 2000;
    const POOL_BYTES: u64 = 4096;
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
             http {{ access_log off; request_pool_size 4k; keepalive_requests 100000;\n\
             client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;\n\
             uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
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
    let mut target = Target::spawn(&mut command);
    let mut warm_up = until("nginx's socket", || UnixStream::connect(&socket).ok());
    request(&mut warm_up);

    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    let mut connections = Vec::new();
    for _ in 0..10 {
        let mut stream = UnixStream::connect(&socket).expect("a connection");
        for _ in 0..REQUESTS / 10 {
            request(&mut stream);
        }
        connections.push(stream);
    }
    drop(connections);
    // Connections are handled in turn: when this one is answered, the ends of the others are.
    request(&mut warm_up);
    request(&mut warm_up);
    let report = memtrace.stop().report();
    target.signal(Signal::TERM);
    target.wait();

    assert!(
        report.losses.values().all(|count| *count == 0),
        "{:?}",
        report.losses
    );
    assert!(
        report.totals.total_bytes >= REQUESTS * POOL_BYTES,
        "a pool for each request: {:?}",
        report.totals
    );
    assert!(
        report.totals.live_bytes <= report.totals.total_bytes / 20,
        "pools are released: {:?}",
        report.totals
    );
    for stack in &report.stacks {
        assert!(
            stack.counts.live_bytes <= stack.counts.total_bytes,
            "{stack:?}"
        );
        assert!(
            stack.counts.live_count <= stack.counts.total_count,
            "{stack:?}"
        );
    }
}

const PYTHON: &str = "
import sys
def say(text):
    sys.stdout.write(text + '\\n'); sys.stdout.flush()
def make():
    blobs = [bytes(100 + i % 900) for i in range(40000)]
    texts = [str(i) * 10 for i in range(40000)]
    table = {i: (i, float(i)) for i in range(100000, 120000)}
    return blobs, texts, table
def size(blobs, texts, table):
    total = sum(map(sys.getsizeof, (blobs, texts, table)))
    total += sum(map(sys.getsizeof, blobs)) + sum(map(sys.getsizeof, texts))
    for key, pair in table.items():
        total += sys.getsizeof(key) + sys.getsizeof(pair) + sys.getsizeof(pair[1])
    return total
size(*make())
say('ready')
sys.stdin.read(1)
things = make()
say('{%d' % size(*things))
sys.stdin.read(1)
";

/// Make sure that what `CPython` allocates with malloc is what `sys.getsizeof` says of the objects that it made.
///
/// `getsizeof` gives the bytes that an object and its tables were allocated with, headers of the garbage collector
/// included. Free lists can serve some tuples and floats, and frames and the output take a little: 1 % either way.
#[test]
fn cpython_on_malloc() {
    let _turn = need!(Turn::shared());
    let python = need!(needs::program("python3"));
    let mut command = Command::new(python);
    command
        .args(["-S", "-c", PYTHON])
        .env("PYTHONMALLOC", "malloc");
    let mut target = Target::start(&mut command);
    let memtrace = Memtrace::on(target.pid(), &PLAIN);
    target.go();
    let line = target.wait_for("{");
    let truth: u64 = line[1..].parse().expect("a number of bytes");
    let report = memtrace.stop().report();
    target.end();
    let seen = report.totals.live_bytes;
    assert!(truth > 20_000_000, "the program makes much: {truth}");
    assert!(
        report.losses.values().all(|count| *count == 0),
        "{:?}",
        report.losses
    );
    assert!(
        seen.abs_diff(truth) < truth / 100,
        "seen {seen}, Python says {truth}"
    );
}
