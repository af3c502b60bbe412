//! Fetches debug files from debuginfod servers, where the user has named some.
//!
//! A server is not trusted: what it sends is bounded in size and in time, and counts only if the build id in it is the
//! one that was asked for. One that does not answer is not asked again.

use std::{
    fs::File,
    io,
    time::{Duration, Instant},
};

use ureq::Agent;

use super::{
    cache::Folder,
    debug::{has_build_id, hex},
};

/// Bytes of a debug file, at most. The largest browser's takes 3 GB, and its names alone would take minutes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Bytes that fetched files take on disk, at most.
const MAX_CACHE_BYTES: u64 = 4 << 30;

/// How long a run waits for servers.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and again for the head of an answer.
    pub answer: Duration,
    /// For everything that a run fetches together.
    pub all: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(3),
            all: Duration::from_mins(1),
        }
    }
}

/// Why a server has not given a debug file.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it has none")]
    NotThere,
    #[error("it sent a file of another build")]
    OtherBuild,
    #[error("{0}")]
    Server(#[from] Box<ureq::Error>),
    #[error("{0}")]
    Io(#[from] io::Error),
}

struct Server {
    url: String,
    gave_up: bool,
}

/// The servers, and where what they give is kept.
pub struct Debuginfod {
    servers: Vec<Server>,
    folder: Folder,
    agent: Agent,
    patience: Patience,
    spent: Duration,
}

impl Debuginfod {
    /// With servers as `DEBUGINFOD_URLS` names them: separated by spaces.
    #[must_use]
    pub fn new(urls: &str, folder: Folder, patience: Patience) -> Self {
        let servers = urls
            .split_whitespace()
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .map(|url| Server {
                url: url.trim_end_matches('/').to_owned(),
                gave_up: false,
            })
            .collect();
        let agent = Agent::config_builder()
            .timeout_resolve(Some(patience.answer))
            .timeout_connect(Some(patience.answer))
            .timeout_recv_response(Some(patience.answer))
            .user_agent(concat!("memtrace/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self {
            servers,
            folder,
            agent,
            patience,
            spent: Duration::ZERO,
        }
    }

    /// The debug file of the build, from the cache or from the first server that has it. `notice` is told what is
    /// fetched from where, and how that ended.
    pub fn fetch(
        &mut self,
        build_id: &[u8],
        module: &str,
        notice: &mut dyn FnMut(&str),
    ) -> Option<File> {
        let name = format!("{}.debug", hex(build_id));
        if let Ok(file) = self.folder.read(&name, MAX_FILE_BYTES)
            && has_build_id(&file, build_id)
        {
            return Some(file);
        }
        for server in &mut self.servers {
            let left = self.patience.all.saturating_sub(self.spent);
            if server.gave_up || left.is_zero() {
                continue;
            }
            let began = Instant::now();
            notice(&format!(
                "asking {} for the debug file of {module}",
                server.url
            ));
            let url = format!("{}/buildid/{}/debuginfo", server.url, hex(build_id));
            let result = fetch(&self.agent, &url, left, build_id, &self.folder, &name);
            let took = began.elapsed();
            self.spent += took;
            let seconds = took.as_secs_f64();
            match result {
                Ok((file, bytes)) => {
                    notice(&format!(
                        "fetched {:.1} MB in {seconds:.1} s",
                        crate::report::units::float(bytes) / 1e6
                    ));
                    let _kept_too_much = self.folder.shrink(MAX_CACHE_BYTES);
                    return Some(file);
                }
                Err(error) => {
                    server.gave_up = matches!(error, FetchError::Server(_) | FetchError::Io(_));
                    let then = if server.gave_up {
                        "; it is not asked again"
                    } else {
                        ""
                    };
                    notice(&format!("not fetched ({seconds:.1} s): {error}{then}"));
                }
            }
        }
        None
    }
}

fn fetch(
    agent: &Agent,
    url: &str,
    left: Duration,
    build_id: &[u8],
    folder: &Folder,
    name: &str,
) -> Result<(File, u64), FetchError> {
    let request = agent.get(url).config().timeout_global(Some(left)).build();
    let answer = match request.call() {
        Ok(answer) => answer,
        Err(ureq::Error::StatusCode(404)) => return Err(FetchError::NotThere),
        Err(error) => return Err(Box::new(error).into()),
    };
    let mut body = answer
        .into_body()
        .into_with_config()
        .limit(MAX_FILE_BYTES)
        .reader();
    let mut new = folder.create(name)?;
    let bytes = io::copy(&mut body, new.file())?;
    if !has_build_id(new.file(), build_id) {
        return Err(FetchError::OtherBuild);
    }
    Ok((new.keep()?, bytes))
}

#[cfg(test)]
mod tests;
