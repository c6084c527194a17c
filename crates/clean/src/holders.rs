//! A last look through /proc: who has a file open, who sleeps in a call on a System V object or in the opening of a FIFO.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_syscall(5)`, `proc_pid_fdinfo(5)`. The inspector sees the same and more, but takes its time; this is asked when an object
//! is already closed to newcomers.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use switchboard_inspect::source::folder::{Folder, device};
use switchboard_inspect::source::memory::Memory;
use switchboard_inspect::source::numbers::field;
use switchboard_inspect::source::rings::{self, Registered, Rings};
use switchboard_inspect::source::system_call::{Inside, Line, line};
use switchboard_inspect::source::{maps, unix};

use switchboard_inspect::text::counted;

use crate::error::{Error, Reason, Result};
use crate::journal::unix_ms;

/// What a call of the system says.
type Called = std::result::Result<(), Errno>;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The first that has it, in words.
    by: Option<String>,
    /// How many processes could not be read.
    unreadable: u32,
    /// How many descriptors are on their way in sockets.
    in_flight: u64,
    /// How many io_urings may hold what they do not show.
    rings: u32,
    /// Sockets that somebody has open.
    open: HashSet<u64>,
    /// Unix sockets that an io_uring has.
    registered: HashSet<u64>,
}

impl Seen {
    /// Refuses what somebody has; and, unless that is known, what cannot be seen.
    pub(crate) fn nobody(&self, what: &str, partial: bool) -> Result<()> {
        let unseen = |what: String| Err(Error::new(Reason::Unseen, what));
        match &self.by {
            Some(by) => Err(Error::new(Reason::InUse, by)),
            None if self.in_flight > 0 => {
                let some = counted(self.in_flight, "descriptor is", "descriptors are");
                unseen(format!("{some} in flight in sockets: one may be of it"))
            }
            None if self.rings > 0 => {
                let some = counted(self.rings.into(), "io_uring holds", "io_urings hold");
                unseen(format!("{some} what does not show: it may be that"))
            }
            None if self.unreadable > 0 && !partial => {
                let some = counted(self.unreadable.into(), "process", "processes");
                unseen(format!("{what}: {some} cannot be read"))
            }
            None => Ok(()),
        }
    }
}

/// Calls that a thread sleeps in while it uses a queue of this id.
const QUEUE_CALLS: [libc::c_long; 2] = [libc::SYS_msgsnd, libc::SYS_msgrcv];

/// Who sleeps in a call on the System V queue of this id in this IPC namespace.
pub(crate) fn of_queue(id: i32) -> Seen {
    let own = Folder::open("/proc/self").ok().and_then(|own| own.namespace("ns/ipc"));
    each_process(|pid, folder, seen| {
        let namespace = folder.namespace("ns/ipc");
        if namespace.is_some() && namespace != own {
            return Ok(());
        }
        each_thread(pid, folder, |inside, _| {
            let number = libc::c_long::try_from(inside.number).unwrap_or(-1);
            if QUEUE_CALLS.contains(&number) && inside.small(0) == id {
                seen.by = Some(format!("process {pid} waits for it"));
            }
        })
    })
}

/// Who has the FIFO of this device and inode open, or sleeps in opening one of its name. Hidden, it has another name now, which nothing else has: by
/// that an io_uring shows it.
pub(crate) fn of_fifo(file: (u64, u64), path: &Path, now: &OsStr) -> Seen {
    let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    let mut seen = each_process(|pid, folder, seen| {
        let fds = folder.within("fd")?;
        let mut numbers = Vec::new();
        fds.numbers(|fd| numbers.push(fd))?;
        let mut rings = Vec::new();
        for fd in numbers {
            let Ok(status) = fds.status(fd.to_string()) else { continue };
            if (device(&status), status.stx_ino) == file {
                seen.by = Some(format!("process {pid} has it open"));
            }
            if FileType::from_raw_mode(status.stx_mode.into()) == FileType::Socket {
                seen.in_flight += in_flight(folder, fd);
                seen.open.insert(status.stx_ino);
            }
            if status.stx_dev_major == 0
                && fds.link(fd.to_string()).is_ok_and(|link| link == rings::MAPPED.as_bytes())
            {
                rings.push(fd);
            }
        }
        in_rings(pid, folder, &rings, (file, now.as_bytes()), seen)?;
        each_thread(pid, folder, |inside, memory| {
            let path = match i64_of(inside.number) {
                // A ring by its number in a table of the thread's: it need have no descriptor.
                libc::SYS_io_uring_enter => {
                    let is_numbered = inside.arguments[3] & ENTER_REGISTERED_RING != 0;
                    seen.rings += u32::from(is_numbered && rings.is_empty());
                    return;
                }
                #[cfg(target_arch = "x86_64")]
                libc::SYS_open => inside.arguments[0],
                libc::SYS_openat | libc::SYS_openat2 => inside.arguments[1],
                _ => return,
            };
            // Page by page, because what follows the path may not be there.
            let place = usize::try_from(path % 4096).unwrap_or(0);
            let first = memory.bytes(path, 4096 - place).unwrap_or_default();
            let more = if first.contains(&0) {
                None
            } else {
                memory.bytes(path - place as u64 + 4096, 4096)
            };
            let text = [first, more.unwrap_or_default()].concat();
            let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
            if text.rsplit(|&byte| byte == b'/').next() == Some(&name) {
                seen.by = Some(format!("process {pid} waits for its other end"));
            }
        })
    });
    // What is in flight in a socket is counted by a descriptor of it.
    let unseen = seen.registered.difference(&seen.open).count();
    seen.rings += u32::try_from(unseen).unwrap_or(u32::MAX);
    seen
}

/// `IORING_ENTER_REGISTERED_RING`.
const ENTER_REGISTERED_RING: u64 = 1 << 4;

/// What a process has by its io_urings: the FIFO, by its device and inode or its name, or what does not show.
fn in_rings(
    pid: u32,
    folder: &Folder,
    descriptors: &[u32],
    (file, name): ((u64, u64), &[u8]),
    seen: &mut Seen,
) -> Called {
    let mut known = HashSet::new();
    if !descriptors.is_empty() {
        let mut text = Vec::new();
        let sockets: HashSet<u64> = match folder.read("net/unix", &mut text) {
            Ok(()) => unix::table(&text).iter().map(|socket| socket.inode).collect(),
            Err(errno) => return Err(errno),
        };
        let looked = Rings::of(folder);
        for &fd in descriptors {
            let ring = looked.ring(fd);
            known.extend(ring.inode);
            let mut hides = ring.is_busy || !ring.is_whole;
            for (registered, what) in &ring.files {
                if rings::is_of(registered, what, file, name) {
                    seen.by = Some(format!("process {pid} has it registered with an io_uring"));
                }
                match what {
                    Registered::Unknown => hides = true,
                    &Registered::Socket(inode) if sockets.contains(&inode) => {
                        seen.registered.insert(inode);
                    }
                    _ => {}
                }
            }
            seen.rings += u32::from(hides);
        }
    }
    // One that is mapped, and whose descriptor was closed, says nothing.
    let mapped = maps::of_process(folder, 0, &mut Vec::new())?;
    let all = mapped.iter().filter(|one| one.name == rings::MAPPED).map(|one| one.inode);
    let unseen = all.filter(|inode| !known.contains(inode)).collect::<HashSet<_>>().len();
    seen.rings += u32::try_from(unseen).unwrap_or(u32::MAX);
    Ok(())
}

/// Whether the process lives that had this id at a time, in seconds since 1970. Times are whole seconds, and clocks are corrected.
pub(crate) fn lives(pid: u32, at: i64) -> bool {
    const SLACK: i64 = 2;
    const TICKS_PER_SECOND: u64 = 100;
    let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(id) = id else { return false };
    if rustix::process::test_kill_process(id) == Err(Errno::SRCH) {
        return false;
    }
    let mut text = Vec::new();
    let read = Folder::open(&format!("/proc/{pid}"))
        .and_then(|folder| folder.read_record("stat", &mut text));
    let stat = read.ok().and_then(|()| switchboard_inspect::source::process::stat(&text));
    // There, and hidden.
    let Some(stat) = stat else { return true };
    if matches!(stat.state, 'Z' | 'X') && stat.threads < 2 {
        return false;
    }
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let now = i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
    let started = i64::try_from(stat.started_ticks / TICKS_PER_SECOND).unwrap_or(0);
    started.saturating_add(now - up) <= at.saturating_add(SLACK)
}

fn i64_of(number: i64) -> libc::c_long {
    libc::c_long::try_from(number).unwrap_or(-1)
}

/// Descriptors that wait in a socket to be received.
fn in_flight(folder: &Folder, fd: u32) -> u64 {
    let mut text = Vec::new();
    let read = folder.read_record(format!("fdinfo/{fd}"), &mut text);
    let count = field(&text, "scm_fds").and_then(switchboard_inspect::source::numbers::decimal);
    count.filter(|_| read.is_ok()).unwrap_or(0)
}

fn each_process(mut look: impl FnMut(u32, &Folder, &mut Seen) -> Called) -> Seen {
    let mut seen = Seen::default();
    let mut pids = Vec::new();
    let Ok(()) = Folder::open("/proc").and_then(|proc| proc.numbers(|pid| pids.push(pid))) else {
        seen.unreadable = 1;
        return seen;
    };
    let mut text = Vec::new();
    for pid in pids {
        let Ok(folder) = Folder::open(&format!("/proc/{pid}")) else { continue };
        let stat = folder.read_record("stat", &mut text);
        let stat = stat.ok().and_then(|()| switchboard_inspect::source::process::stat(&text));
        let Some(stat) = stat else { continue };
        if stat.kernel || (stat.state == 'Z' && stat.threads < 2) {
            continue;
        }
        // The first thread may have ended before the others: what they have is shown with those then.
        let other = if stat.state == 'Z' { living_thread(pid, &mut text) } else { None };
        match look(pid, other.as_ref().unwrap_or(&folder), &mut seen) {
            // What has ended holds nothing.
            Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(_) => seen.unreadable += 1,
        }
        if seen.by.is_some() {
            break;
        }
    }
    seen
}

fn living_thread(pid: u32, text: &mut Vec<u8>) -> Option<Folder> {
    let mut threads = Vec::new();
    Folder::open(&format!("/proc/{pid}/task")).ok()?.numbers(|tid| threads.push(tid)).ok()?;
    threads.into_iter().find_map(|tid| {
        let folder = Folder::open(&format!("/proc/{pid}/task/{tid}")).ok()?;
        folder.read_record("stat", text).ok()?;
        let stat = switchboard_inspect::source::process::stat(text)?;
        (!matches!(stat.state, 'Z' | 'X')).then_some(folder)
    })
}

fn each_thread(pid: u32, folder: &Folder, mut look: impl FnMut(&Inside, &Memory)) -> Called {
    let tasks = Folder::open(&format!("/proc/{pid}/task"))?;
    let memory = Memory::of(folder);
    let mut threads = Vec::new();
    tasks.numbers(|tid| threads.push(tid))?;
    let mut text = Vec::new();
    for tid in threads {
        match tasks.read_record(format!("{tid}/syscall"), &mut text) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::SRCH) => continue,
            Err(errno) => return Err(errno),
        }
        if let Some(Line::Inside(inside)) = line(&text) {
            look(&inside, &memory);
        }
    }
    Ok(())
}
