//! What an interrupted run has closed is opened again.
//!
//! Source: docs/design/clean.md, "Killed in the middle".

#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) mod killed;

use std::fs::File;

use rustix::fs::Mode;
use switchboard_inspect::Kind;
use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::posix_mq::{self, Access, MessageQueue};
use switchboard_kernel::{sysv_msg, sysv_sem, sysv_shm};

use crate::error::{Error, Reason, Result};
use crate::journal::{Entry, Journal, Kept, Line, SavedRun, Size, State, TakenFrames, Waiting};
use crate::remove::{HIDDEN, back, check_place, folder_of, join, messages_of, send_from};
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
        Err(error) if error.name() == "ENOENT" => {
            seal(run, number, kept)?;
            return Ok(REMOVED);
        }
        Err(error) if error.name() == "EACCES" && is_closed(kept, &name) => {
            // Its mode was closed, the last step before it goes: all its messages are in the journal.
            posix_mq::unlink(&name).map_err(failed)?;
            return Ok(REMOVED);
        }
        Err(error) => return Err(failed(error)),
    };
    let found =
        rustix::fs::fstat(&queue).map_err(|errno| Error::errno("looking at it", "fstat", errno))?;
    if (found.st_dev, found.st_ino) != entry.identity {
        seal(run, number, kept)?;
        return Ok(REMOVED);
    }
    if let Ok(body) = run.body(number) {
        put_back(run, number, kept, &queue, &body)?;
    }
    rustix::fs::fchmod(&queue, Mode::from_raw_mode(entry.mode & 0o777))
        .map_err(|errno| Error::errno("opening it again", "fchmod", errno))?;
    Ok(OPENED)
}

/// Each step leaves the body and the log so that a recovery that is killed after it is followed by one that goes on there.
fn put_back(
    run: &SavedRun,
    number: u32,
    kept: &Kept,
    queue: &MessageQueue,
    body: &File,
) -> Result<()> {
    let failed = |error| Error::io("what was taken of it", &error);
    if kept.state != State::Returning {
        if body.metadata().map_err(failed)?.len() == 0 {
            // Nothing was taken yet.
            return Ok(());
        }
        let (bytes, crc) = join(queue, body)?;
        run.write(&Line::Saved { number, bytes, crc })?;
        run.write(&Line::Returning { number })?;
    }
    let first = match kept.sending.filter(|_| kept.state == State::Returning) {
        None => 0,
        Some((index, before)) => {
            index.saturating_add(u32::from(was_sent(queue, body, index, before)?))
        }
    };
    send_from(queue, body, first, |index, Waiting { messages, bytes }| {
        run.write(&Line::Sending { number, index, messages, bytes })
    })
}

/// Whether the message of this index came into the queue, which had so much in it before. If others used the queue since, that cannot be told:
/// it is sent again then, because twice is better than never.
fn was_sent(queue: &MessageQueue, body: &File, index: u32, before: Waiting) -> Result<bool> {
    let messages = messages_of(queue, body)?;
    let Some((_, text)) = usize::try_from(index).ok().and_then(|index| messages.get(index)) else {
        return Ok(false);
    };
    let after = Waiting {
        messages: before.messages.saturating_add(1),
        bytes: before.bytes.saturating_add(text.len() as u64),
    };
    Ok(Waiting::of(queue)? == after)
}

/// What was taken out of a queue that is gone meanwhile counts as what it held.
fn seal(run: &SavedRun, number: u32, kept: &Kept) -> Result<()> {
    let Size::Messages(most, longest, _) = kept.entry.size else { return Ok(()) };
    let body = match run.body(number) {
        Ok(body) if kept.body.is_none() => body,
        _ => return Ok(()),
    };
    let Ok((frames, _)) = TakenFrames::resume(&body, (most, longest), None) else { return Ok(()) };
    let crc = frames.finish(&body)?;
    let bytes = body.metadata().map_err(|error| Error::io("what was taken of it", &error))?.len();
    run.write(&Line::Saved { number, bytes, crc })
}

/// Whether it is the run that closed it: all of it is in the journal, and nobody can open it in any way.
fn is_closed(kept: &Kept, name: &str) -> bool {
    let refused =
        |access| MessageQueue::open(name, access).is_err_and(|error| error.name() == "EACCES");
    kept.state == State::Removing && refused(Access::Receive) && refused(Access::Send)
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
