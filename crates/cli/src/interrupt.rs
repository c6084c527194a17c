//! Ending on request: SIGINT, SIGTERM, SIGHUP, a clock for `--timeout`, and a standard output that nobody
//! reads any more.
//!
//! Source: `signal(7)`, the self-pipe trick, `poll(2)` (`POLLERR`). A signal makes a descriptor readable, which every wait
//! of the library and of the command watches; so a command that is interrupted returns through its
//! own code, and its sockets and FIFOs are removed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;
use switchboard_kernel::signal::{self, Signal};
use switchboard_kernel::timerfd::TimerFd;

use crate::exit_code::Exit;
use crate::output::{Failure, system};

/// What ends waits: a signal, a clock that ran out, or a closed standard output.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// Readable once a signal came.
    signals: Arc<OwnedFd>,
    trip: OwnedFd,
    clock: Option<Clock>,
    /// Standard output is watched: what waits would print.
    prints: bool,
    cancel: Arc<OwnedFd>,
}

#[derive(Debug)]
struct Clock {
    timer: TimerFd,
    timeout: Duration,
}

impl Interrupt {
    /// Takes over the [`ending_signals`]. With a timeout there is a clock, which does not run yet.
    ///
    /// # Errors
    /// When this process may have no more descriptors.
    pub(crate) fn watch(timeout: Option<Duration>) -> Result<Self, Failure> {
        Self::new(timeout, false).map_err(|error| system("cannot watch for signals", error))
    }

    /// As [`watch`](Self::watch), for a command that waits for what it prints: when nobody reads its
    /// standard output any more, the wait ends, too, rather than the next write fail.
    ///
    /// # Errors
    /// When this process may have no more descriptors.
    pub(crate) fn watch_output() -> Result<Self, Failure> {
        Self::new(None, true).map_err(|error| system("cannot watch for signals", error))
    }

    fn new(timeout: Option<Duration>, prints: bool) -> switchboard_kernel::Result<Self> {
        let (signals, trip) = pipe::pipe_nonblocking()?;
        let signals = Arc::new(signals);
        for signal in ending_signals() {
            let end = io::duplicate(&trip)?;
            // It fails for signals that cannot be caught, which these are not.
            let _ = signal_hook::low_level::pipe::register(signal, end);
        }
        if timeout.is_none() && !prints {
            let cancel = Arc::clone(&signals);
            return Ok(Self { signals, trip, clock: None, prints, cancel });
        }
        let all = Epoll::new()?;
        all.add(&signals, 0, Interest::Readable)?;
        let clock = match timeout {
            Some(timeout) => Some(Clock { timer: TimerFd::new()?, timeout }),
            None => None,
        };
        if let Some(clock) = &clock {
            all.add(&clock.timer, 1, Interest::Readable)?;
        }
        // A file cannot be watched, and is never closed by others.
        let prints = prints && all.add(std::io::stdout(), 2, Interest::HangUp).is_ok();
        let cancel = Arc::new(io::duplicate(&all)?);
        Ok(Self { signals, trip, clock, prints, cancel })
    }

    /// Readable when waits should end; for [`switchboard::Options::cancel`].
    pub(crate) fn cancel(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.cancel)
    }

    /// The same, to be polled.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.cancel.as_fd()
    }

    /// Starts the clock, or starts it again.
    pub(crate) fn start_clock(&self) {
        if let Some(clock) = &self.clock {
            // A timer of this process can always be set.
            let _ = clock.timer.arm(clock.timeout, None);
        }
    }

    /// Stops the clock: what is waited for now may take as long as it likes.
    pub(crate) fn stop_clock(&self) {
        if let Some(clock) = &self.clock {
            let _ = clock.timer.disarm();
        }
    }

    /// Whether a signal came.
    pub(crate) fn is_signalled(&self) -> bool {
        let now = Deadline::after(Duration::ZERO);
        io::wait_for(&self.signals, Interest::Readable, now).unwrap_or(false)
    }

    /// Whether nobody reads what would be printed.
    pub(crate) fn is_output_closed(&self) -> bool {
        let now = Deadline::after(Duration::ZERO);
        self.prints && io::wait_for(std::io::stdout(), Interest::HangUp, now).unwrap_or(false)
    }

    /// Ends every wait from now on, so that what is dropped lets go at once.
    pub(crate) fn give_up(&self) {
        let _ = io::write(&self.trip, &[0]);
    }

    /// The failure of a command that was interrupted: what was done, and what was not.
    /// A closed standard output needs no words.
    pub(crate) fn failure(&self, account: &str) -> Failure {
        if self.is_output_closed() && !self.is_signalled() {
            return Failure::quiet();
        }
        match &self.clock {
            Some(clock) if !self.is_signalled() => {
                let message = format!("timed out after {:?}: {account}", clock.timeout);
                Failure::new(Exit::Nothing, message)
            }
            _ => Failure::new(Exit::Failed, format!("interrupted: {account}")),
        }
    }
}

/// The signals that ask a command to end: Ctrl-C, `kill`, a terminal that is closed. SIGHUP is none
/// of them where it was ignored from the start (`nohup`).
pub(crate) fn ending_signals() -> impl Iterator<Item = i32> {
    let outlives_terminal = signal::is_ignored(Signal::HUP).unwrap_or(false);
    [SIGINT, SIGTERM].into_iter().chain((!outlives_terminal).then_some(SIGHUP))
}

/// Waits for a descriptor. `false` when interrupted.
///
/// # Errors
/// As `poll(2)`.
pub(crate) fn wait_for(
    fd: BorrowedFd<'_>,
    interest: Interest,
    interrupt: &Interrupt,
) -> switchboard_kernel::Result<bool> {
    let ready = io::poll([(fd, interest), (interrupt.fd(), Interest::Readable)], Deadline::NEVER)?;
    Ok(!ready[1].any())
}
