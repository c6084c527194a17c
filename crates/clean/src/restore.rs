//! Making again what was removed.
//!
//! Source: docs/design/clean.md, "Restoring". Nothing that exists is overwritten.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use switchboard_inspect::Kind;
use switchboard_kernel::Permissions;
use switchboard_kernel::posix_mq::{self, MessageQueue};
use switchboard_kernel::sysv_shm::Access;
use switchboard_kernel::{fifo, sysv_msg, sysv_sem, sysv_shm};

use crate::error::{Error, Reason, Result};
use crate::journal::{Entry, Frames, Line, SavedRun, Size, State, check_body, write_back};
use crate::remove::{check_place, folder_of};
use crate::target::parts;

/// An object that is there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it is called now.
    pub object: String,
    /// What is not as it was, a sentence each.
    pub lost: Vec<String>,
}

/// What can never be brought back of objects of a kind.
#[must_use]
pub fn never(kind: Kind) -> &'static str {
    match kind {
        Kind::SysvShm => "its id, who made and attached it, times, locked or huge pages",
        Kind::SysvMsg => "its id, who sent and received last, times",
        Kind::SysvSem => "its id, who operated last, times, what was to be undone",
        Kind::Mq => "its inode, who is to be notified, times",
        Kind::PosixShm | Kind::PosixSem => "its inode, times, extended attributes",
        Kind::Fifo => "its inode, times",
        _ => "all of it: without its socket the file is of no use, and a server makes its own",
    }
}

/// Makes an object of a run again.
///
/// # Errors
/// [`Reason::Exists`]: something has its name or key; [`Reason::Refused`]: it was not removed, or is restored already, or cannot be
/// brought back, or the kernel refuses; [`Reason::Damaged`]; [`Reason::Gone`]: the run has no such object; [`Reason::Failed`].
/// Nothing is left of it then.
pub fn restore(run: &SavedRun, number: u32) -> Result<Restored> {
    let kept = run.objects.get(&number);
    let kept = kept.ok_or_else(|| Error::new(Reason::Gone, "the run has no such object"))?;
    let refused = |why: String| Err(Error::new(Reason::Refused, why));
    match &kept.state {
        State::Removed | State::Restoring => {}
        State::Restored(object) => return refused(format!("it was restored already, as {object}")),
        State::Closed | State::Removing | State::Returning | State::Opened => {
            return refused("it was not removed".to_owned());
        }
    }
    let entry = &kept.entry;
    check_place(entry.kind, &entry.place)?;
    if entry.kind == Kind::Unix {
        return refused(format!("cannot be brought back: {}", never(entry.kind)));
    }
    let body = kept.body.filter(|_| entry.kind != Kind::Fifo);
    let body = body.map(|sums| run.body(number).map(|body| (body, sums))).transpose()?;
    if let Some((body, sums)) = &body {
        check_body(body, *sums)?;
    }
    run.write(&Line::Restoring { number })?;
    let restored = match entry.kind {
        Kind::SysvShm => segment(entry, held(body)?),
        Kind::SysvMsg => system_v_queue(entry, &held(body)?.0),
        Kind::SysvSem => set(entry, held(body)?),
        Kind::Mq => queue(entry, &held(body)?.0),
        Kind::PosixShm | Kind::PosixSem => memory_file(entry, held(body)?),
        _ => named_pipe(entry),
    }?;
    run.write(&Line::Restored { number, object: restored.object.clone() })?;
    Ok(restored)
}

type Body = (File, (u64, u32));

fn held(body: Option<Body>) -> Result<Body> {
    body.ok_or_else(|| Error::new(Reason::Damaged, "the journal does not have what it held"))
}

/// Owner, group and mode, as far as this user may give them; and what not.
fn permissions(entry: &Entry) -> (Permissions, Vec<String>) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut wanted = Permissions::new().mode(entry.mode);
    let mut lost = Vec::new();
    if entry.owner != uid && uid == 0 {
        wanted = wanted.owner(entry.owner);
    } else if entry.owner != uid {
        lost.push(format!("it belonged to user {}", entry.owner));
    }
    if entry.group != gid {
        let groups = rustix::process::getgroups().unwrap_or_default();
        if uid == 0 || groups.iter().any(|group| group.as_raw() == entry.group) {
            wanted = wanted.group(entry.group);
        } else {
            lost.push(format!("it belonged to group {}", entry.group));
        }
    }
    if entry.mode & !0o777 != 0 {
        lost.push(format!("its mode had bits beyond the usual: {:o}", entry.mode));
    }
    (wanted, lost)
}

/// What `IPC_SET` is to be called with.
fn owner_of(wanted: Permissions) -> (u32, u32) {
    let owner = wanted.owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    (owner, wanted.group.unwrap_or_else(|| rustix::process::getegid().as_raw()))
}

fn making(error: switchboard_kernel::Error) -> Error {
    Error::call("making it again", error)
}

/// What has the key already, or another failure.
fn of_key(entry: &Entry) -> impl Fn(switchboard_kernel::Error) -> Error {
    let key = entry.key;
    move |error| match error.name() {
        "EEXIST" => {
            let text = format!("another object has its key 0x{key:08x}");
            Error::new(Reason::Exists, text)
        }
        _ => making(error),
    }
}

fn damaged() -> Error {
    Error::new(Reason::Damaged, "the journal says another size than it holds")
}

macro_rules! key {
    ($module:ident, $entry:expr) => {
        match $entry.key {
            0 => $module::Key::Private,
            key => $module::Key::Value(key),
        }
    };
}

/// The new id, and that it is new.
fn numbered(kind: Kind, id: i32, mut lost: Vec<String>, entry: &Entry) -> Restored {
    let object = format!("{}:{id}", kind.name());
    if object != entry.object {
        lost.push(format!("its id was {}", entry.place.words()));
    }
    Restored { object, lost }
}

fn segment(entry: &Entry, (body, sums): Body) -> Result<Restored> {
    let Size::Bytes(len) = entry.size else { return Err(damaged()) };
    if len != sums.0 {
        return Err(damaged());
    }
    let (wanted, lost) = permissions(entry);
    let options = sysv_shm::CreateOptions::new().exclusive(true);
    let len = usize::try_from(len).map_err(|_| damaged())?;
    let made = sysv_shm::Segment::create(&key!(sysv_shm, entry), len, &options);
    let made = made.map_err(of_key(entry))?;
    let filled = made.attach(Access::ReadWrite).map_err(making).and_then(|memory| {
        write_back(&body, sums, |at, block| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            memory.write_at(at, block).map_err(making)
        })
    });
    let (owner, group) = owner_of(wanted);
    let done = filled
        .and_then(|()| made.set_permissions(owner, group, entry.mode & 0o777).map_err(making));
    if let Err(error) = done {
        let _ = made.remove();
        return Err(error);
    }
    Ok(numbered(Kind::SysvShm, made.id(), lost, entry))
}

fn system_v_queue(entry: &Entry, body: &File) -> Result<Restored> {
    let Size::Texts(max_bytes, count) = entry.size else { return Err(damaged()) };
    let (wanted, mut lost) = permissions(entry);
    let longest = usize::try_from(body_len(body)?).unwrap_or(0);
    let messages = Frames::read(body, u32::try_from(count).map_err(|_| damaged())?, longest)?;
    if messages.len() as u64 != count {
        return Err(damaged());
    }
    let options = sysv_msg::CreateOptions::new().exclusive(true);
    let made = sysv_msg::MessageQueue::create(&key!(sysv_msg, entry), &options);
    let made = made.map_err(of_key(entry))?;
    let (owner, group) = owner_of(wanted);
    let usual = u64::from(sysv_msg::limits().default_queue_bytes);
    let fill = || -> Result<()> {
        let (uid, gid) = owner_of(Permissions::new());
        let mut size = max_bytes;
        if let Err(error) = made.set_permissions(uid, gid, 0o600, size) {
            if error.name() != "EPERM" {
                return Err(making(error));
            }
            lost.push(format!(
                "it took {max_bytes} bytes; more than {usual} need CAP_SYS_RESOURCE"
            ));
            size = usual;
        }
        for (kind, text) in &messages {
            made.try_send(*kind, text).map_err(|error| match error.name() {
                "EAGAIN" => Error::new(
                    Reason::Failed,
                    "its messages do not fit into a queue of the size that this user may make",
                ),
                _ => making(error),
            })?;
        }
        made.set_permissions(owner, group, entry.mode & 0o777, size).map_err(making)
    };
    if let Err(error) = {
        let mut fill = fill;
        fill()
    } {
        let _ = made.remove();
        return Err(error);
    }
    Ok(numbered(Kind::SysvMsg, made.id(), lost, entry))
}

fn body_len(body: &File) -> Result<u64> {
    body.metadata().map(|found| found.len()).map_err(|error| Error::io("what it held", &error))
}

fn set(entry: &Entry, (body, sums): Body) -> Result<Restored> {
    let Size::Counts(count) = entry.size else { return Err(damaged()) };
    if sums.0 != u64::from(count) * 2 || count > 64 << 10 {
        return Err(damaged());
    }
    let mut bytes = vec![0; usize::try_from(sums.0).map_err(|_| damaged())?];
    body.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("what it held", &error))?;
    let values: Vec<u16> =
        bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    let (wanted, lost) = permissions(entry);
    let options = sysv_sem::CreateOptions::new().exclusive(true).values(values).permissions(wanted);
    let made = sysv_sem::SemaphoreSet::create(&key!(sysv_sem, entry), &options);
    let made = made.map_err(of_key(entry))?;
    Ok(numbered(Kind::SysvSem, made.id(), lost, entry))
}

fn queue(entry: &Entry, body: &File) -> Result<Restored> {
    let Size::Messages(most, longest, waiting) = entry.size else { return Err(damaged()) };
    let name = entry.place.queue()?;
    // More than it had at first, where others put some in while an interrupted removal was undone; less, where it went meanwhile.
    let messages = Frames::read(body, most, usize::try_from(longest).map_err(|_| damaged())?)?;
    let missing = u64::from(waiting).saturating_sub(messages.len() as u64);
    let (wanted, mut lost) = permissions(entry);
    let options = posix_mq::CreateOptions::new()
        .max_messages(most)
        .message_size_bytes(longest)
        .exclusive(true);
    let made = MessageQueue::create(&name, posix_mq::Access::Both, &options);
    let made = made.map_err(|error| match error.name() {
        "EEXIST" => Error::new(Reason::Exists, format!("there is a queue {name}")),
        _ => making(error),
    })?;
    let fill = || -> Result<()> {
        for (priority, text) in &messages {
            let priority = u32::try_from(*priority).map_err(|_| damaged())?;
            made.try_send(text, priority).map_err(making)?;
        }
        let failed = |errno| Error::errno("making it again", "fchown", errno);
        let owner = wanted.owner.map(rustix::fs::Uid::from_raw);
        let group = wanted.group.map(rustix::fs::Gid::from_raw);
        rustix::fs::fchown(&made, owner, group).map_err(failed)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(entry.mode & 0o777)).map_err(failed)
    };
    if let Err(error) = fill() {
        let _ = posix_mq::unlink(&name);
        return Err(error);
    }
    if missing > 0 {
        let all = "messages were in it still when somebody else removed it";
        lost.push(format!("{missing} of its {waiting} {all}"));
    }
    Ok(Restored { object: format!("mq:{name}"), lost })
}

/// Made without a name, filled, and named last: nobody sees it half made.
fn memory_file(entry: &Entry, (body, sums): Body) -> Result<Restored> {
    let Size::Bytes(len) = entry.size else { return Err(damaged()) };
    if len != sums.0 {
        return Err(damaged());
    }
    let path = entry.place.path()?;
    let (folder, name) = parts(&path);
    let folder = folder_of(folder)?;
    let failed = |call| move |errno| Error::errno("making it again", call, errno);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(&folder, ".", flags, private).map_err(failed("openat"))?;
    rustix::fs::ftruncate(&file, len).map_err(failed("ftruncate"))?;
    let file = File::from(file);
    write_back(&body, sums, |at, block| {
        let written = file.write_all_at(block, at);
        written.map_err(|error| Error::io("making it again", &error))
    })?;
    let (wanted, lost) = permissions(entry);
    let owner = wanted.owner.map(rustix::fs::Uid::from_raw);
    let group = wanted.group.map(rustix::fs::Gid::from_raw);
    rustix::fs::fchown(&file, owner, group).map_err(failed("fchown"))?;
    let mode = Mode::from_raw_mode(entry.mode & 0o777);
    rustix::fs::fchmod(&file, mode).map_err(failed("fchmod"))?;
    let unnamed = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let linked = rustix::fs::linkat(CWD, unnamed, &folder, name, AtFlags::SYMLINK_FOLLOW);
    linked.map_err(|errno| match errno {
        rustix::io::Errno::EXIST => {
            Error::new(Reason::Exists, format!("there is a file {}", entry.place.words()))
        }
        errno => failed("linkat")(errno),
    })?;
    Ok(Restored { object: entry.place.words(), lost })
}

fn named_pipe(entry: &Entry) -> Result<Restored> {
    let (wanted, lost) = permissions(entry);
    let path = entry.place.path()?;
    let made = fifo::create(&path, wanted);
    made.map_err(|error| match error.name() {
        "EEXIST" => Error::new(Reason::Exists, format!("there is a file {}", entry.place.words())),
        _ => making(error),
    })?;
    Ok(Restored { object: entry.place.words(), lost })
}
