//! The stacks that gdb finds in a running process at calls of malloc.

use std::{fs, path::Path, process::Command};

use crate::{
    needs::{self, Missing},
    report::Stack,
};

/// A frame as both sides can name it: the file and the offset in it, or the address where no file is mapped.
pub type Place = (String, u64);

/// What gdb does: goes on to some later call of malloc, and prints the addresses of the frames behind it.
const SCRIPT: &str = "
import gdb
for command in ['set pagination off', 'set backtrace past-main on', 'set backtrace limit 200',
                'handle all nostop noprint pass', 'break malloc']:
    gdb.execute(command, to_string=True)
for number in range(COUNT):
    gdb.execute('ignore 1 %d' % (number * 37 % 211), to_string=True)
    gdb.execute('continue', to_string=True)
    frame = gdb.newest_frame().older()
    addresses = []
    while frame:
        if frame.type() != gdb.INLINE_FRAME:
            addresses.append('%x' % frame.pc())
        frame = frame.older()
    print('STACK ' + ' '.join(addresses))
gdb.execute('delete', to_string=True)
gdb.execute('detach', to_string=True)
";

/// The stacks of `count` calls of malloc, from malloc's caller to the root.
///
/// # Errors
///
/// When gdb is missing, or cannot trace or finds nothing.
pub fn stacks(pid: u32, count: usize, folder: &Path) -> Result<Vec<Vec<Place>>, Missing> {
    let gdb = needs::program("gdb")?;
    let script = folder.join("stacks.py");
    let text = SCRIPT.replace("COUNT", &count.to_string());
    fs::write(&script, text).map_err(|error| error.to_string())?;
    let output = Command::new(gdb)
        .args(["-nx", "-batch", "-p", &pid.to_string(), "-x"])
        .arg(&script)
        .env_remove("DEBUGINFOD_URLS")
        .output()
        .map_err(|error| error.to_string())?;
    let mappings = mappings(pid)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.strip_prefix("STACK "));
    let stacks: Vec<Vec<Place>> = lines
        .map(|line| {
            line.split(' ')
                .filter_map(|address| u64::from_str_radix(address, 16).ok())
                .map(|address| place(&mappings, address))
                .collect()
        })
        .collect();
    if stacks.len() < count {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("gdb found {} stacks: {errors}", stacks.len()));
    }
    Ok(stacks)
}

/// A stack of memtrace's, in the same terms; inlined functions are left out.
#[must_use]
pub fn places(stack: &Stack) -> Vec<Place> {
    let frames = stack.frames.iter().filter(|frame| !frame.inlined);
    frames
        .map(|frame| {
            let module = frame.module.clone().unwrap_or_default();
            (module.replace("[anon]", ""), frame.offset)
        })
        .collect()
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

fn mappings(pid: u32) -> Result<Vec<Mapping>, Missing> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| error.to_string())?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let offset = words.nth(1)?;
        Some(Mapping {
            start: number(start)?,
            end: number(end)?,
            offset: number(offset)?,
            path: words.nth(2).unwrap_or_default().to_owned(),
        })
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn place(mappings: &[Mapping], address: u64) -> Place {
    let inside = |mapping: &&Mapping| mapping.start <= address && address < mapping.end;
    match mappings.iter().find(inside) {
        Some(mapping) if mapping.path.starts_with('/') => (
            mapping.path.clone(),
            address - mapping.start + mapping.offset,
        ),
        _ => (String::new(), address),
    }
}
