//! Watching files and folders: who creates, writes, renames or removes something.
//!
//! Source: `inotify(7)`, `inotify_add_watch(2)`.
//!
//! *What is seen.* What goes through this machine's kernel and file system calls. Not: writes to a
//! mapped file, changes on a network file system by another machine, `/proc` and `/sys`, and what
//! happens in folders below a watched one. A watch is on the file itself, not on its name: it goes
//! along when the file is renamed, and stays with the old file when another one is put in its place.
//! To follow a name, watch its folder.
//!
//! *What is lost.* An event equal to the last one that was not read yet is merged with it. When the
//! queue is full, further events are dropped and [`Event::Overflow`] says so: look at everything
//! again. Nothing tells which process did it.

mod buffer;
mod mask;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::io::{Deadline, Interest, read, wait_for};

pub use buffer::{Buffer, Event};
pub use mask::Mask;

/// `inotify_init1(IN_CLOEXEC | IN_NONBLOCK)`: some watches, and the queue of what they saw.
///
/// Readable while events are queued. A forked child shares the queue: what one reads, the other
/// does not. When a process that holds a file open dies, the kernel closes it, and that is seen as
/// any closing is.
///
/// ```
/// use std::time::Duration;
/// use switchboard_kernel::inotify::{Buffer, Event, Inotify, Mask};
/// use switchboard_kernel::io::Deadline;
///
/// # let folder = std::env::temp_dir().join(format!("inotify-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// let inotify = Inotify::new()?;
/// let watch = inotify.watch(&folder, Mask::CREATE | Mask::CLOSE_WRITE)?;
/// std::fs::write(folder.join("orders"), "one")?;
///
/// let mut buffer = Buffer::new();
/// inotify.read(&mut buffer, Deadline::after(Duration::from_secs(1)))?;
/// let Some(Event::Seen { watch: by, what, name, .. }) = buffer.events().next() else {
///     unreachable!("a file was created");
/// };
/// assert!(by == watch && what == Mask::CREATE && name.is_some_and(|name| name == "orders"));
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Inotify(OwnedFd);

/// One watch of an [`Inotify`]. Its number is not used again for another one, for 2^31 watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch(pub(crate) i32);

impl Inotify {
    /// `inotify_init1()`: no watches, and an empty queue.
    ///
    /// # Errors
    /// `EMFILE`: as many instances as the user may have, then [`Error::call`] names the limit; or
    /// `RLIMIT_NOFILE`; `ENFILE`; `ENOMEM`.
    ///
    /// # Limits
    /// `/proc/sys/fs/inotify/max_user_instances` per user, 128 unless changed; and per user
    /// namespace `/proc/sys/user/max_inotify_instances`.
    pub fn new() -> Result<Self> {
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => Ok(Self(fd)),
            // One number for two limits: if there is room for any other descriptor, it was not
            // the one on descriptors.
            Err(Errno::MFILE) if crate::eventfd::EventFd::new(0).is_ok() => {
                Err(Error::new(INSTANCES_CALL, Errno::MFILE))
            }
            Err(errno) => Err(Error::new("inotify_init1", errno)),
        }
    }

    /// `inotify_add_watch(path, events | IN_MASK_CREATE)`: watches a file, or a folder and what is
    /// directly in it.
    ///
    /// Without [`Mask::NO_FOLLOW`], a symbolic link is followed once, now.
    ///
    /// # Errors
    /// `EEXIST`: this file is watched already, perhaps by another name; `ENOENT`; `EACCES`: it may
    /// not be read, or the way to it; `ENOTDIR`: with [`Mask::ONLY_FOLDER`]; `ELOOP`; `EINVAL`: no
    /// event is asked for; `ENOSPC`: as many watches as the user may have, then [`Error::call`]
    /// names the limit; `ENOMEM`.
    ///
    /// # Limits
    /// `/proc/sys/fs/inotify/max_user_watches` per user; and per user namespace
    /// `/proc/sys/user/max_inotify_watches`. Each takes about 1 KiB of the kernel's memory.
    pub fn watch(&self, path: &Path, events: Mask) -> Result<Watch> {
        self.add(path, events, WatchFlags::MASK_CREATE)
    }

    /// As [`Inotify::watch`], of a file by a descriptor, which may be one of `O_PATH` and can be
    /// closed afterwards: this one, whatever became of its name.
    ///
    /// # Errors
    /// As [`Inotify::watch`]; `ENOENT` when `/proc` is not mounted.
    ///
    /// # Limits
    /// As [`Inotify::watch`].
    pub fn watch_fd(&self, fd: impl AsFd, events: Mask) -> Result<Watch> {
        let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        self.add(Path::new(&path), events.without(Mask::NO_FOLLOW), WatchFlags::MASK_CREATE)
    }

    /// `inotify_add_watch(path, events)`: as [`Inotify::watch`], or if the file is watched already,
    /// watches for these events instead; then the watch is the same as before.
    ///
    /// # Errors
    /// As [`Inotify::watch`], without `EEXIST`.
    ///
    /// # Limits
    /// As [`Inotify::watch`].
    pub fn watch_instead(&self, path: &Path, events: Mask) -> Result<Watch> {
        self.add(path, events, WatchFlags::empty())
    }

    /// `inotify_rm_watch(watch)`: watches no longer. What it saw stays in the queue, followed by an
    /// [`Event::Removed`].
    ///
    /// # Errors
    /// `EINVAL`: it is gone already.
    pub fn unwatch(&self, watch: Watch) -> Result<()> {
        inotify::remove_watch(&self.0, watch.0).of("inotify_rm_watch")
    }

    /// `read(fd)`: takes as many events as the buffer holds, in place of those in it; says how many
    /// bytes that was, 0 when nothing is queued. Never blocks.
    ///
    /// # Errors
    /// None that a correct program meets.
    ///
    /// # Limits
    /// `/proc/sys/fs/inotify/max_queued_events` wait, 16384 unless changed; see
    /// [`Event::Overflow`].
    pub fn try_read(&self, buffer: &mut Buffer) -> Result<usize> {
        buffer.fill(|bytes| match read(&self.0, bytes) {
            Err(error) if error.errno() == libc::EAGAIN => Ok(0),
            other => other,
        })
    }

    /// `read(fd)`, `poll(fd)`: as [`Inotify::try_read`], but blocks while nothing is queued; 0 when
    /// the deadline passed.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn read(&self, buffer: &mut Buffer, deadline: Deadline) -> Result<usize> {
        loop {
            let bytes = self.try_read(buffer)?;
            if bytes > 0 || !wait_for(self, Interest::Readable, deadline)? {
                return Ok(bytes);
            }
        }
    }

    fn add(&self, path: &Path, events: Mask, how: WatchFlags) -> Result<Watch> {
        // The kernel would count `how` as an event.
        if !events.has_events() {
            return Err(Error::new("inotify_add_watch", Errno::INVAL));
        }
        let flags = WatchFlags::from_bits_retain(events.bits()) | how;
        match inotify::add_watch(&self.0, path, flags) {
            Ok(number) => Ok(Watch(number)),
            Err(Errno::NOSPC) => Err(Error::new(WATCHES_CALL, Errno::NOSPC)),
            Err(errno) => Err(Error::new("inotify_add_watch", errno)),
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The limits on inotify, as `/proc/sys/fs/inotify` has them. A user namespace may have lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Instances of one user: `max_user_instances`.
    pub max_user_instances: u64,
    /// Watches of one user, in all instances: `max_user_watches`.
    pub max_user_watches: u64,
    /// Events that wait in one instance: `max_queued_events`.
    pub max_queued_events: u64,
}

/// `read(/proc/sys/fs/inotify)`: the limits.
///
/// # Errors
/// `ENOENT` when `/proc` is not mounted.
pub fn limits() -> Result<Limits> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
        let text = text.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        text.and_then(|text| text.trim().parse().map_err(|_| Errno::IO)).of("read")
    };
    Ok(Limits {
        max_user_instances: read("max_user_instances")?,
        max_user_watches: read("max_user_watches")?,
        max_queued_events: read("max_queued_events")?,
    })
}

/// The calls, with the limit that made them fail.
const INSTANCES_CALL: &str = "inotify_init1 (/proc/sys/fs/inotify/max_user_instances)";
const WATCHES_CALL: &str = "inotify_add_watch (/proc/sys/fs/inotify/max_user_watches)";
