//! Who is whose child, who adopts orphans, and which process exactly one means.
//!
//! Source: `proc_pid_stat(5)`, `PR_SET_CHILD_SUBREAPER(2const)`, `waitpid(2)`, `credentials(7)`.
//!
//! A process whose parent ended is an orphan: the kernel gives it to the nearest ancestor that is a
//! subreaper, or to process 1. Its new parent must reap it when it ends, or it stays a zombie.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use crate::error::{Error, OfCall, Result};
use crate::io::{Deadline, read_full, retry, timespec};
use crate::pidfd;

/// What the kernel says of a process: `/proc/PID/stat`. Anybody may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// Its process id.
    pub id: u32,
    /// The name of its program, at most 15 bytes, as the process itself can set it: with spaces,
    /// parentheses, line feeds, anything. For display see [`super::command_name`].
    pub name: Vec<u8>,
    /// `R` running, `S` sleeping, `D` in the kernel, `T` stopped, `Z` a zombie, as in `proc(5)`.
    pub state: char,
    /// Its parent; 0 when there is none in this PID namespace.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// When it was started, in ticks of 10 ms (`sysconf(_SC_CLK_TCK)`) since the machine was.
    pub start_ticks: u64,
}

/// `read(/proc/PID/stat)`: one process, a zombie too.
///
/// # Errors
/// `ESRCH`: no such process, or a `/proc` that hides it (`hidepid=`); `EPROTO`: the file is not as
/// documented; `EMFILE`, `ENFILE`.
pub fn stat(id: u32) -> Result<Stat> {
    let mut text = [0; STAT_BYTES];
    let len = read_stat(id, &mut text).map_err(|error| match error.errno() {
        libc::ENOENT => Error::new("read", Errno::SRCH),
        _ => error,
    })?;
    parse(&text[..len]).ok_or(Error::new("read", Errno::PROTO))
}

/// More than there ever is: 52 numbers of at most 20 digits, and a name of 64 bytes.
const STAT_BYTES: usize = 2048;

fn read_stat(id: u32, text: &mut [u8]) -> Result<usize> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = format!("/proc/{id}/stat");
    let file = retry("read", || rustix::fs::open(&path, flags, Mode::empty()))?;
    read_full(&file, text)
}

/// Which process exactly: its id and when it was started. Unlike the id alone, it is never that of
/// another process until the machine starts anew, unless all ids come round within 10 ms.
///
/// It can be written down and compared later, where a pidfd cannot. It holds in one PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The process id.
    pub id: u32,
    /// When it was started: [`Stat::start_ticks`].
    pub start_ticks: u64,
}

impl Identity {
    /// Of the process that has the id now.
    ///
    /// # Errors
    /// As [`stat()`].
    pub fn of(id: u32) -> Result<Self> {
        stat(id).map(|stat| Self::from(&stat))
    }

    /// `pidfd_open()`, and a second look: a descriptor of this very process.
    ///
    /// # Errors
    /// `ESRCH`: it is gone, whether or not another has its id; else as [`pidfd::open`].
    pub fn open(self) -> Result<OwnedFd> {
        let fd = pidfd::open(self.id)?;
        // After opening: a process that came to have the id since then was started too late.
        if Self::of(self.id)? == self { Ok(fd) } else { Err(Error::new("pidfd_open", Errno::SRCH)) }
    }
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self { id: stat.id, start_ticks: stat.start_ticks }
    }
}

/// The processes whose parent this is, zombies too, by ascending id.
///
/// It looks through all of `/proc`. A process that is started or changes its parent meanwhile may
/// be missing; a `/proc` that hides processes (`hidepid=`) hides them here too.
///
/// # Errors
/// `ENOENT`: `/proc` is not mounted; `EMFILE`, `ENFILE`.
pub fn children(id: u32) -> Result<Vec<Stat>> {
    Ok(all()?.into_iter().filter(|stat| stat.parent == id).collect())
}

/// The processes of a group, zombies too, by ascending id: whom [`crate::signal::send_group`] reaches.
///
/// As long as one of them is there, its leader not yet reaped, say, no other group has this number. Else as
/// [`children`].
///
/// # Errors
/// As [`children`].
pub fn group(id: u32) -> Result<Vec<Stat>> {
    Ok(all()?.into_iter().filter(|stat| stat.group == id).collect())
}

/// The process's children, their children, and so on, each after its parent.
///
/// An orphan is found only if its adopter is the process itself, or one that is found: see
/// [`set_child_subreaper`]. The picture is not of one moment: as [`children`].
///
/// # Errors
/// As [`children`].
pub fn descendants(id: u32) -> Result<Vec<Stat>> {
    let mut by_parent: BTreeMap<u32, Vec<Stat>> = BTreeMap::new();
    for stat in all()? {
        by_parent.entry(stat.parent).or_default().push(stat);
    }
    let mut found: Vec<Stat> = Vec::new();
    let mut parent = id;
    let mut next = 0;
    // Each parent's children are taken out, so ids that were reused meanwhile make no circle.
    loop {
        found.extend(by_parent.remove(&parent).unwrap_or_default());
        let Some(stat) = found.get(next) else { return Ok(found) };
        parent = stat.id;
        next += 1;
    }
}

/// `prctl(PR_SET_CHILD_SUBREAPER)`: from now on this process adopts its orphaned descendants, or no
/// longer does. Those it has adopted stay.
///
/// It must [reap](reap_orphans) them. Its children do not inherit it; `execve` keeps it. When this
/// process ends, its own children go to the next subreaper above, or to process 1.
///
/// # Errors
/// None that a correct program meets.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    let any = on.then(rustix::process::getpid);
    rustix::process::set_child_subreaper(any).of("prctl PR_SET_CHILD_SUBREAPER")
}

/// `prctl(PR_GET_CHILD_SUBREAPER)`: whether this process adopts its orphaned descendants.
///
/// # Errors
/// None that a correct program meets.
pub fn is_child_subreaper() -> Result<bool> {
    let any = rustix::process::child_subreaper().of("prctl PR_GET_CHILD_SUBREAPER")?;
    Ok(any.is_some())
}

/// `waitpid(pid, WNOHANG)` of each child that has ended, but for those in `own`: who it was, and
/// how it ended. Never blocks; nothing ended gives nothing.
///
/// `own` is the ids of the children that this program started and waits for: those it leaves to
/// [`super::Child`] and the like. What is reaped here is the rest: the orphans.
///
/// # Errors
/// As [`children`].
pub fn reap_orphans(own: &[u32]) -> Result<Vec<(u32, ExitStatus)>> {
    let mut reaped = Vec::new();
    for child in children(std::process::id())? {
        if child.state != 'Z' || own.contains(&child.id) {
            continue;
        }
        let pid = i32::try_from(child.id).ok().and_then(Pid::from_raw);
        match reap(pid, WaitOptions::NOHANG) {
            // Somebody else in this program reaped it.
            Err(error) if error.errno() == libc::ECHILD => {}
            result => reaped.extend(result?),
        }
    }
    Ok(reaped)
}

/// `waitpid(-1)`: waits until any child has ended, own or adopted, and reaps it; `None` when the
/// deadline passed first.
///
/// For programs that wait for all their children in one place, as process 1 does: what this reaps,
/// no [`super::Child`] gets to see (`ECHILD`). With a deadline, the end of an orphan that was
/// adopted during the wait is noticed up to 50 ms late.
///
/// # Errors
/// `ECHILD`: there is no child at all; with a deadline also as [`children`].
pub fn wait_any(deadline: Deadline) -> Result<Option<(u32, ExitStatus)>> {
    if deadline == Deadline::NEVER {
        return reap(None, WaitOptions::empty());
    }
    loop {
        let reaped = reap(None, WaitOptions::NOHANG)?;
        if reaped.is_some() || deadline.passed() {
            return Ok(reaped);
        }
        // An orphan does not tell that it comes, so nothing can wait for its end from the start.
        let look_again = deadline.min(Deadline::after(Duration::from_millis(50)));
        wait_for_one_of(&children(std::process::id())?, look_again)?;
    }
}

/// One child, or any; `None` when it, or none of them, has ended yet.
fn reap(pid: Option<Pid>, options: WaitOptions) -> Result<Option<(u32, ExitStatus)>> {
    let ended = retry("waitpid", || match pid {
        Some(_) => rustix::process::waitpid(pid, options),
        // Not `waitpid` of nobody, which waits for this process's own group alone.
        None => rustix::process::wait(options),
    })?;
    Ok(ended.map(|(pid, status)| {
        (pid.as_raw_nonzero().get().unsigned_abs(), ExitStatus::from_raw(status.as_raw()))
    }))
}

/// Those that cannot be watched, for want of descriptors say, are looked at when the time is up.
fn wait_for_one_of(processes: &[Stat], deadline: Deadline) -> Result<()> {
    let fds: Vec<OwnedFd> = processes.iter().map_while(|one| pidfd::open(one.id).ok()).collect();
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = deadline.remaining().map(timespec);
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::new("poll", errno)),
    }
}

/// Every process that can be seen, by ascending id.
fn all() -> Result<Vec<Stat>> {
    let of_call = |error: std::io::Error| {
        Error::new("getdents", Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(of_call)? {
        let name = entry.map_err(of_call)?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        match stat(id) {
            // It ended since it was listed.
            Err(error) if error.errno() == libc::ESRCH => {}
            result => found.push(result?),
        }
    }
    found.sort_unstable_by_key(|stat| stat.id);
    Ok(found)
}

/// `ID (NAME) STATE PARENT GROUP SESSION …`. The name is anything; what follows has no parentheses.
fn parse(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let id = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
    let name = text.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // -1 stands for a group of a process that is going away.
    let id_at = |at: usize| {
        let number: i32 = fields.get(at)?.parse().ok()?;
        Some(u32::try_from(number).unwrap_or(0))
    };
    Some(Stat {
        id,
        name,
        state: fields.first()?.chars().next()?,
        parent: id_at(1)?,
        group: id_at(2)?,
        session: id_at(3)?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}
