//! What each thread waits for: its system call, with the arguments resolved to objects.
//!
//! Source: docs/design/inspect.md, "Waits".

mod addresses;
mod before;
mod files;
mod resolve;

use std::collections::HashMap;

use rustix::io::Errno;

use crate::collect::{Found, since_boot_ms};
use crate::join::Join;
use crate::kind::{Kind, Kinds};
use crate::model::{Process, Thread, Wait, WaitOn};
use crate::source::borrowed::Lender;
use crate::source::folder::Folder;
use crate::source::memory::Memory;
use crate::source::numbers::small;
use crate::source::process;
use crate::source::schedule::{self, Clocks, UNCERTAIN_MS};
use crate::source::system_call::{self, Line, Shape};
use crate::text::escaped;

pub(crate) use before::Before;

/// What was seen of threads that wait, to look again.
pub(crate) struct Looked {
    entries: Vec<Entry>,
}

/// A thread that waits.
struct Entry {
    /// The process's place.
    at: usize,
    /// The thread's place in it.
    thread: usize,
    /// Its `syscall`, as it was.
    line: Vec<u8>,
    /// Its `wchan`, as it was.
    channel: Option<String>,
    /// Its `schedstat`, as it was.
    runs: Option<u64>,
    /// Where it ran last.
    processor: u32,
}

/// What a thread sleeps in, as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asleep {
    /// Its `syscall`; empty if that could not be read.
    line: Vec<u8>,
    channel: Option<String>,
    pub(crate) runs: Option<u64>,
    processor: u32,
    /// It was not given a processor since the look before.
    is_as_before: bool,
}

impl Asleep {
    /// Whether it sleeps where it slept at the look before, without having run.
    pub(crate) fn is_as_before(&self) -> bool {
        self.is_as_before && self.runs.is_some()
    }
}

const SOCKETS: [Kind; 4] = [Kind::Unix, Kind::Tcp, Kind::Udp, Kind::Socket];

/// Which processes map which memory, by device and inode.
pub(crate) type Mappers = HashMap<(u64, u64), Vec<usize>>;

/// Resolves the waits of all threads. Not `whole`: only of those that make an object known, which others do not need.
pub(crate) fn look(join: &mut Join, found: &mut [Found], whole: bool) -> Looked {
    let mut looked = Looked { entries: Vec::new() };
    let mut mappers = Mappers::new();
    let mut lender = Lender::default();
    for (at, one) in found.iter().enumerate() {
        for mapped in &one.mapped {
            let list = mappers.entry((mapped.device, mapped.inode)).or_default();
            if list.last() != Some(&at) {
                list.push(at);
            }
        }
    }
    for at in 0..found.len() {
        let mut inside = Inside::of(&found[at].process);
        for (thread, asleep) in std::mem::take(&mut found[at].asleep).into_iter().enumerate() {
            if !whole && !makes_an_object(&asleep.line, join.kinds) {
                continue;
            }
            let wait = wait(join, found, &mappers, at, &asleep, &mut inside, &mut lender);
            let Some(wait) = wait else { continue };
            let Some(slot) = found[at].process.threads.get_mut(thread) else { continue };
            slot.wait = Some(wait);
            let Asleep { line, channel, runs, processor, .. } = asleep;
            looked.entries.push(Entry { at, thread, line, channel, runs, processor });
        }
    }
    if !whole {
        for one in found {
            one.process.threads.clear();
        }
    }
    looked
}

/// Processes of which it could be read what their threads sleep in.
pub(crate) fn readable(found: &[Found]) -> u32 {
    // One that runs, or has ended, waits for nothing.
    let seen =
        |asleep: &[Asleep]| asleep.is_empty() || asleep.iter().any(|one| !one.line.is_empty());
    let count = found.iter().filter(|one| !one.process.kernel && seen(&one.asleep)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn makes_an_object(line: &[u8], kinds: Kinds) -> bool {
    let Some(Line::Inside(inside)) = system_call::line(line) else { return false };
    match system_call::row(inside.number) {
        Some((_, Shape::Futex | Shape::FutexWaitv)) => kinds.has(Kind::Futex),
        Some((_, Shape::Flock | Shape::Fcntl)) => kinds.has(Kind::Lock),
        Some((_, Shape::Open(..))) => kinds.has(Kind::Fifo),
        _ => false,
    }
}

/// The descriptor of a file that a thread sleeps on to lock it, or does something else that looks alike.
pub(crate) fn locking(asleep: &Asleep) -> Option<i32> {
    let Line::Inside(inside) = system_call::line(&asleep.line)? else { return None };
    let (_, shape) = system_call::row(inside.number)?;
    matches!(shape, Shape::Flock | Shape::Fcntl).then(|| inside.small(0))
}

fn is_opening(line: &[u8]) -> bool {
    let Some(Line::Inside(inside)) = system_call::line(line) else { return false };
    matches!(system_call::row(inside.number), Some((_, Shape::Open(..))))
}

/// Reads what the threads of a process sleep in, into the process and beside it. `head` is what its `stat` said of the first: how many
/// there are, and where it ran last.
pub(crate) fn read(
    folder: &Folder,
    process: &mut Process,
    head: (u32, u32),
    whole: bool,
    before: Option<&Before>,
    buffer: &mut Vec<u8>,
) -> Vec<Asleep> {
    let (count, processor) = head;
    let mut all = Vec::new();
    let inside = process.inner_pid.is_some();
    if count <= 1 {
        process.threads = vec![Thread {
            tid: process.pid,
            name: process.name.clone(),
            inner_tid: process.inner_pid,
            state: process.state,
            wait: None,
        }];
        let before = before.and_then(|before| before.of(process, process.pid));
        all.push(Asleep { processor, ..asleep(folder, whole, before, buffer) });
        return all;
    }
    let Ok(tasks) = folder.within(c"task") else { return all };
    let _ = tasks.names(|name| {
        let Some(tid) = small(name.to_bytes()) else { return };
        let Ok(task) = tasks.within(name) else { return };
        if let Some((thread, processor)) = thread(&task, tid, inside, whole, buffer) {
            let before = before.and_then(|before| before.of(process, tid));
            process.threads.push(thread);
            all.push(Asleep { processor, ..asleep(&task, whole, before, buffer) });
        }
    });
    all
}

fn thread(
    task: &Folder,
    tid: u32,
    inside: bool,
    whole: bool,
    buffer: &mut Vec<u8>,
) -> Option<(Thread, u32)> {
    let mut thread = Thread { tid, ..Thread::default() };
    let mut processor = 0;
    if whole {
        task.read_record(c"stat", buffer).ok()?;
        let stat = process::stat(buffer)?;
        (thread.name, thread.state, processor) = (stat.name, stat.state, stat.processor);
    }
    if inside && task.read_record(c"status", buffer).is_ok() {
        let status = process::status(buffer);
        thread.inner_tid = status.and_then(|status| status.inner_pids.last().copied());
    }
    Some((thread, processor))
}

fn asleep(
    task: &Folder,
    whole: bool,
    before: Option<&before::Slept>,
    buffer: &mut Vec<u8>,
) -> Asleep {
    let mut asleep = Asleep::default();
    if whole {
        asleep.runs =
            task.read_record(c"schedstat", buffer).ok().and_then(|()| schedule::runs(buffer));
        // Who was not given a processor since is where it was.
        if let Some(slept) = before.filter(|slept| Some(slept.runs) == asleep.runs) {
            asleep.line.clone_from(&slept.line);
            asleep.channel.clone_from(&slept.channel);
            asleep.is_as_before = true;
            return asleep;
        }
    }
    if task.read_record(c"syscall", buffer).is_ok() {
        asleep.line.clone_from(buffer);
    }
    // Where an opening sleeps says whether it is a FIFO's, before its path is looked at.
    if whole || is_opening(&asleep.line) {
        let channel = task.read_record(c"wchan", buffer).ok().map(|()| escaped(buffer));
        asleep.channel = channel.filter(|channel| !channel.is_empty() && channel != "0");
    }
    asleep
}

/// A process's folder and memory, opened when they are needed first.
pub(crate) struct Inside {
    pid: u32,
    started_ticks: u64,
    opened: Option<(Option<Folder>, Memory)>,
}

impl Inside {
    fn of(process: &Process) -> Self {
        Self { pid: process.pid, started_ticks: process.started_ticks, opened: None }
    }

    fn opened(&mut self) -> &(Option<Folder>, Memory) {
        let (pid, started_ticks) = (self.pid, self.started_ticks);
        self.opened.get_or_insert_with(|| {
            let folder = Folder::of_process(pid, started_ticks);
            let memory = folder.as_ref().map_or_else(Memory::none, Memory::of);
            (folder, memory)
        })
    }

    pub(crate) fn memory(&mut self) -> &Memory {
        &self.opened().1
    }

    pub(crate) fn folder(&mut self) -> Option<&Folder> {
        self.opened().0.as_ref()
    }
}

fn wait(
    join: &mut Join,
    found: &[Found],
    mappers: &Mappers,
    at: usize,
    asleep: &Asleep,
    process: &mut Inside,
    lender: &mut Lender,
) -> Option<Wait> {
    let blank = |call: &str, on: WaitOn, timed: bool| Wait {
        call: call.to_owned(),
        channel: asleep.channel.clone(),
        on,
        timed,
        doubt: None,
        steady: None,
        since_ms: None,
    };
    let inside = match system_call::line(&asleep.line) {
        Some(Line::Running) => return None,
        Some(Line::Outside) => {
            return Some(blank("", WaitOn::Other("in no system call".to_owned()), false));
        }
        Some(Line::Inside(inside)) => inside,
        // Not readable: the channel at least says that it sleeps.
        None => {
            let channel = asleep.channel.as_ref()?;
            return Some(blank("", WaitOn::Other(format!("in the kernel's {channel}")), false));
        }
    };
    if inside.is_compatible() {
        return Some(blank("", WaitOn::Other("in a 32-bit program's call".to_owned()), false));
    }
    let Some((name, shape)) = system_call::row(inside.number) else {
        let (name, text) = match system_call::name(inside.number) {
            Some(name) => (name, String::new()),
            None => ("", format!("in system call {}", inside.number)),
        };
        return Some(blank(name, WaitOn::Other(text), false));
    };
    let channel = asleep.channel.as_deref().unwrap_or_default();
    let mut resolve = resolve::Resolve { join, found, mappers, at, process, channel };
    let (on, timed) = resolve.wait(&inside, shape);
    let mut wait = blank(name, on, timed);
    if let Some((sends, option)) = time_limit(shape) {
        match gives_up(join, found[at].process.pid, &wait.on, sends, lender) {
            Ok(gives_up) => wait.timed |= gives_up,
            Err(error) => {
                wait.doubt =
                    Some(format!("whether its socket has {option} cannot be read ({error})"));
            }
        }
    }
    Some(wait)
}

/// Which option of a socket limits the time of a call, and whether that is the one for what is sent.
fn time_limit(shape: Shape) -> Option<(bool, &'static str)> {
    match shape {
        Shape::Read | Shape::Accept => Some((false, "SO_RCVTIMEO")),
        Shape::Write | Shape::SendTo | Shape::SendMessage | Shape::Connect => {
            Some((true, "SO_SNDTIMEO"))
        }
        _ => None,
    }
}

/// Whether the socket that somebody sleeps on gives up by itself.
fn gives_up(
    join: &Join,
    pid: u32,
    on: &WaitOn,
    sends: bool,
    lender: &mut Lender,
) -> Result<bool, Errno> {
    let WaitOn::Objects(targets) = on else { return Ok(false) };
    let Some(fd) = targets.first().and_then(|target| target.fd) else { return Ok(false) };
    let Some(at) = join.by_descriptor(pid, fd) else { return Ok(false) };
    let object = &join.objects[at];
    let inode = object.id.rsplit(':').next().and_then(|number| number.parse().ok());
    match inode.filter(|_| SOCKETS.contains(&object.kind)) {
        Some(inode) => lender.gives_up((pid, fd), inode, sends),
        None => Ok(false),
    }
}

impl Looked {
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
            let runs = task.read_record(c"schedstat", &mut buffer).ok();
            let runs = runs.and_then(|()| schedule::runs(&buffer));
            let mut steady = runs == entry.runs;
            if steady && !entry.line.is_empty() {
                steady = task.read_record(c"syscall", &mut buffer).is_ok() && buffer == entry.line;
            }
            wait.steady = Some(steady);
            if steady && task.read_record(c"sched", &mut buffer).is_ok() {
                let then = schedule::last_ran_ms(&buffer);
                let since = then.and_then(|then| clocks.since_ms(entry.processor, then));
                wait.since_ms = since.map(|since| (since, UNCERTAIN_MS));
            }
        }
    }
}
