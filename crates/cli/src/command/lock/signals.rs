//! SIGINT, SIGTERM and SIGHUP of a command that waits for a lock, or runs another with it.
//!
//! Source: `signal(7)`, `signalfd(2)`, `setpgid(2)`.
//!
//! Nothing can end a wait for a lock, not even a signal. So a thread listens meanwhile, and ends the process.

use std::process::ExitStatus;
use std::time::Duration;

use std::os::fd::AsFd;

use switchboard_kernel as kernel;
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::process::{Child, Signal};
use switchboard_kernel::signal::{self, Code, SignalSet};
use switchboard_kernel::signalfd::SignalFd;

use crate::exit_code::Exit;

/// A lock that was got just when a signal came is given back within this time.
const MOMENT: Duration = Duration::from_millis(50);

/// The signals, which do nothing by themselves any more.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Takes over those that were not ignored from the start.
    pub(super) fn take_over() -> kernel::Result<Self> {
        let heeded = |signal: &Signal| !signal::is_ignored(*signal).unwrap_or(false);
        let signals = [Signal::INT, Signal::TERM, Signal::HUP].into_iter().filter(heeded);
        let set = signals.fold(SignalSet::empty(), SignalSet::with);
        let fd = SignalFd::new(&set)?;
        // The command is started with none blocked.
        signal::block(&set)?.keep();
        Ok(Self(fd))
    }

    /// Waits for a lock. On a signal the process ends, after `abandon`; or the lock came at the same
    /// time, and is given back: `None`.
    pub(super) fn interruptible<T>(
        &self,
        wait: impl FnOnce() -> T,
        abandon: impl Fn() + Sync,
    ) -> kernel::Result<Option<T>> {
        let over = EventFd::new(0)?;
        std::thread::scope(|scope| {
            let listen = || self.listen(&over, &abandon);
            let listener = std::thread::Builder::new().spawn_scoped(scope, listen);
            let listener = listener.map_err(|error| {
                kernel::Error::from_raw("pthread_create", error.raw_os_error().unwrap_or_default())
            })?;
            let waited = wait();
            over.add(1)?;
            let is_interrupted = listener.join().unwrap_or(Ok(false))?;
            Ok((!is_interrupted).then_some(waited))
        })
    }

    /// Until the wait is over; whether a signal came before.
    fn listen(&self, over: &EventFd, abandon: &(impl Fn() + Sync)) -> kernel::Result<bool> {
        let both = [(over.as_fd(), Interest::Readable), (self.0.as_fd(), Interest::Readable)];
        let [_, signalled] = io::poll(both, Deadline::NEVER)?;
        if signalled.any() && !io::wait_for(over, Interest::Readable, Deadline::after(MOMENT))? {
            abandon();
            end();
        }
        Ok(signalled.any())
    }

    /// Waits for the end of a command, and passes signals on to it.
    ///
    /// Those of the terminal it gets itself, for it is in this process's group.
    pub(super) fn pass_on_until_end(&self, child: &mut Child) -> kernel::Result<ExitStatus> {
        loop {
            let both = [(child.pidfd(), Interest::Readable), (self.0.as_fd(), Interest::Readable)];
            if io::poll(both, Deadline::NEVER)?[0].any()
                && let Some(status) = child.wait(Deadline::NEVER)?
            {
                return Ok(status);
            }
            while let Some(received) = self.0.try_next()? {
                if !matches!(received.code, Code::Kernel(_)) {
                    // If it has ended meanwhile, the next look says so.
                    let _ = child.signal(received.signal);
                }
            }
        }
    }
}

/// The other thread waits where nothing can wake it.
#[allow(clippy::exit)]
fn end() -> ! {
    std::process::exit(i32::from(u8::from(Exit::Failed)))
}
