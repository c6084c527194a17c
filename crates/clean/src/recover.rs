//! What an interrupted run has closed is opened again.
//!
//! Source: docs/design/clean.md, "Killed in the middle".

use rustix::fs::Mode;
use switchboard_inspect::Kind;
use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::posix_mq::{self, Access, MessageQueue};
use switchboard_kernel::{sysv_msg, sysv_sem, sysv_shm};

use crate::error::{Error, Reason, Result};
use crate::journal::{Entry, Frames, Journal, Kept, Line, SavedRun, Size, State};
use crate::remove::{HIDDEN, back, check_place, folder_of, give_back};
use crate::sysvipc::row;
use crate::target::parts;

/// What was done about an object that an interrupted run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The run.
    pub run: String,
    /// The object, by what it was called.
    pub object: String,
    /// What was done; or why that failed.
    pub outcome: core::result::Result<&'static str, Error>,
}

/// Looks at every run that nobody works on, and opens what it closed.
///
/// # Errors
/// [`Reason::Failed`]: the journal cannot be read. What is wrong with one run does not keep the others.
pub fn recover(journal: &Journal) -> Result<Vec<Recovered>> {
    let mut done = Vec::new();
    for name in journal.runs()? {
        let Ok(run) = journal.read(&name) else { continue };
        let unfinished =
            |state: &State| matches!(state, State::Closed | State::Removing | State::Returning);
        if !run.objects.values().any(|kept| unfinished(&kept.state)) || run.lock().is_err() {
            continue;
        }
        // Whoever had it has ended by now, or finished.
        let Ok(run) = journal.read(&name) else { continue };
        for (&number, kept) in &run.objects {
            if !unfinished(&kept.state) {
                continue;
            }
            let outcome = one(&run, number, kept);
            if let Ok(found) = &outcome {
                let line = if *found == REMOVED {
                    Line::Removed { number }
                } else {
                    Line::Opened { number }
                };
                run.write(&line)?;
            }
            let object = format!("{} {}", kept.entry.object, kept.entry.place.words());
            done.push(Recovered { run: name.clone(), object, outcome });
        }
    }
    Ok(done)
}

const REMOVED: &str = "was removed";
const OPENED: &str = "is open again";

fn one(run: &SavedRun, number: u32, kept: &Kept) -> Result<&'static str> {
    let entry = &kept.entry;
    check_place(entry.kind, &entry.place)?;
    let own = switchboard_inspect::source::folder::Folder::open("/proc/self").ok();
    let here = own.and_then(|own| own.namespace("ns/ipc"));
    let of_ipc = matches!(entry.kind, Kind::SysvShm | Kind::SysvMsg | Kind::SysvSem | Kind::Mq);
    if of_ipc && here != run.ipc {
        return Err(Error::new(Reason::Elsewhere, "it is of another IPC namespace"));
    }
    match entry.kind {
        Kind::SysvShm | Kind::SysvMsg | Kind::SysvSem => system_v(entry),
        Kind::Mq => queue(run, number, kept),
        _ => file(entry, kept.hidden.as_deref()),
    }
}

/// Gives the mode back, if it is the same object, and closed.
fn system_v(entry: &Entry) -> Result<&'static str> {
    let id = entry.place.id()?;
    let (table, closed) = match entry.kind {
        Kind::SysvShm => (Table::Memory, 0),
        Kind::SysvMsg => (Table::Messages, 0),
        _ => (Table::Semaphores, crate::remove::CLOSED_MODE),
    };
    let found = match row(table, id) {
        Err(error) if error.reason() == Reason::Gone => return Ok(REMOVED),
        found => found?,
    };
    let creator = u64::from(found.id("cuid"));
    if found.key() != entry.key || creator != entry.identity.0 {
        // Its id has gone on to another one.
        return Ok(REMOVED);
    }
    if found.id("perms") & 0o777 != closed {
        return Ok(OPENED);
    }
    let (owner, group, mode) = (found.id("uid"), found.id("gid"), entry.mode & 0o777);
    let set = match (entry.kind, entry.size) {
        (Kind::SysvShm, _) => sysv_shm::Segment::from_id(id).set_permissions(owner, group, mode),
        (Kind::SysvMsg, Size::Texts(max_bytes, _)) => {
            sysv_msg::MessageQueue::from_id(id).set_permissions(owner, group, mode, max_bytes)
        }
        (Kind::SysvSem, _) => {
            sysv_sem::SemaphoreSet::from_id(id).set_permissions(owner, group, mode)
        }
        _ => return Err(Error::new(Reason::Damaged, "the journal says no size of it")),
    };
    set.map_err(|error| Error::call("opening it again", error))?;
    Ok(OPENED)
}

/// Gives messages and mode back, or ends the removal where its messages are safe and it cannot be opened any more.
fn queue(run: &SavedRun, number: u32, kept: &Kept) -> Result<&'static str> {
    let entry = &kept.entry;
    let name = entry.place.queue()?;
    let failed = |error| Error::call("opening it again", error);
    let queue = match MessageQueue::open(&name, Access::Both) {
        Ok(queue) => queue,
        Err(error) if error.name() == "ENOENT" => return Ok(REMOVED),
        Err(error) if error.name() == "EACCES" => {
            // Its mode was closed, the last step before it goes: all its messages are in the journal.
            posix_mq::unlink(&name).map_err(failed)?;
            return Ok(REMOVED);
        }
        Err(error) => return Err(failed(error)),
    };
    let found =
        rustix::fs::fstat(&queue).map_err(|errno| Error::errno("looking at it", "fstat", errno))?;
    if (found.st_dev, found.st_ino) != entry.identity {
        return Ok(REMOVED);
    }
    let Size::Messages(_, longest, waiting) = entry.size else {
        return Err(Error::new(Reason::Damaged, "the journal says no size of it"));
    };
    if let Ok(body) = run.body(number) {
        let longest = usize::try_from(longest).unwrap_or(0);
        let messages = Frames::read(&body, waiting, longest)?;
        let left = queue.attributes().map_err(failed)?.waiting_messages;
        // Where as many are there as were, none was taken or all are back.
        if left < waiting {
            let already = if kept.state == State::Returning { messages.len() } else { 0 };
            give_back(&queue, messages, already)?;
        }
    }
    rustix::fs::fchmod(&queue, Mode::from_raw_mode(entry.mode & 0o777))
        .map_err(|errno| Error::errno("opening it again", "fchmod", errno))?;
    Ok(OPENED)
}

/// Gives the name back.
fn file(entry: &Entry, hidden: Option<&str>) -> Result<&'static str> {
    let path = entry.place.path()?;
    let (folder, name) = parts(&path);
    let is_ours = |hidden: &&str| hidden.starts_with(HIDDEN) && !hidden.contains('/');
    let hidden = hidden.filter(is_ours);
    let hidden =
        hidden.ok_or_else(|| Error::new(Reason::Damaged, "the journal says no hidden name"))?;
    let folder = match folder_of(folder) {
        Err(error) if error.reason() == Reason::Gone => return Ok(REMOVED),
        folder => folder?,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let identity = |name: &std::ffi::OsStr| {
        let found = rustix::fs::statat(&folder, name, flags).ok()?;
        Some((found.st_dev, found.st_ino))
    };
    if identity(hidden.as_ref()) == Some(entry.identity) {
        back(&folder, hidden.as_ref(), name)?;
        return Ok(OPENED);
    }
    Ok(if identity(name) == Some(entry.identity) { OPENED } else { REMOVED })
}
