//! What an endpoint of a log sleeps on: its bell, and a timer.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::inotify::{Buffer, Inotify, Mask};
use switchboard_kernel::io::Interest;
use switchboard_kernel::timerfd::TimerFd;

use crate::error::Error;
use crate::log::folder::Folder;

/// How long an endpoint sleeps at most before it looks again: a bell may have been missed (its
/// ringer died), and nobody rings for a dead receiver.
pub(super) const LONGEST: Duration = Duration::from_millis(500);
/// When to try again for a lock that was taken.
pub(super) const SOON: Duration = Duration::from_millis(1);

/// The wake-up descriptor of an endpoint. The bell is watched from when somebody first waits: ending
/// a watch takes the kernel many milliseconds, and there are few (fs.inotify.max_user_instances).
#[derive(Debug)]
pub(super) struct Watch {
    epoll: Epoll,
    /// None where it cannot be watched: then the timer is all there is.
    bell: OnceLock<Option<Inotify>>,
    bell_path: PathBuf,
    rung: Buffer,
    timer: TimerFd,
}

impl Watch {
    pub(super) fn new(folder: &Folder) -> Result<Self, Error> {
        let make = || {
            let (epoll, timer) = (Epoll::new()?, TimerFd::new()?);
            epoll.add(&timer, 1, Interest::Readable)?;
            let (bell, rung) = (OnceLock::new(), Buffer::with_capacity(0));
            Ok(Self { epoll, bell, bell_path: folder.bell_path(), rung, timer })
        };
        make().map_err(|error| folder.kernel("cannot watch the log", error))
    }

    /// The descriptor; from now on the bell is watched.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        if self.arm() {
            // Whoever polls it first is woken to ask for the bell.
            self.ring_after(SOON);
        }
        self.epoll.as_fd()
    }

    /// Whether the bell is watched: only then it makes sense to ask for its ring.
    pub(super) fn is_armed(&self) -> bool {
        self.bell.get().is_some()
    }

    /// Watches the bell. Whether it was not watched yet, and has to be asked for first.
    pub(super) fn arm(&self) -> bool {
        let was_armed = self.is_armed();
        self.bell.get_or_init(|| {
            let bell = Inotify::new().ok()?;
            bell.watch(&self.bell_path, Mask::MODIFY).ok()?;
            self.epoll.add(&bell, 0, Interest::Readable).ok()?;
            Some(bell)
        });
        !was_armed
    }

    /// Forgets what has rung so far. Whether the timer had.
    pub(super) fn clear(&mut self) -> bool {
        if let Some(Some(bell)) = self.bell.get() {
            // What comes meanwhile is not lost: the descriptor stays ready until it is read.
            let _ = bell.try_read(&mut self.rung);
        }
        self.timer.clear().is_ok_and(|expirations| expirations > 0)
    }

    /// Rings by itself after this time.
    pub(super) fn ring_after(&self, time: Duration) {
        let _ = self.timer.arm(time, None);
    }
}
