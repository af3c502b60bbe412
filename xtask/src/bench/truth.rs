//! How many stacks of real programs are whole, and why the others are cut.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{redis, tracer::Tools};
use crate::load::Load;
use crate::shell::{as_root, is_installed, line, run};

/// How long a program and its tracer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long nginx is under load.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// What memtrace saw of a program.
pub(super) struct Truth {
    /// The program.
    pub(super) program: &'static str,
    /// What it did.
    pub(super) load: &'static str,
    /// Allocations, whole stacks or not.
    pub(super) allocations: u64,
    /// Allocations whose stack is cut, by reason.
    pub(super) cut: BTreeMap<String, u64>,
}

impl Truth {
    /// The share of whole stacks.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    pub(super) fn whole_percent(&self) -> f64 {
        let cut: u64 = self.cut.values().sum();
        100.0 * (self.allocations - cut) as f64 / self.allocations as f64
    }
}

/// How a program comes to its end.
enum Work {
    /// By itself.
    Ends,
    /// redis-server: by a benchmark and a command.
    Redis,
    /// nginx: by requests and a command.
    Nginx,
}

struct Program {
    name: &'static str,
    load: &'static str,
    arguments: Vec<String>,
    work: Work,
}

const PYTHON: &str = "
import json, re, sqlite3, threading, decimal
def work():
    for i in range(300):
        text = json.dumps({str(k): [k] * 10 for k in range(50)})
        json.loads(text); re.findall('[0-9]+', text); sorted(text.split(','), key=len)
    base = sqlite3.connect(':memory:')
    base.execute('create table t(a, b)')
    base.executemany('insert into t values(?, ?)', [(i, str(i)) for i in range(2000)])
    list(base.execute('select b, count(*) from t group by b'))
work()
threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
";

const NODE: &str = "
const zlib = require('zlib'), crypto = require('crypto');
let kept = [];
for (let i = 0; i < 300; i++) {
  const text = JSON.stringify(Array.from({length: 200}, (_, k) => ({k, text: 'x'.repeat(k)})));
  kept.push(zlib.gzipSync(text)); JSON.parse(text);
  crypto.createHash('sha256').update(text).digest('hex');
}
Promise.all(Array.from({length: 50}, () => new Promise(done => zlib.gzip('y'.repeat(10000), done))));
";

const JAVA: &str = "
import java.util.*;
public class Work {
  public static void main(String[] arguments) throws Exception {
    List<byte[]> kept = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      var output = new java.io.ByteArrayOutputStream();
      try (var zip = new java.util.zip.GZIPOutputStream(output)) { zip.write(new byte[20000]); }
      kept.add(output.toByteArray());
      java.nio.ByteBuffer.allocateDirect(1000);
    }
  }
}
";

/// Traces each program that is installed.
pub(super) fn measure(tools: &Tools) -> Result<Vec<Truth>> {
    let mut truths = Vec::new();
    for program in programs(&tools.folder)? {
        let found = program.arguments.first();
        if !found.is_some_and(|name| is_installed(name) || Path::new(name).is_file()) {
            println!("    {} is not installed", program.name);
            continue;
        }
        let truth = trace(tools, &program).with_context(|| program.name)?;
        println!(
            "    {}: {:.3} % of {} whole",
            truth.program,
            truth.whole_percent(),
            truth.allocations
        );
        truths.push(truth);
    }
    Ok(truths)
}

fn programs(folder: &Path) -> Result<Vec<Program>> {
    let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect();
    let java = folder.join("Work.java");
    fs::write(&java, JAVA)?;
    Ok(vec![
        Program {
            name: "redis-server",
            load: "redis-benchmark, 100,000 requests each of SET and GET",
            arguments: words(&["redis-server", "--bind", "127.0.0.1", "--save", ""]),
            work: Work::Redis,
        },
        Program {
            name: "nginx",
            load: "400 requests a second",
            arguments: words(&["/usr/sbin/nginx"]),
            work: Work::Nginx,
        },
        Program {
            name: "python3",
            load: "json, re, sqlite3, in four threads, on malloc",
            arguments: words(&["/usr/bin/python3", "-c", PYTHON]),
            work: Work::Ends,
        },
        Program {
            name: "node",
            load: "JSON, gzip, SHA-256",
            arguments: words(&["node", "-e", NODE]),
            work: Work::Ends,
        },
        Program {
            name: "java",
            load: "javac, then gzip and direct buffers",
            arguments: words(&["java", "-Xmx128m", &java.display().to_string()]),
            work: Work::Ends,
        },
    ])
}

/// Runs a program under memtrace, from its first instruction to its end.
fn trace(tools: &Tools, program: &Program) -> Result<Truth> {
    let folder = &tools.folder;
    let json = folder.join(format!("{}.json", program.name));
    // Free at this moment; the server would say so if another took it in between.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let log = fs::File::create(folder.join(format!("{}.log", program.name)))?;
    let mut command = as_root("env");
    command
        .arg("PYTHONMALLOC=malloc")
        .arg(&tools.memtrace)
        .arg("--json")
        .arg(&json)
        .arg("--")
        .args(&program.arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let stop = match program.work {
        Work::Ends => None,
        Work::Redis => {
            command.args(["--port", &port.to_string()]);
            let mut stop = Command::new("redis-cli");
            stop.args(["-p", &port.to_string(), "shutdown", "nosave"]);
            Some(stop)
        }
        Work::Nginx => {
            let configuration = nginx_configuration(folder, port)?;
            command.args(&configuration);
            let mut stop = as_root("/usr/sbin/nginx");
            stop.args(&configuration).args(["-s", "stop"]);
            Some(stop)
        }
    };
    let mut traced = command
        .spawn()
        .with_context(|| format!("could not start `{}`", line(&command)))?;
    if let Some(mut stop) = stop {
        wait_for_port(&mut traced, port)?;
        if matches!(program.work, Work::Redis) {
            redis::load(port, 100_000)?;
        } else {
            let load = Load::start(port)?;
            thread::sleep(LOAD_TIME);
            drop(load);
        }
        run(stop.stdout(Stdio::null()).stderr(Stdio::null()))?;
    }
    wait(&mut traced)?;
    read(program, &json)
}

fn nginx_configuration(folder: &Path, port: u16) -> Result<[String; 6]> {
    let prefix = folder.join("nginx");
    fs::create_dir_all(&prefix)?;
    let place = prefix.display();
    let path = prefix.join("nginx.conf");
    let mut file = fs::File::create(&path)?;
    write!(
        file,
        "user root; pid {place}/pid; master_process off; daemon off; events {{}}\n\
         http {{ access_log off; keepalive_requests 100000; client_body_temp_path {place}/body;\n\
         proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi;\n\
         scgi_temp_path {place}/scgi; gzip on;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 'served'; }} }} }}\n"
    )?;
    let path = path.display().to_string();
    Ok(["-e", "stderr", "-p", &place.to_string(), "-c", &path].map(str::to_owned))
}

fn wait_for_port(traced: &mut Child, port: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = traced.try_wait()? {
            bail!("it ended at once: {status}");
        }
        if Instant::now() > deadline {
            bail!("it does not answer on port {port}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn wait(traced: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while traced.try_wait()?.is_none() {
        if Instant::now() > deadline {
            bail!("it does not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn read(program: &Program, json: &Path) -> Result<Truth> {
    let text =
        fs::read_to_string(json).with_context(|| format!("could not read {}", json.display()))?;
    let report: Value = serde_json::from_str(&text)?;
    let mut truth = Truth {
        program: program.name,
        load: program.load,
        allocations: 0,
        cut: BTreeMap::new(),
    };
    let stacks = report["stacks"]
        .as_array()
        .context("the report has no stacks")?;
    for stack in stacks {
        let count = stack["total_count"].as_u64().unwrap_or(0);
        truth.allocations += count;
        if let Some(reason) = stack["truncated"].as_str() {
            *truth.cut.entry(reason.to_owned()).or_default() += count;
        }
    }
    Ok(truth)
}
