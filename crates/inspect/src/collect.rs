//! Looking at the machine: reads what a request needs, on all processors, and joins it.
//!
//! Source: docs/design/inspect.md, "Reading". Processes end while they are read: what is missing then is left out.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::join::{Asks, Join, Tables};
use crate::kept::Kept;
use crate::kind::{Kind, Kinds};
use crate::model::{Coverage, FORMAT, Namespaces, Process, Snapshot, Viewer};
use crate::source::descriptors::{self, Descriptor, Plain, Search, What};
use crate::source::folder::Folder;
use crate::source::maps::{self, Mapped};
use crate::source::places::{self, Place};
use crate::source::rings::{self, Ring, Rings};
use crate::source::{io, limits, locks, process};
use crate::text::{counted, escaped};
use crate::threads;
use crate::waits::{self, Asleep, Before};

/// What is asked of the machine. The less, the faster.
#[derive(Clone, Debug)]
pub struct Request {
    /// Kinds of objects.
    pub(crate) kinds: Kinds,
    /// What each thread waits for.
    pub(crate) waits: Waits,
    /// What can be left out of a list: what epoll watches, which signals a process handles.
    pub(crate) details: bool,
    /// How long after the first look at waits a second one follows.
    pub(crate) gap: Option<Duration>,
    /// Command lines and control groups.
    pub(crate) commands: bool,
    /// What processes read and write.
    pub(crate) traffic: bool,
    /// Limits and what the kernel can do.
    pub(crate) limits: bool,
    /// What only those need who look for leaks: where files of sockets and FIFOs are looked for.
    pub(crate) places: Option<Vec<Place>>,
}

/// Which waits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// None.
    No,
    /// Of those who sleep on a word, for a lock, or in the opening of a FIFO: it is they who make these objects known.
    OfObjects,
    /// All.
    All,
}

/// What was read of one process.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) process: Process,
    /// What its threads sleep in, in the order of its threads.
    pub(crate) asleep: Vec<Asleep>,
    pub(crate) descriptors: Vec<Descriptor>,
    /// Its files that may have locks, if that is of interest.
    pub(crate) files: Vec<Plain>,
    pub(crate) mapped: Vec<Mapped>,
    /// Its Unix sockets in which descriptors are in flight, if that is of interest: descriptor, inode, how many.
    pub(crate) in_flight: Vec<(i32, u64, u32)>,
    /// Its io_urings with what is registered with them, by descriptor, if that is of interest.
    pub(crate) rings: Vec<(i32, Ring)>,
    /// What of it the next look may take for true.
    pub(crate) kept: Option<Kept>,
}

/// Kinds of which each network namespace has its own.
const OF_NETWORK: &[Kind] = &[Kind::Unix, Kind::Tcp, Kind::Udp, Kind::Socket];
/// Kinds of which each IPC namespace has its own.
const OF_IPC: &[Kind] = &[Kind::Mq, Kind::SysvMsg, Kind::SysvSem, Kind::SysvShm];
/// Kinds of which each mount namespace can have its own.
const OF_MOUNTS: &[Kind] = &[Kind::PosixShm, Kind::PosixSem];
/// Kinds that only show where somebody sleeps.
const SLEPT_ON: &[Kind] = &[Kind::Futex, Kind::Fifo, Kind::Lock];

const MEMORY: &[Kind] = &[
    Kind::SysvShm,
    Kind::PosixShm,
    Kind::PosixSem,
    Kind::Memfd,
    Kind::Anonymous,
    Kind::Mapping,
    Kind::Futex,
];

/// Below so many processes a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 24;
/// Likewise for pipes and FIFOs that are asked how full they are.
pub(crate) const ASKS_WORTH_A_THREAD: usize = 256;

impl Request {
    /// The objects of these kinds, and the processes, as a list needs them: [`Request::details`] says what is left out.
    #[must_use]
    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let kinds: Kinds = kinds.into_iter().collect();
        let waits = if kinds.has_any(SLEPT_ON) { Waits::OfObjects } else { Waits::No };
        Self {
            kinds,
            waits,
            details: false,
            gap: None,
            commands: false,
            traffic: false,
            limits: false,
            places: None,
        }
    }

    /// Everything, but nobody is looked at twice.
    #[must_use]
    pub fn everything() -> Self {
        Self::of(Kinds::ALL.iter()).commands().waits()
    }

    /// With what each thread waits for. Needs every kind, because a thread can wait for any.
    #[must_use]
    pub fn waits(mut self) -> Self {
        self.kinds = Kinds::ALL;
        self.waits = Waits::All;
        self.details()
    }

    /// With what costs a reading more: what epoll instances, signalfds and inotify instances look out for, the signals that
    /// processes handle, the memory and traffic of sockets.
    #[must_use]
    pub fn details(mut self) -> Self {
        self.details = true;
        self
    }

    /// With command lines and control groups.
    #[must_use]
    pub fn commands(mut self) -> Self {
        self.commands = true;
        self
    }

    /// With what each process has read and written.
    #[must_use]
    pub fn traffic(mut self) -> Self {
        self.traffic = true;
        self.details()
    }

    /// With limits, and what the kernel can do.
    #[must_use]
    pub fn limits(mut self) -> Self {
        self.kinds = Kinds::ALL;
        self.limits = true;
        self.details()
    }

    /// With what [`analysis::leaks`](crate::analysis::leaks()) needs: what is in flight in sockets, private mappings of shared files, and files of
    /// sockets and FIFOs, also in these folders.
    #[must_use]
    pub fn leaks(mut self, folders: &[PathBuf]) -> Self {
        self.places = Some(places::usual(folders));
        self.waits()
    }

    /// Looks at waits a second time after so long: only who did not run meanwhile waits for real. 200 ms is enough.
    #[must_use]
    pub fn twice(mut self, gap: Duration) -> Self {
        self.gap = Some(gap);
        self.waits()
    }

    /// Looks. Blocks for as long as reading takes, and the gap of [`Request::twice`].
    #[must_use]
    pub fn take(&self) -> Snapshot {
        self.look(None)
    }

    /// Looks; with what was seen the last time, not again at what cannot have changed since.
    pub(crate) fn look(&self, before: Option<&mut Before>) -> Snapshot {
        let mut missing = Vec::new();
        let mut pids = Vec::new();
        match Folder::open("/proc").and_then(|proc| proc.numbers(|pid| pids.push(pid))) {
            Ok(()) => {}
            Err(error) => missing.push(format!("no process: /proc cannot be read ({error})")),
        }
        pids.sort_unstable();
        // Who looks again and again is to cost little; who looks once is waited for.
        let alone = before.is_some();
        // The kernel has that wait, ten milliseconds and more, until all processors have taken note.
        let lines = || if self.kinds.has(Kind::Lock) { lock_lines() } else { Vec::new() };
        let (mut found, lines) = both(alone, || self.read_all(&pids, before.as_deref()), lines);
        found.sort_unstable_by_key(|one| one.process.pid);
        locked_files(&mut found, &lines);

        let own = Folder::open("/proc/self").ok();
        let namespace = |name| own.as_ref().and_then(|own| own.namespace(name));
        let viewer = Viewer {
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
            net: namespace("ns/net"),
            ipc: namespace("ns/ipc"),
        };
        let mut join = Join::new(self.kinds, viewer, self.waits == Waits::All, self.details);
        self.join(&mut join, &found, &lines, alone);
        join.fills(&found, alone);
        if self.waits == Waits::All {
            join.flights(&found);
        }
        let mut places = Vec::new();
        if let Some(wanted) = &self.places {
            join.in_flight(&found);
            places = join.places(wanted);
            join.rings(&mut found);
        }
        let mut waits_readable = 0;
        if self.waits != Waits::No {
            waits_readable = waits::readable(&found);
            let mut looked = waits::look(&mut join, &mut found, self.waits == Waits::All);
            match (self.gap, &before) {
                (_, Some(before)) if before.is_something() => looked.compare(&mut found, before),
                (Some(gap), _) => {
                    std::thread::sleep(gap);
                    looked.again(&mut found);
                }
                (None, _) => {}
            }
            if let Some(before) = before {
                *before = looked.remember(&mut found);
            }
        }
        missing.append(&mut join.missing);
        let kinds: Vec<Kind> = self.kinds.iter().collect();
        let objects = join.finish();
        let processes: Vec<Process> = found.into_iter().map(|one| one.process).collect();
        let (mut all_limits, mut features) = (Vec::new(), Vec::new());
        if self.limits {
            all_limits = limits::limits(&limits::Seen { processes: &processes, objects: &objects });
            features = limits::features();
        }
        let mut coverage = coverage(&processes, kinds, self.waits, waits_readable, missing);
        (coverage.in_flight, coverage.places) = (self.places.is_some(), places);
        Snapshot {
            format: FORMAT,
            taken_unix_ms: unix_ms(),
            booted_unix_ms: booted_unix_ms(),
            since_boot_ms: since_boot_ms(),
            machine: machine(),
            viewer,
            coverage,
            processes,
            objects,
            limits: all_limits,
            features,
        }
    }

    /// Joins what was found with what the kernel has in tables.
    fn join(&self, join: &mut Join, found: &[Found], lines: &[locks::Line], alone: bool) {
        let tables = || Tables::of_here(self.kinds, self.details);
        if alone {
            join.processes(found, lines, None);
            join.namespaces(found, tables());
            return join.peers();
        }
        let asks = Asks::default();
        let (send, receive) = mpsc::sync_channel(1);
        let (work, all) = (|| asks.work(), found.iter().map(|one| one.descriptors.len()).sum());
        std::thread::scope(|scope| {
            let asker = asks.asker();
            let first = threads::start(scope, move || {
                let _ = send.send(tables());
                work();
            });
            for _ in 2..threads::count(all, ASKS_WORTH_A_THREAD) {
                let _ = threads::start(scope, work);
            }
            join.processes(found, lines, Some(&asker));
            // Where a user may have no more threads, this one does it all.
            let own = first.ok().and_then(|_| receive.recv().ok()).unwrap_or_else(tables);
            join.namespaces(found, own);
            join.peers();
            drop(asker);
            work();
        });
        join.answered(asks);
    }

    fn search(&self) -> Search {
        let search = Search::new(self.kinds, self.details);
        if self.places.is_some() { search.with_flights() } else { search }
    }

    fn read_all(&self, pids: &[u32], before: Option<&Before>) -> Vec<Found> {
        let next = AtomicUsize::new(0);
        let all = Mutex::new(Vec::with_capacity(pids.len()));
        let own = Folder::open("/proc/self").ok();
        let own_pid_namespace = own.and_then(|own| own.namespace("ns/pid"));
        let work = || {
            let mut reader = Reader {
                request: self,
                before,
                internal: internal_device(),
                search: self.search(),
                own_pid_namespace,
                buffer: Vec::with_capacity(64 << 10),
            };
            let mut own = Vec::new();
            // In small portions, so that a process with many descriptors holds up one thread only.
            while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                own.extend(reader.read(pid));
            }
            if let Ok(mut all) = all.lock() {
                all.append(&mut own);
            }
        };
        let threads = if before.is_some() { 1 } else { threads::count(pids.len(), WORTH_A_THREAD) };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Where a user may have no more threads, this one does it all.
                let _ = threads::start(scope, work);
            }
            work();
        });
        all.into_inner().unwrap_or_default()
    }
}

/// Does two things: one after the other, or the second on a thread of its own.
fn both<A, B: Default + Send>(
    alone: bool,
    one: impl FnOnce() -> A,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if alone {
        return (one(), other());
    }
    // Taken by the thread; or by this one, where a user may have no more threads.
    let other = Mutex::new(Some(other));
    let take = || other.lock().ok().and_then(|mut other| other.take());
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().spawn_scoped(scope, || take().map(|other| other()));
        let one = one();
        let second = match thread {
            Ok(thread) => thread.join().ok().flatten(),
            Err(_) => take().map(|other| other()),
        };
        (one, second.unwrap_or_default())
    })
}

/// Reads processes, one after the other.
struct Reader<'a> {
    request: &'a Request,
    before: Option<&'a Before>,
    internal: u64,
    search: Search,
    own_pid_namespace: Option<u64>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn read(&mut self, pid: u32) -> Option<Found> {
        let folder = Folder::open(&format!("/proc/{pid}")).ok()?;
        folder.read_record(c"stat", &mut self.buffer).ok()?;
        let stat = process::stat(&self.buffer)?;
        // What is in flight to it changes by others.
        let before = self.before.filter(|_| self.request.places.is_none());
        let kept = before.and_then(|before| before.kept(pid));
        if let Some(found) = kept.and_then(|kept| kept.again(&folder, &stat, &mut self.buffer)) {
            return Some(found);
        }
        // It lives on in its other threads, and what it holds with it.
        let first_thread_gone = stat.state == 'Z' && stat.threads > 1;
        let mut one = Process {
            pid,
            parent: stat.parent,
            session: stat.session,
            name: stat.name,
            state: if first_thread_gone { 'S' } else { stat.state },
            started_ticks: stat.started_ticks,
            kernel: stat.kernel,
            ..Process::default()
        };
        if stat.kernel {
            return Some(Found {
                process: one,
                asleep: Vec::new(),
                descriptors: Vec::new(),
                files: Vec::new(),
                mapped: Vec::new(),
                in_flight: Vec::new(),
                rings: Vec::new(),
                kept: None,
            });
        }
        self.describe(&folder, &mut one)?;
        let mut descriptors = Vec::new();
        // What they share is shown with each thread that lives, and no more with the first.
        let other = if first_thread_gone { living_thread(pid, &mut self.buffer) } else { None };
        let shown = other.as_ref().unwrap_or(&folder);
        match self.search.read(pid, shown) {
            Ok(count) => {
                (descriptors, one.descriptors, one.readable) =
                    (std::mem::take(&mut self.search.found), count, true);
                one.io_uring = descriptors.iter().any(|one| one.what == What::IoUring);
            }
            // It ended meanwhile, or has ended and is not waited for: it holds nothing.
            Err(Errno::NOENT | Errno::SRCH) => one.readable = true,
            Err(_) => one.readable = one.is_zombie(),
        }
        if first_thread_gone && other.is_none() {
            one.readable = false;
        }
        let mut rings = Vec::new();
        if self.request.places.is_some() && one.io_uring {
            let looked = Rings::of(shown);
            let all = descriptors.iter().filter(|one| one.what == What::IoUring);
            rings.extend(all.map(|one| (one.fd, looked.ring(one.fd.unsigned_abs()))));
        }
        let mut mapped = Vec::new();
        if self.request.kinds.has_any(MEMORY) && !one.is_zombie() {
            let shared = maps::of_process(shown, self.internal, &mut self.buffer);
            mapped = shared.unwrap_or_default();
            if self.request.places.is_some() {
                let private = maps::private_of_shared_files(shown, &mut self.buffer);
                mapped.extend(private.unwrap_or_default());
                let known = |inode| rings.iter().any(|(_, ring)| ring.inode == Some(inode));
                // One that is mapped, and whose descriptor was closed, says nothing.
                let unseen = |one: &&Mapped| one.name == rings::MAPPED && !known(one.inode);
                let inodes: HashSet<u64> =
                    mapped.iter().filter(unseen).map(|one| one.inode).collect();
                one.rings.unknown = u32::try_from(inodes.len()).unwrap_or(u32::MAX);
            }
        }
        let mut asleep = Vec::new();
        if self.request.waits != Waits::No && !one.is_zombie() {
            let whole = self.request.waits == Waits::All;
            let head = (stat.threads, stat.processor);
            asleep = waits::read(&folder, &mut one, head, whole, self.before, &mut self.buffer);
        }
        let files = std::mem::take(&mut self.search.files);
        let in_flight = std::mem::take(&mut self.search.in_flight);
        let mut found = Found {
            process: one,
            asleep,
            descriptors,
            files,
            mapped,
            in_flight,
            rings,
            kept: None,
        };
        if before.is_some() && !first_thread_gone {
            found.kept = Kept::of(&found, kept.is_some());
        }
        Some(found)
    }

    /// Whose it is, its namespaces, and what else was asked for.
    fn describe(&mut self, folder: &Folder, one: &mut Process) -> Option<()> {
        let request = self.request;
        let namespace = |wanted: bool, name| wanted.then(|| folder.namespace(name)).flatten();
        one.namespaces = Namespaces {
            ipc: namespace(request.kinds.has_any(OF_IPC), "ns/ipc"),
            net: namespace(request.kinds.has_any(OF_NETWORK), "ns/net"),
            pid: namespace(request.waits != Waits::No, "ns/pid"),
            mnt: namespace(request.kinds.has_any(OF_MOUNTS), "ns/mnt"),
        };
        let elsewhere = one.namespaces.pid.is_some_and(|pid| Some(pid) != self.own_pid_namespace);
        if request.details || elsewhere {
            folder.read_record(c"status", &mut self.buffer).ok()?;
            let status = process::status(&self.buffer)?;
            (one.uid, one.gid) = (status.uid, status.gid);
            (one.caught_signals, one.tracer) = (status.caught_signals, status.tracer);
            let innermost = status.inner_pids.last().copied();
            one.inner_pid = innermost.filter(|_| status.inner_pids.len() > 1);
        } else {
            (one.uid, one.gid) = folder.owner().ok()?;
        }
        if request.commands && folder.read_record(c"cmdline", &mut self.buffer).is_ok() {
            one.command = process::arguments(&self.buffer);
        }
        if request.commands && folder.read_record(c"cgroup", &mut self.buffer).is_ok() {
            one.cgroup = process::control_group(&self.buffer);
        }
        if request.traffic && folder.read_record(c"io", &mut self.buffer).is_ok() {
            one.io = io::counts(&self.buffer);
        }
        Some(())
    }
}

/// The folder of a thread that has not ended, of a process whose first one has.
fn living_thread(pid: u32, buffer: &mut Vec<u8>) -> Option<Folder> {
    let all = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    all.filter_map(Result::ok).find_map(|thread| {
        let folder = Folder::open(thread.path().to_str()?).ok()?;
        folder.read_record(c"stat", buffer).ok()?;
        (!matches!(process::stat(buffer)?.state, 'Z' | 'X')).then_some(folder)
    })
}

fn lock_lines() -> Vec<locks::Line> {
    let read = || std::fs::read("/proc/locks").map(|text| locks::table(&text));
    let mut lines = read().unwrap_or_default();
    // The kernel gives the table in parts; what others lock and release meanwhile can hide a line of one reading.
    let known: HashSet<locks::Line> = lines.iter().cloned().collect();
    lines.extend(read().unwrap_or_default().into_iter().filter(|line| !known.contains(line)));
    lines
}

/// Looks at those files again that turned out to have locks: which of these a descriptor has. Within a PID namespace the table leaves out
/// locks whose takers are not in it, or have ended; so files that somebody waits to lock are among them.
fn locked_files(found: &mut [Found], lines: &[locks::Line]) {
    let mut locked: HashSet<(u64, u64)> =
        lines.iter().map(|line| (line.device, line.inode)).collect();
    for one in found.iter() {
        for fd in one.asleep.iter().filter_map(waits::locking) {
            let file = one.files.iter().find(|file| file.fd == fd);
            locked.extend(file.map(|file| (file.device, file.inode)));
        }
    }
    let mut buffer = Vec::new();
    for one in found.iter_mut().filter(|_| !locked.is_empty()) {
        let mut folder = None;
        for file in std::mem::take(&mut one.files) {
            if !locked.contains(&(file.device, file.inode)) {
                continue;
            }
            if folder.is_none() {
                folder = Folder::of_process(one.process.pid, one.process.started_ticks);
            }
            let Some(folder) = &folder else { break };
            let locked = descriptors::locked(folder, file, &mut buffer);
            one.descriptors.extend(locked);
        }
    }
}

fn coverage(
    processes: &[Process],
    kinds: Vec<Kind>,
    waits: Waits,
    waits_readable: u32,
    mut missing: Vec<String>,
) -> Coverage {
    let count = |of: &dyn Fn(&Process) -> bool| {
        u32::try_from(processes.iter().filter(|process| of(process)).count()).unwrap_or(u32::MAX)
    };
    let all = count(&|process| !process.kernel);
    let readable = count(&|process| !process.kernel && process.readable);
    if readable < all {
        missing.push(format!(
            "descriptors of {} of {}: of other users, or not to be traced",
            all - readable,
            counted(all.into(), "process", "processes")
        ));
    }
    if waits != Waits::No && waits_readable < all {
        missing.push(format!(
            "waits of {} of {}: of other users, or not to be traced",
            all - waits_readable,
            counted(all.into(), "process", "processes")
        ));
    }
    // Where they are hidden, or may not be looked into, its first process is, too.
    let hides_processes = std::fs::read("/proc/1/stat").is_err();
    let kernel_threads = count(&|process| process.kernel);
    // They are in the machine's first namespace, so that whoever sees one sees everybody. Hidden, they say nothing.
    let outside = kernel_threads == 0 && is_within_another_namespace();
    if hides_processes {
        missing.push("processes of other users: /proc hides them (hidepid=)".to_owned());
    } else if waits == Waits::All && outside {
        missing.push(
            "processes outside of this PID namespace, as of a container's host: they can share pipes, sockets and files with those inside"
                .to_owned(),
        );
    }
    Coverage {
        processes: all,
        readable,
        waits_readable,
        kernel_threads,
        kinds,
        waits: waits == Waits::All,
        missing,
        hides_processes,
        outside,
        in_flight: false,
        places: Vec::new(),
    }
}

/// The device of memory that is in no file system: memfd, System V, shared and anonymous.
fn internal_device() -> u64 {
    let probe = rustix::fs::memfd_create("switchboard", rustix::fs::MemfdFlags::CLOEXEC);
    let status = probe.and_then(rustix::fs::fstat);
    status.map_or(rustix::fs::makedev(0, 1), |status| status.st_dev)
}

fn machine() -> String {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| escaped(part.to_bytes());
    format!("{} ({} {})", text(name.nodename()), text(name.sysname()), text(name.release()))
}

/// Since the machine was started, by a clock that nobody sets.
pub(crate) fn since_boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1000).saturating_add(part(now.tv_nsec) / 1_000_000)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When the machine was started, by the clock of now.
fn booted_unix_ms() -> Option<u64> {
    use rustix::time::{ClockId, clock_gettime};
    let up = clock_gettime(ClockId::Boottime);
    let up_ms = u64::try_from(up.tv_sec).ok()?.checked_mul(1000)?;
    unix_ms().checked_sub(up_ms + u64::try_from(up.tv_nsec).ok()? / 1_000_000)
}

/// Whether this process's PID namespace is not the first one, whose number never changes (`PROC_PID_INIT_INO`).
fn is_within_another_namespace() -> bool {
    const FIRST: u64 = 0xefff_fffc;
    let own = Folder::open("/proc/self").ok().and_then(|own| own.namespace("ns/pid"));
    own != Some(FIRST)
}
