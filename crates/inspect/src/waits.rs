//! What each thread waits for: its system call, with the arguments resolved to objects.
//!
//! Source: docs/design/inspect.md, "Waits".

mod files;
mod resolve;

use std::collections::HashMap;

use crate::collect::Found;
use crate::join::Join;
use crate::model::{Thread, Wait, WaitOn};
use crate::source::folder::Folder;
use crate::source::memory::Memory;
use crate::source::process;
use crate::source::schedule::{self, Clocks, UNCERTAIN_MS};
use crate::source::system_call::{self, Line};
use crate::text::escaped;

/// What was seen of threads that wait, to look again.
pub(crate) struct Looked {
    entries: Vec<Entry>,
    readable: u32,
}

/// A thread that waits.
struct Entry {
    /// The process's place.
    at: usize,
    /// The thread's place in it.
    thread: usize,
    /// Its `syscall`, as it was.
    line: Vec<u8>,
    /// Its `schedstat`, as it was.
    runs: Option<u64>,
    /// Where it ran last.
    processor: u32,
}

/// A thread as it was read.
struct Raw {
    line: Vec<u8>,
    channel: Option<String>,
    runs: Option<u64>,
    processor: u32,
}

/// Which processes map which memory, by device and inode.
pub(crate) type Mappers = HashMap<(u64, u64), Vec<usize>>;

/// Reads all threads, and resolves their waits.
pub(crate) fn look(join: &mut Join, found: &mut [Found]) -> Looked {
    let mut looked = Looked { entries: Vec::new(), readable: 0 };
    let mut raw = Vec::with_capacity(found.len());
    for one in found.iter_mut() {
        let mut buffer = Vec::new();
        let threads = read(one, &mut buffer);
        // One that runs, or has ended, waits for nothing.
        let seen = threads.is_empty() || threads.iter().any(|raw| !raw.line.is_empty());
        looked.readable += u32::from(!one.process.kernel && seen);
        raw.push(threads);
    }
    let mut mappers = Mappers::new();
    for (at, one) in found.iter().enumerate() {
        for mapped in &one.mapped {
            let list = mappers.entry((mapped.device, mapped.inode)).or_default();
            if list.last() != Some(&at) {
                list.push(at);
            }
        }
    }
    for (at, threads) in raw.into_iter().enumerate() {
        let mut opened: Option<(Folder, Memory)> = None;
        for (thread, raw) in threads.into_iter().enumerate() {
            let Some(wait) = wait(join, found, &mappers, at, &raw, &mut opened) else { continue };
            found[at].process.threads[thread].wait = Some(wait);
            looked.entries.push(Entry {
                at,
                thread,
                line: raw.line,
                runs: raw.runs,
                processor: raw.processor,
            });
        }
    }
    looked
}

fn read(one: &mut Found, buffer: &mut Vec<u8>) -> Vec<Raw> {
    if one.process.kernel || one.process.is_zombie() {
        return Vec::new();
    }
    let pid = one.process.pid;
    let Ok(folder) = Folder::open(&format!("/proc/{pid}")) else { return Vec::new() };
    let mut threads = Vec::new();
    let mut raw = Vec::new();
    let inside = one.process.inner_pid.is_some();
    if one.threads <= 1 {
        if let Some((thread, of)) = read_one(&folder, pid, inside, buffer) {
            threads.push(thread);
            raw.push(of);
        }
    } else if let Ok(tasks) = folder.within("task") {
        let mut tids = Vec::new();
        let _ = tasks.numbers(|tid| tids.push(tid));
        for tid in tids {
            let Ok(task) = tasks.within(&tid.to_string()) else { continue };
            if let Some((thread, of)) = read_one(&task, tid, inside, buffer) {
                threads.push(thread);
                raw.push(of);
            }
        }
    }
    one.process.threads = threads;
    raw
}

fn read_one(task: &Folder, tid: u32, inside: bool, buffer: &mut Vec<u8>) -> Option<(Thread, Raw)> {
    task.read("stat", buffer).ok()?;
    let stat = process::stat(buffer)?;
    let mut inner_tid = None;
    if inside && task.read("status", buffer).is_ok() {
        inner_tid = process::status(buffer).and_then(|status| status.inner_pids.last().copied());
    }
    let runs = task.read("schedstat", buffer).ok().and_then(|()| schedule::runs(buffer));
    let mut line = Vec::new();
    let _ = task.read("syscall", &mut line);
    let channel = task.read("wchan", buffer).ok().map(|()| escaped(buffer));
    let channel = channel.filter(|channel| !channel.is_empty() && channel != "0");
    let thread = Thread { tid, name: stat.name, inner_tid, state: stat.state, wait: None };
    Some((thread, Raw { line, channel, runs, processor: stat.processor }))
}

fn wait(
    join: &mut Join,
    found: &[Found],
    mappers: &Mappers,
    at: usize,
    raw: &Raw,
    opened: &mut Option<(Folder, Memory)>,
) -> Option<Wait> {
    let blank = |call: &str, on: WaitOn, timed: bool| Wait {
        call: call.to_owned(),
        channel: raw.channel.clone(),
        on,
        timed,
        steady: None,
        since_ms: None,
    };
    let inside = match system_call::line(&raw.line) {
        Some(Line::Running) => return None,
        Some(Line::Outside) => {
            return Some(blank("", WaitOn::Other("in no system call".to_owned()), false));
        }
        Some(Line::Inside(inside)) => inside,
        // Not readable: the channel at least says that it sleeps.
        None => {
            let channel = raw.channel.as_ref()?;
            return Some(blank("", WaitOn::Other(format!("in the kernel's {channel}")), false));
        }
    };
    if inside.is_compatible() {
        return Some(blank("", WaitOn::Other("a 32-bit program's call".to_owned()), false));
    }
    if opened.is_none() {
        let folder = Folder::open(&format!("/proc/{}", found[at].process.pid)).ok()?;
        let memory = Memory::of(&folder);
        *opened = Some((folder, memory));
    }
    let (folder, memory) = opened.as_ref()?;
    let Some((name, shape)) = system_call::row(inside.number) else {
        let text = format!("system call {}", inside.number);
        return Some(blank("", WaitOn::Other(text), false));
    };
    let channel = raw.channel.as_deref().unwrap_or_default();
    let mut resolve = resolve::Resolve { join, found, mappers, at, folder, memory, channel };
    let (on, timed) = resolve.wait(&inside, shape);
    Some(blank(name, on, timed))
}

impl Looked {
    /// Processes whose waits could be read.
    pub(crate) fn readable(&self) -> u32 {
        self.readable
    }

    /// Looks again: who is in the same call, and did not run meanwhile, waits for real. Since when, too.
    pub(crate) fn again(&mut self, found: &mut [Found]) {
        let mut clocks = Clocks::default();
        let mut buffer = Vec::new();
        for entry in &self.entries {
            let one = &mut found[entry.at].process;
            let pid = one.pid;
            let Some(thread) = one.threads.get_mut(entry.thread) else { continue };
            let Some(wait) = &mut thread.wait else { continue };
            let tid = thread.tid;
            let Ok(task) = Folder::open(&format!("/proc/{pid}/task/{tid}")) else {
                wait.steady = Some(false);
                continue;
            };
            let runs = task.read("schedstat", &mut buffer).ok();
            let runs = runs.and_then(|()| schedule::runs(&buffer));
            let mut steady = runs == entry.runs;
            if steady && !entry.line.is_empty() {
                steady = task.read("syscall", &mut buffer).is_ok() && buffer == entry.line;
            }
            wait.steady = Some(steady);
            if steady && task.read("sched", &mut buffer).is_ok() {
                let then = schedule::last_ran_ms(&buffer);
                let since = then.and_then(|then| clocks.since_ms(entry.processor, then));
                wait.since_ms = since.map(|since| (since, UNCERTAIN_MS));
            }
        }
    }
}
