//! Starting a program with chosen descriptors and nothing else of ours.
//!
//! Source: `fork(2)`, `execve(2)`, `dup(2)`, `close_range(2)`, `prctl(2)` (`PR_SET_PDEATHSIG`),
//! `setsid(2)`, `ioctl_tty(2)` (`TIOCSCTTY`), `signal-safety(7)`.

#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_int, c_uint};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::Child;
use crate::error::{Error, OfCall, Result, checked, last_errno};

/// A program to start.
///
/// The child gets descriptors 0, 1 and 2 (this process's own unless set) and those given by
/// [`Spawn::descriptor`], under exactly these numbers; every other one is closed, whether or not it
/// was close-on-exec. Its signal mask is empty and `SIGPIPE` and
/// `SIGXFSZ` at their defaults, as programs expect.
///
/// ```
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::process::Spawn;
///
/// let mut child = Spawn::new("true").spawn()?;
/// let status = child.wait(Deadline::NEVER)?;
/// assert!(status.is_some_and(|status| status.success()));
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct Spawn {
    command: Command,
    descriptors: Vec<(i32, OwnedFd)>,
    die_with_parent: bool,
    new_process_group: bool,
    terminal: Option<OwnedFd>,
}

impl Spawn {
    /// A program by path, or by name, which is then looked for in `PATH`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: Command::new(program),
            descriptors: Vec::new(),
            die_with_parent: false,
            new_process_group: false,
            terminal: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable, on top of those of this process.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Passes on none of this process's environment, and forgets what was set so far.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Starts it in this folder.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Its descriptor 0.
    #[must_use]
    pub fn stdin(mut self, fd: OwnedFd) -> Self {
        self.command.stdin(Stdio::from(fd));
        self
    }

    /// Its descriptor 1.
    #[must_use]
    pub fn stdout(mut self, fd: OwnedFd) -> Self {
        self.command.stdout(Stdio::from(fd));
        self
    }

    /// Its descriptor 2.
    #[must_use]
    pub fn stderr(mut self, fd: OwnedFd) -> Self {
        self.command.stderr(Stdio::from(fd));
        self
    }

    /// Its descriptor `number`, 3 or above. A later one replaces an earlier of the same number.
    #[must_use]
    pub fn descriptor(mut self, number: i32, fd: OwnedFd) -> Self {
        self.descriptors.retain(|(other, _)| *other != number);
        self.descriptors.push((number, fd));
        self
    }

    /// `setsid()`, `ioctl(TIOCSCTTY)`: the child leads a new session with this terminal, a slave of
    /// [`crate::pty::Master`], as its descriptors 0, 1 and 2 and as its controlling terminal.
    ///
    /// Its process group is in the foreground: control keys signal it, and SIGHUP tells it that the
    /// master is gone. [`Spawn::stdin`], [`Spawn::stdout`] and [`Spawn::stderr`] have no effect then,
    /// nor has [`Spawn::new_process_group`]: a session is a group of its own.
    ///
    /// [`Spawn::spawn`] gives `ENOTTY` if this is no terminal, and `EPERM` if it is the controlling
    /// terminal of another session.
    #[must_use]
    pub fn terminal(mut self, slave: OwnedFd) -> Self {
        self.terminal = Some(slave);
        self
    }

    /// `prctl(PR_SET_PDEATHSIG, SIGKILL)`: the child is killed when this process ends, however it
    /// ends.
    ///
    /// The kernel watches the *thread* that calls [`Spawn::spawn`]: call it from one that stays
    /// (the first, say). Executing a set-user-ID program cancels it; the child's own children do
    /// not inherit it.
    #[must_use]
    pub fn die_with_parent(mut self) -> Self {
        self.die_with_parent = true;
        self
    }

    /// `setpgid(0, 0)`: the child leads a process group of its own, which can be signalled as a
    /// whole and gets no Ctrl-C of the terminal.
    #[must_use]
    pub fn new_process_group(mut self) -> Self {
        self.new_process_group = true;
        self
    }

    /// `fork()`, `dup2()`, `close_range()`, `execve()`: starts it. Returns once the program runs,
    /// or could not be run.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`, `ENOEXEC`, `E2BIG`, … of `execve(2)`, also for the folder of
    /// [`Spawn::current_dir`]; `EAGAIN` at `RLIMIT_NPROC` or a cgroup's `pids.max`; `ENOMEM`;
    /// `EMFILE` at `RLIMIT_NOFILE`; `EINVAL` for a descriptor number below 3 or not below
    /// `RLIMIT_NOFILE`, and for a NUL in an argument; `EBUSY` when other threads open and close
    /// descriptors so fast that a number the child should have cannot be reserved.
    pub fn spawn(mut self) -> Result<Child> {
        let has_terminal = self.terminal.is_some();
        if let Some(slave) = self.terminal.take() {
            self.command.stdin(duplicate_from(&slave, 3)?);
            self.command.stdout(duplicate_from(&slave, 3)?);
            self.command.stderr(slave);
        } else if self.new_process_group {
            self.command.process_group(0);
        }
        let descriptors = std::mem::take(&mut self.descriptors);
        let parent = self.die_with_parent.then(rustix::process::getpid);
        let current = Arc::new(AtomicUsize::new(0));
        let mut result = Err(Error::new("dup2", Errno::BUSY));
        for attempt in 0..ATTEMPTS {
            let places = Places::reserve(&descriptors)?;
            let moves = places.moves;
            current.store(attempt, Ordering::Relaxed);
            let is_current = Arc::clone(&current);
            let child_side = move || {
                // The command keeps the closures of earlier attempts, and calls them too.
                if is_current.load(Ordering::Relaxed) != attempt {
                    return Ok(());
                }
                if let Some(parent) = parent {
                    die_with(parent)?;
                }
                if has_terminal {
                    take_terminal()?;
                }
                crate::signal::unblock_all();
                arrange(&moves)
            };
            // SAFETY: between fork and exec the closure makes system calls only, on memory made
            // before the fork: it allocates nothing and takes no lock.
            unsafe { self.command.pre_exec(child_side) };
            result = self.command.spawn().map_err(|error| spawn_error(&error, has_terminal));
            if !matches!(result, Err(error) if error.errno() == libc::EBUSY) {
                break;
            }
        }
        let mut started = result?;
        Child::adopt(started.id()).inspect_err(|_| {
            let _ = started.kill();
            let _ = started.wait();
        })
    }
}

/// One descriptor's way to its number in the child.
#[derive(Clone, Copy, Debug)]
struct Move {
    from: c_int,
    to: c_int,
    /// What this process had open under `to` just before it made the child.
    taken_by: Identity,
}

/// Device and inode of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

/// The numbers that the child's descriptors will have, kept occupied in this process.
///
/// While it starts a program, the standard library holds a pipe of its own, over which the child
/// tells that `execve` failed. Were that pipe to get one of these numbers, `dup2` would overwrite
/// it. So each number is occupied first; and where it is by something that another thread might
/// close, the child looks whether that is still what is there.
struct Places {
    moves: Vec<Move>,
    _held: Vec<OwnedFd>,
}

impl Places {
    fn reserve(descriptors: &[(i32, OwnedFd)]) -> Result<Self> {
        let mut held = Vec::new();
        let mut moves = Vec::new();
        for (to, fd) in descriptors {
            if *to < 3 {
                return Err(Error::new("dup2", Errno::INVAL));
            }
            let taken_by = occupy(*to, fd, &mut held)?;
            moves.push(Move { from: fd.as_raw_fd(), to: *to, taken_by });
        }
        // A source under one of the numbers would be overwritten before its turn. All numbers are
        // occupied by now, so that a copy is never under one of them.
        for (step, (_, fd)) in moves.iter_mut().zip(descriptors) {
            if descriptors.iter().any(|(to, _)| *to == step.from) {
                let copy = duplicate_from(fd, 3)?;
                step.from = copy.as_raw_fd();
                held.push(copy);
            }
        }
        Ok(Self { moves, _held: held })
    }
}

/// Makes sure that a number is open here, and says with what.
fn occupy(number: c_int, fd: &OwnedFd, held: &mut Vec<OwnedFd>) -> Result<Identity> {
    for _ in 0..ATTEMPTS {
        let copy = duplicate_from(fd, number)?;
        if copy.as_raw_fd() == number {
            let identity = identity(number).of("fstat")?;
            held.push(copy);
            return Ok(identity);
        }
        // Taken, by somebody else; unless it was closed just now.
        if let Ok(identity) = identity(number) {
            return Ok(identity);
        }
    }
    Err(Error::new("dup2", Errno::BUSY))
}

/// How often a spawn starts over because other threads' descriptors moved meanwhile.
const ATTEMPTS: usize = 16;

fn duplicate_from(fd: impl AsFd, lowest: c_int) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, lowest).of("fcntl F_DUPFD_CLOEXEC")
}

/// Safe to call between fork and exec.
fn identity(number: c_int) -> core::result::Result<Identity, Errno> {
    // SAFETY: stat is integers only; all zeroes is a valid value.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: fstat takes any number, open or not, and writes one stat, which `found` is.
    checked(unsafe { libc::fstat(number, &raw mut found) })?;
    Ok(Identity(found.st_dev, found.st_ino))
}

/// In the child: nothing but the chosen descriptors stays open across `execve`.
fn arrange(moves: &[Move]) -> io::Result<()> {
    // SAFETY: SIG_DFL is a valid disposition, and setting it is allowed between fork and execve.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    for step in moves {
        // Not open (any more) is as good as unchanged.
        if identity(step.to).is_ok_and(|found| found != step.taken_by) {
            return Err(Errno::BUSY.into());
        }
    }
    let (first, last, flags): (c_uint, c_uint, c_uint) = (3, c_uint::MAX, CLOSE_RANGE_CLOEXEC);
    // SAFETY: with this flag close_range closes nothing now, it only marks.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } < 0 {
        return Err(last_errno().into());
    }
    for step in moves {
        // SAFETY: what is under `to` is a copy made for this, or a descriptor of the parent's that
        // only the parent uses; the child runs no other code that might use it.
        checked(unsafe { libc::dup2(step.from, step.to) })?;
    }
    Ok(())
}

/// From `linux/close_range.h`.
const CLOSE_RANGE_CLOEXEC: c_uint = 4;

/// In the child: ties its life to the parent's.
fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before that took effect; then the child has another one by now.
    if rustix::process::getppid() != Some(parent) {
        return Err(Errno::SRCH.into());
    }
    Ok(())
}

/// In the child: a new session, whose terminal is descriptor 0.
fn take_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    Ok(())
}

fn spawn_error(error: &io::Error, has_terminal: bool) -> Error {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::INVAL);
    let call = match errno {
        Errno::NOTTY | Errno::PERM if has_terminal => "ioctl TIOCSCTTY",
        Errno::AGAIN | Errno::NOMEM => "fork",
        Errno::BUSY => "dup2",
        // The pipe over which the child tells that `execve` failed.
        Errno::MFILE | Errno::NFILE => "pipe2",
        _ => "execve",
    };
    Error::new(call, errno)
}
