//! Bounded load on the demo's server: a fixed number of requests per second of each kind.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What is asked for, and how often per second.
const KINDS: [(&str, u32); 3] = [("/login", 100), ("/page", 200), ("/search", 100)];

/// Clients that send requests until they are dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts one client for each kind of request.
    pub(crate) fn start(port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self {
            stop: Arc::clone(&stop),
            clients: Vec::new(),
        };
        for (path, per_second) in KINDS {
            let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .context("could not connect to the server")?;
            let stop = Arc::clone(&stop);
            // A client whose connection breaks has nothing more to do: the server has ended.
            let client = move || drop(send(connection, path, per_second, &stop));
            load.clients.push(thread::spawn(client));
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            drop(client.join());
        }
    }
}

fn send(
    mut connection: TcpStream,
    path: &str,
    per_second: u32,
    stop: &AtomicBool,
) -> io::Result<()> {
    let start = Instant::now();
    let mut reply = [0; 512];
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let request = format!("GET {path}/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        if connection.read(&mut reply)? == 0 {
            break;
        }
        let due = start + Duration::from_secs(1) * number / per_second;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
