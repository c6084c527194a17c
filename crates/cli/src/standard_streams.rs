//! Standard input and output, read and written so that a signal ends every wait.
//!
//! Source: `read(2)`, `write(2)`, `pipe(7)`, `proc(5)` (`/proc/PID/fd`).

use std::fs::{File, OpenOptions};
use std::io::{Stdin, Stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use switchboard::{Bytes, SendError, Sender};
use switchboard_kernel as kernel;
use switchboard_kernel::ErrorKind;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;
use switchboard_kernel::process::started_without;

use crate::exit_code::Exit;
use crate::interrupt::{Interrupt, wait_for};
use crate::output::Failure;

/// Whether standard input can be read; as [`require_stdout`].
///
/// # Errors
/// It was closed.
pub(crate) fn require_stdin() -> Result<(), Failure> {
    if started_without(0) {
        return Err(Failure::new(Exit::Failed, "standard input is closed")
            .hint("to send nothing, give it /dev/null: < /dev/null"));
    }
    Ok(())
}

/// Whether results can be printed. What was closed when the command was started is on `/dev/null` by
/// now: writing to it would lose them without an error.
///
/// # Errors
/// It was closed.
pub(crate) fn require_stdout() -> Result<(), Failure> {
    if started_without(1) {
        return Err(Failure::new(Exit::Failed, "standard output is closed")
            .hint("to throw results away, give it /dev/null: > /dev/null"));
    }
    Ok(())
}

/// What a pipe at either end is grown to; an ordinary user gets as much.
const PIPE_BYTES: usize = 1 << 20;

/// Standard input.
#[derive(Debug)]
pub(crate) struct Input {
    stdin: Stdin,
}

/// Why nothing was read.
#[derive(Debug)]
pub(crate) enum ReadStop {
    /// The sender said so while standard input had nothing.
    Send(SendError),
    /// Standard input cannot be read.
    Failed(kernel::Error),
}

impl Input {
    pub(crate) fn new() -> Self {
        let stdin = std::io::stdin();
        pipe::grow(&stdin, PIPE_BYTES);
        Self { stdin }
    }

    /// Waits until something can be read. Meanwhile the sender moves: it takes acknowledgements, and
    /// gives the messages of a dead receiver to another.
    pub(crate) fn wait(
        &self,
        interrupt: &Interrupt,
        sender: &mut Sender<Bytes>,
        moves: bool,
    ) -> Result<(), ReadStop> {
        loop {
            let stdin = (self.stdin.as_fd(), Interest::Readable);
            let cancel = (interrupt.fd(), Interest::Readable);
            let third = if moves { sender.as_fd() } else { cancel.0 };
            let ready = io::poll([stdin, cancel, (third, Interest::Readable)], Deadline::NEVER)
                .map_err(ReadStop::Failed)?;
            if ready[1].any() {
                return Err(ReadStop::Send(SendError::Interrupted));
            }
            if ready[0].any() {
                return Ok(());
            }
            sender.drive().map_err(ReadStop::Send)?;
        }
    }

    /// Reads what is there; 0 at the end.
    pub(crate) fn read(&self, room: &mut [u8]) -> kernel::Result<usize> {
        loop {
            match io::read(&self.stdin, room) {
                // Somebody else made it non-blocking, and took what was there.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    io::wait_for(&self.stdin, Interest::Readable, Deadline::NEVER)?;
                }
                result => return result,
            }
        }
    }
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Stdout,
    /// A pipe, opened once more: non-blocking for us and for nobody else.
    pipe: Option<File>,
}

/// Why not everything was written.
#[derive(Debug)]
pub(crate) enum WriteStop {
    /// Nobody reads it any more.
    Closed,
    /// A signal came.
    Interrupted,
    /// It cannot be written.
    Failed(kernel::Error),
}

impl Output {
    pub(crate) fn new() -> Self {
        let stdout = std::io::stdout();
        let mut own = None;
        if pipe::is_pipe(&stdout) {
            pipe::grow(&stdout, PIPE_BYTES);
            let again = OpenOptions::new().write(true).custom_flags(io::NONBLOCK).open(SELF);
            own = again.ok();
        }
        Self { stdout, pipe: own }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_ref().map_or(self.stdout.as_fd(), AsFd::as_fd)
    }

    /// Writes everything. What is no pipe (a terminal, a file) blocks for as long as it does.
    pub(crate) fn write(&self, mut bytes: &[u8], interrupt: &Interrupt) -> Result<(), WriteStop> {
        while !bytes.is_empty() {
            match io::write(self.fd(), bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) => match error.kind() {
                    ErrorKind::BrokenPipe => return Err(WriteStop::Closed),
                    ErrorKind::WouldBlock => {
                        match wait_for(self.fd(), Interest::Writable, interrupt) {
                            Ok(true) => {}
                            Ok(false) => return Err(WriteStop::Interrupted),
                            Err(error) => return Err(WriteStop::Failed(error)),
                        }
                    }
                    _ => return Err(WriteStop::Failed(error)),
                },
            }
        }
        Ok(())
    }
}

const SELF: &str = "/proc/self/fd/1";
