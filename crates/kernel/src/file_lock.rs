//! Locks on files: `flock`, POSIX record locks, and open-file-description locks.
//!
//! Source: `flock(2)`, `fcntl(2)` ("Advisory record locking", "Open file description locks"),
//! `proc_locks(5)`.
//!
//! All three are advisory: they keep out who asks, and nobody else. The kernel releases them when
//! the holder dies, however it dies.
//!
//! | | [`Lock::flock`] | [`Lock::process`] | [`Lock::open_file`] |
//! |---|---|---|---|
//! | belongs to | the open file: copies and forked children share it | the process | the open file, as `flock` |
//! | covers | the whole file | a range of bytes | a range of bytes |
//! | two threads keep each other out | if each opens the file | never | if each opens the file |
//! | released at the latest when | the last copy is closed | **any** descriptor of the file is closed in the process | the last copy is closed |
//! | changing between shared and exclusive | may lose the lock | atomic | atomic |
//! | a circle of waiters | hangs | `EDEADLK` | hangs |
//! | who holds it | not to be had | process id | not to be had |
//!
//! *The trap of POSIX locks.* A process that opens the file a second time, perhaps in a library that
//! only reads it, and closes that, has lost all its [`Lock::process`] locks on the file, and nothing
//! tells it. Prefer [`Lock::open_file`].
//!
//! `flock` locks and the other two do not see each other (on NFS they do). `flock` is among the
//! oldest and simplest; the other two keep each other out.

#![allow(unsafe_code)]

mod guard;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::{c_int, c_short, off_t};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked};
use crate::io::{Deadline, retry};

pub use guard::{Converted, Guard};

/// Whether others may hold it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For reading: any number of holders.
    Shared,
    /// For writing: one holder, and no shared one.
    Exclusive,
}

/// Some bytes of a file, which need not be there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// How many bytes; 0 means up to the end of the file, however far it grows.
    pub len_bytes: u64,
}

impl Range {
    /// The whole file, however far it grows.
    pub const WHOLE: Self = Self { start: 0, len_bytes: 0 };
}

/// Which lock to take.
///
/// ```
/// use switchboard_kernel::file_lock::{Lock, Mode, Range};
///
/// # let path = std::env::temp_dir().join(format!("file_lock-{}", std::process::id()));
/// let open = || std::fs::File::options().create(true).read(true).write(true).open(&path);
/// let (mine, theirs) = (open()?, open()?);
/// let lock = Lock::open_file(Mode::Exclusive).range(Range { start: 0, len_bytes: 16 });
///
/// let guard = lock.try_lock(&mine)?.expect("nobody has it");
/// assert!(lock.try_lock(&theirs)?.is_none());
/// drop(guard);
/// assert!(lock.try_lock(&theirs)?.is_some());
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    kind: Kind,
    mode: Mode,
    range: Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flock,
    Process,
    OpenFile,
}

/// A lock that stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its mode.
    pub mode: Mode,
    /// What it covers.
    pub range: Range,
    /// The process that has it; `None` for an open-file-description lock, which is no process's
    /// (`-1`), and for a process in a namespace that this one does not see.
    pub pid: Option<u32>,
}

impl Lock {
    /// A lock of `flock(2)`: of the open file, on all of it.
    ///
    /// Any descriptor of the file will do, whatever it was opened for (on NFS as for the others).
    #[must_use]
    pub fn flock(mode: Mode) -> Self {
        Self { kind: Kind::Flock, mode, range: Range::WHOLE }
    }

    /// A POSIX record lock, `fcntl(F_SETLK)`: of the process. Mind the trap told above.
    ///
    /// A shared one needs a descriptor open for reading, an exclusive one for writing. Two guards of
    /// one process with ranges that overlap are one lock: the first that goes releases the overlap.
    /// A forked child has none of them.
    #[must_use]
    pub fn process(mode: Mode) -> Self {
        Self { kind: Kind::Process, mode, range: Range::WHOLE }
    }

    /// An open-file-description lock, `fcntl(F_OFD_SETLK)`: of the open file.
    ///
    /// A shared one needs a descriptor open for reading, an exclusive one for writing. Two guards
    /// on copies of one descriptor with ranges that overlap are one lock.
    #[must_use]
    pub fn open_file(mode: Mode) -> Self {
        Self { kind: Kind::OpenFile, mode, range: Range::WHOLE }
    }

    /// Only these bytes. Not for [`Lock::flock`].
    #[must_use]
    pub fn range(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    /// `flock(LOCK_SH | LOCK_EX)`, `fcntl(F_SETLKW)` or `fcntl(F_OFD_SETLKW)`: blocks until it has
    /// the lock.
    ///
    /// Waiters are not served in any promised order. A signal does not end the wait. A holder that
    /// dies lets go, one that is stopped does not.
    ///
    /// # Errors
    /// `EDEADLK`: of [`Lock::process`] only, the holder waits for a lock of this process, directly
    /// or round a circle; `EBADF`: the file is not open for what the mode needs; `EINVAL`: a range
    /// for `flock`, one beyond 2^63 - 1, or a descriptor of something that cannot be locked;
    /// `EOVERFLOW`: a range that ends beyond 2^63 - 1; `ENOLCK`: no memory for it, or the server of
    /// a network file system refuses.
    pub fn lock<F: AsFd>(self, file: &F) -> Result<Guard<'_>> {
        retry(self.call(), || self.set(file.as_fd(), Wait::Blocks))?;
        Ok(Guard::new(file.as_fd(), self))
    }

    /// As [`Lock::lock`], but a signal whose handler was installed without `SA_RESTART`
    /// ([`Handler::install_interrupting`](crate::signal::Handler::install_interrupting)) ends the
    /// wait of the thread it runs in.
    ///
    /// A signal that comes just before the wait begins does not end it; so whoever wants to end it
    /// sends signals until it has ended.
    ///
    /// # Errors
    /// `EINTR`: a signal came; else as [`Lock::lock`].
    pub fn lock_interruptible<F: AsFd>(self, file: &F) -> Result<Guard<'_>> {
        self.set(file.as_fd(), Wait::Blocks).of(self.call())?;
        Ok(Guard::new(file.as_fd(), self))
    }

    /// `flock(LOCK_NB)`, `fcntl(F_SETLK)` or `fcntl(F_OFD_SETLK)`: `None` if somebody has a lock
    /// that stands in the way. Never blocks.
    ///
    /// # Errors
    /// As [`Lock::lock`], without `EDEADLK`.
    pub fn try_lock<F: AsFd>(self, file: &F) -> Result<Option<Guard<'_>>> {
        Ok(self.attempt(file.as_fd())?.then(|| Guard::new(file.as_fd(), self)))
    }

    /// As [`Lock::lock`], until the deadline: `None` when it passed first.
    ///
    /// The kernel has no such call. This asks again and again, after pauses of 1 ms that double up
    /// to 32 ms: it may take the lock that much later than it could, and it has no place among
    /// waiters, so that a lock for which others wait may never come its way. With
    /// [`Deadline::NEVER`] it is [`Lock::lock`].
    ///
    /// # Errors
    /// As [`Lock::try_lock`].
    pub fn lock_until<F: AsFd>(self, file: &F, deadline: Deadline) -> Result<Option<Guard<'_>>> {
        if deadline == Deadline::NEVER {
            return self.lock(file).map(Some);
        }
        let mut pause = SHORTEST_PAUSE;
        while !self.attempt(file.as_fd())? {
            let left = deadline.remaining().unwrap_or_default();
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(Some(Guard::new(file.as_fd(), self)))
    }

    /// `fcntl(F_GETLK)` or `fcntl(F_OFD_GETLK)`: a lock that stands in this one's way, if there is
    /// one; of several, any.
    ///
    /// Old as soon as it is told: taking the lock is the only way to know that it can be taken. A
    /// [`Lock::process`] does not see locks of its own process.
    ///
    /// # Errors
    /// `EINVAL` for [`Lock::flock`], of which only `/proc/locks` tells; else as [`Lock::lock`].
    pub fn holder<F: AsFd>(self, file: &F) -> Result<Option<Holder>> {
        let command = match self.kind {
            Kind::Flock => return Err(Error::new("fcntl F_GETLK", Errno::INVAL)),
            Kind::Process => libc::F_GETLK,
            Kind::OpenFile => libc::F_OFD_GETLK,
        };
        let found = self
            .description(self.mode.record_type())
            .and_then(|wanted| control(file.as_fd(), command, wanted))
            .of("fcntl F_GETLK")?;
        let mode = match c_int::from(found.l_type) {
            libc::F_UNLCK => return Ok(None),
            libc::F_RDLCK => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let range = Range {
            start: u64::try_from(found.l_start).unwrap_or(0),
            len_bytes: u64::try_from(found.l_len).unwrap_or(0),
        };
        let pid = u32::try_from(found.l_pid).ok().filter(|pid| *pid != 0);
        Ok(Some(Holder { mode, range, pid }))
    }

    fn attempt(self, file: BorrowedFd<'_>) -> Result<bool> {
        retry(self.call(), || match self.set(file, Wait::Tries) {
            // POSIX allows both for record locks.
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            other => other.map(|()| true),
        })
    }

    fn set(self, file: BorrowedFd<'_>, wait: Wait) -> core::result::Result<(), Errno> {
        use FlockOperation as F;
        if self.kind != Kind::Flock {
            return self.set_record(file, wait, self.mode.record_type());
        }
        if self.range != Range::WHOLE {
            return Err(Errno::INVAL);
        }
        let operation = match (self.mode, wait) {
            (Mode::Shared, Wait::Blocks) => F::LockShared,
            (Mode::Shared, Wait::Tries) => F::NonBlockingLockShared,
            (Mode::Exclusive, Wait::Blocks) => F::LockExclusive,
            (Mode::Exclusive, Wait::Tries) => F::NonBlockingLockExclusive,
        };
        rustix::fs::flock(file, operation)
    }

    pub(crate) fn unset(self, file: BorrowedFd<'_>) -> core::result::Result<(), Errno> {
        match self.kind {
            Kind::Flock => rustix::fs::flock(file, FlockOperation::Unlock),
            _ => self.set_record(file, Wait::Tries, libc::F_UNLCK),
        }
    }

    fn set_record(
        self,
        file: BorrowedFd<'_>,
        wait: Wait,
        record_type: c_int,
    ) -> core::result::Result<(), Errno> {
        let command = match (self.kind, wait) {
            (Kind::OpenFile, Wait::Blocks) => libc::F_OFD_SETLKW,
            (Kind::OpenFile, Wait::Tries) => libc::F_OFD_SETLK,
            (_, Wait::Blocks) => libc::F_SETLKW,
            (_, Wait::Tries) => libc::F_SETLK,
        };
        control(file, command, self.description(record_type)?).map(drop)
    }

    fn description(self, record_type: c_int) -> core::result::Result<libc::flock, Errno> {
        // SAFETY: flock is integers; all zeroes is a valid value.
        let mut description: libc::flock = unsafe { core::mem::zeroed() };
        let offset = |bytes: u64| off_t::try_from(bytes).map_err(|_| Errno::INVAL);
        description.l_type = short(record_type);
        description.l_whence = short(libc::SEEK_SET);
        description.l_start = offset(self.range.start)?;
        description.l_len = offset(self.range.len_bytes)?;
        Ok(description)
    }

    fn call(self) -> &'static str {
        match self.kind {
            Kind::Flock => "flock",
            Kind::Process => "fcntl F_SETLK",
            Kind::OpenFile => "fcntl F_OFD_SETLK",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    Blocks,
    Tries,
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

impl Mode {
    fn record_type(self) -> c_int {
        match self {
            Self::Shared => libc::F_RDLCK,
            Self::Exclusive => libc::F_WRLCK,
        }
    }
}

/// One of the command's record-lock operations; what the kernel left in the description.
fn control(
    file: BorrowedFd<'_>,
    command: c_int,
    mut description: libc::flock,
) -> core::result::Result<libc::flock, Errno> {
    // SAFETY: these commands read and write one flock, which `description` is.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut description) })?;
    Ok(description)
}

/// Small constants, which the structure keeps in 16 bits.
#[allow(clippy::cast_possible_truncation)]
fn short(constant: c_int) -> c_short {
    constant as c_short
}
