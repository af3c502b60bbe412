//! Throughput of redis-server under redis-benchmark.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::tracer::{self, Tools, Tracer};
use crate::shell::output;

/// Connections of the client.
const CLIENTS: &str = "20";

/// Makes the C library serve malloc in a redis-server that is linked to jemalloc, as Debian's is: memleak of
/// bcc 0.26 cannot be pointed at jemalloc (it insists on a symbol `mmap` in the same object).
pub(crate) const ALLOCATOR: &str = "libc.so.6";

/// Requests per second, all measurements, by tracer: SET, GET.
pub(crate) type Throughput = BTreeMap<Tracer, [Vec<f64>; 2]>;

/// The command that makes the load, for the page.
pub(crate) fn command(requests: u32) -> String {
    format!("redis-benchmark -t set,get -n {requests} -q -c {CLIENTS}")
}

/// Measures every tracer `rounds` times, one after the other.
pub(crate) fn measure(tools: &Tools, rounds: u32, requests: u32) -> Result<Throughput> {
    let mut throughput = Throughput::new();
    for round in 1..=rounds {
        for tracer in tracer::ALL {
            let server = Server::start(tools, tracer)?;
            let _attached = tools.attach(tracer, server.child.id())?;
            let [set, get] = load(server.port, requests)?;
            println!("    round {round}: {tracer:?}: SET {set:.0}/s, GET {get:.0}/s");
            let [sets, gets] = throughput.entry(tracer).or_default();
            sets.push(set);
            gets.push(get);
        }
    }
    Ok(throughput)
}

/// A redis-server on a free port; it is ended when this value is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(tools: &Tools, tracer: Tracer) -> Result<Self> {
        // Free at this moment; the server would say so if another took it in between.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let child = tools
            .launch(tracer, "redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.to_string()])
            .env("LD_PRELOAD", ALLOCATOR)
            .current_dir(&tools.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("could not start redis-server")?;
        let server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline {
                bail!("redis-server does not answer on port {port}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server is asked itself, since it may be a child of heaptrack's script.
        let mut client = Command::new("redis-cli");
        client.args(["-p", &self.port.to_string(), "shutdown", "nosave"]);
        if client.stderr(Stdio::null()).status().is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

/// Requests per second: SET, GET.
pub(super) fn load(port: u16, requests: u32) -> Result<[f64; 2]> {
    let (port, requests) = (port.to_string(), requests.to_string());
    let text = output(Command::new("redis-benchmark").args([
        "-p", &port, "-t", "set,get", "-n", &requests, "-q", "-c", CLIENTS,
    ]))?;
    // The progress is overwritten on the terminal by carriage returns; the last state of a line is its result.
    let result = |name: &str| -> Result<f64> {
        text.split(['\r', '\n'])
            .filter_map(|line| {
                line.trim()
                    .strip_prefix(name)?
                    .split_once(" requests per second")
            })
            .filter_map(|(number, _)| number.trim().parse().ok())
            .next_back()
            .with_context(|| format!("redis-benchmark told no result for {name}"))
    };
    Ok([result("SET:")?, result("GET:")?])
}
