//! Pseudo-terminals: a terminal of which a program plays the person and the screen.
//!
//! Source: `pty(7)`, `posix_openpt(3)`, `ioctl_tty(2)` (`TIOCGPTPEER`, `TIOCSCTTY`, `TIOCSWINSZ`),
//! `termios(3)`, `credentials(7)` ("Sessions"), `setsid(2)`.
//!
//! What the [`Master`] writes is what is typed: the program on the slave reads it, line by line
//! unless it asked for single keys, and control keys become signals. What that program writes, the
//! master reads, with each `\n` turned into `\r\n`, and what was typed is echoed to it: [`Modes`]
//! says what of this is on.
//!
//! *Who died.* The master reads end of file once nobody has the slave open; what was written before
//! is read first. When the last descriptor of the master is closed, by its death too, the terminal
//! hangs up: the session's leader and the foreground process group get SIGHUP, reading the slave is
//! at end of file, writing to it gives `EIO`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize};

use crate::error::{Error, OfCall, Result};
use crate::io::{self, Deadline, Interest, retry, wait_for};

/// The master of a pseudo-terminal: what a person at the terminal would be.
///
/// A program is put on the other end with [`crate::process::Spawn::terminal`].
///
/// ```
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::process::Spawn;
/// use switchboard_kernel::pty::Master;
///
/// let master = Master::open()?;
/// let mut child = Spawn::new("tty").terminal(master.open_slave()?).spawn()?;
/// let mut screen = [0; 100];
/// let len = master.read(&mut screen)?;
/// assert!(screen[..len].starts_with(b"/dev/pts/"));
/// child.wait(Deadline::NEVER)?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct Master(OwnedFd);

impl Master {
    /// `posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)`, `unlockpt()`: a new terminal, which becomes
    /// nobody's controlling one. Reading and writing the master block.
    ///
    /// The slave belongs to this process's user and has the mode that the devpts file system is
    /// mounted with, commonly `0620`; `grantpt(3)` has nothing to do on Linux.
    ///
    /// # Errors
    /// `ENOSPC`: as many terminals as there may be; `EMFILE`, `ENFILE`: out of descriptors;
    /// `ENOENT`, `EACCES`: no usable `/dev/ptmx`, in a bare container say; `ENOMEM`.
    ///
    /// # Limits
    /// `/proc/sys/kernel/pty/max` in all, less those that `/proc/sys/kernel/pty/reserve` keeps for
    /// the first devpts file system, and the `max=` with which a file system is mounted.
    pub fn open() -> Result<Self> {
        Self::open_with(OFlags::empty())
    }

    /// As [`Master::open`], and neither reading nor writing the master ever blocks. The slave's
    /// descriptors are not affected.
    ///
    /// # Errors
    /// As [`Master::open`].
    pub fn open_nonblocking() -> Result<Self> {
        Self::open_with(OFlags::NONBLOCK)
    }

    fn open_with(flags: OFlags) -> Result<Self> {
        let flags = flags | OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = retry("open", || rustix::fs::open("/dev/ptmx", flags, Mode::empty()))?;
        rustix::pty::unlockpt(&fd).of("ioctl TIOCSPTLCK")?;
        Ok(Self(fd))
    }

    /// `ioctl(TIOCGPTPEER)`: opens the slave, wherever its file system is mounted. It does not
    /// become this process's controlling terminal.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: out of descriptors; `ENOMEM`.
    pub fn open_slave(&self) -> Result<OwnedFd> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        retry("ioctl TIOCGPTPEER", || rustix::pty::ioctl_tiocgptpeer(&self.0, flags))
    }

    /// `ptsname()`: the slave's path, for programs that open it by name: `/dev/pts/7`. It is right
    /// only where the same devpts file system is mounted; [`Master::open_slave`] always is.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn slave_path(&self) -> Result<PathBuf> {
        let name = rustix::pty::ptsname(&self.0, Vec::new()).of("ioctl TIOCGPTN")?;
        Ok(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
    }

    /// `read()`: what the terminal shows next. 0 at end of file: nobody has the slave open any more
    /// (the kernel says `EIO`).
    ///
    /// Blocks while there is nothing, unless non-blocking; also before the slave is opened for the
    /// first time. End of file is not for good: whoever opens the slave again ends it.
    ///
    /// # Errors
    /// `EAGAIN` on a non-blocking master with nothing to read.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        match io::read(&self.0, buffer) {
            Err(error) if error.errno() == libc::EIO => Ok(0),
            result => result,
        }
    }

    /// As [`Master::read`], waiting until the deadline passes.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the deadline passed.
    pub fn read_until(&self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        if !wait_for(&self.0, Interest::Readable, deadline)? {
            return Err(Error::new("read", Errno::TIMEDOUT));
        }
        self.read(buffer)
    }

    /// `write()`: types as much as fits, and says how much that was. A control key is a byte: `3` is
    /// Ctrl-C, `4` at the start of a line is end of file for the reader.
    ///
    /// Blocks while the program on the slave reads too slowly, unless non-blocking. It succeeds when
    /// nobody has the slave open: whoever opens it next reads that.
    ///
    /// # Errors
    /// `EAGAIN` on a non-blocking master.
    ///
    /// # Limits
    /// Some kilobytes wait for the program. A line that is longer than 4095 bytes loses the rest,
    /// unless the terminal is in raw mode.
    pub fn write(&self, keys: &[u8]) -> Result<usize> {
        io::write(&self.0, keys)
    }

    /// Types everything, however many calls that takes.
    ///
    /// # Errors
    /// As [`Master::write`]; what was typed before the error stays typed.
    pub fn write_all(&self, keys: &[u8]) -> Result<()> {
        io::write_all(&self.0, keys)
    }

    /// `ioctl(TIOCGPGRP)`: the foreground process group, which gets the signals of control keys.
    /// `None` while the terminal is no session's.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn foreground_group(&self) -> Result<Option<u32>> {
        match rustix::termios::tcgetpgrp(&self.0) {
            Ok(group) => Ok(u32::try_from(group.as_raw_nonzero().get()).ok()),
            // What rustix makes of the group 0.
            Err(Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::new("ioctl TIOCGPGRP", errno)),
        }
    }
}

impl AsFd for Master {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes over a master's descriptor that was inherited or received.
impl From<OwnedFd> for Master {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Master> for OwnedFd {
    fn from(master: Master) -> Self {
        master.0
    }
}

/// How large a terminal's window is, for programs that draw on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines of text; 0 is unknown.
    pub rows: u16,
    /// Characters in a line; 0 is unknown.
    pub columns: u16,
}

/// `ioctl(TIOCGWINSZ)`: the window's size, asked of the master or the slave. A new terminal's is
/// unknown.
///
/// # Errors
/// `ENOTTY`: not a terminal.
pub fn window_size(fd: impl AsFd) -> Result<WindowSize> {
    let size = rustix::termios::tcgetwinsize(fd).of("ioctl TIOCGWINSZ")?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// `ioctl(TIOCSWINSZ)`: sets the window's size, by the master or the slave. When it changed, the
/// foreground process group gets SIGWINCH.
///
/// # Errors
/// `ENOTTY`: not a terminal.
pub fn set_window_size(fd: impl AsFd, size: WindowSize) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(fd, size).of("ioctl TIOCSWINSZ")
}

/// `isatty()`: whether this is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// What the terminal does with what passes through it, as in `termios(3)`.
///
/// It belongs to the terminal, not to a descriptor: every program on it has the same, and it stays
/// when the program that changed it dies. Keep the modes there were, to set them again.
///
/// ```
/// use switchboard_kernel::pty::{Master, Modes};
///
/// let master = Master::open()?;
/// let before = Modes::of(&master)?;
/// before.clone().echo(false).set(&master)?;
/// assert!(!Modes::of(&master)?.echoes());
/// before.set(&master)?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Modes(Termios);

impl Modes {
    /// `tcgetattr()`: those of this terminal, asked of the master or the slave.
    ///
    /// # Errors
    /// `ENOTTY`: not a terminal.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        rustix::termios::tcgetattr(fd).of("tcgetattr").map(Self)
    }

    /// Raw: every byte passes as it is, at once: no lines, no echo, no signals by key, no `\r`.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.0.make_raw();
        self
    }

    /// Whether what is typed is shown. Off for passwords.
    #[must_use]
    pub fn echo(mut self, on: bool) -> Self {
        self.0.local_modes.set(LocalModes::ECHO, on);
        self
    }

    /// Whether the program gets what is typed line by line, after editing; else key by key.
    #[must_use]
    pub fn lines(mut self, on: bool) -> Self {
        self.0.local_modes.set(LocalModes::ICANON, on);
        self
    }

    /// Whether Ctrl-C, Ctrl-\ and Ctrl-Z are signals for the foreground process group.
    #[must_use]
    pub fn signals(mut self, on: bool) -> Self {
        self.0.local_modes.set(LocalModes::ISIG, on);
        self
    }

    /// Whether what is typed is shown.
    #[must_use]
    pub fn echoes(&self) -> bool {
        self.0.local_modes.contains(LocalModes::ECHO)
    }

    /// Whether the program gets whole lines.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.0.local_modes.contains(LocalModes::ICANON)
    }

    /// Whether control keys are signals.
    #[must_use]
    pub fn has_signals(&self) -> bool {
        self.0.local_modes.contains(LocalModes::ISIG)
    }

    /// `tcsetattr(TCSANOW)`: gives them to this terminal, by the master or the slave, at once.
    ///
    /// A program in the background of this very terminal is stopped by SIGTTOU instead.
    ///
    /// # Errors
    /// `ENOTTY`: not a terminal; `EIO`: it hung up.
    pub fn set(&self, fd: impl AsFd) -> Result<()> {
        let fd = fd.as_fd();
        retry("tcsetattr", || rustix::termios::tcsetattr(fd, OptionalActions::Now, &self.0))
    }
}
