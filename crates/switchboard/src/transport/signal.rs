//! `signal:PID/SIGNAL`: signals, which carry events to a process, with a number.
//!
//! Source: `signal(7)`, `pidfd_send_signal(2)`, `signalfd(2)`. The notifier names the process and
//! holds it by a pidfd, so that it can never hit another one that has the number later. The listener
//! takes signals sent to its own process: `signal:self/SIGUSR1`. It blocks the signal in the thread
//! that opens it, for good: what comes after the listener is closed stays pending, and does not kill.
//!
//! Real-time signals (SIGRTMIN and above) are queued, each with its number, in order. The others are
//! flags: one that comes while another is pending is merged with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use switchboard_kernel as kernel;
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::pidfd;
use switchboard_kernel::signal::{self, Code, Received, Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;

use super::{ListenerFlavor, NotifierFlavor, Setup, wait_or_cancel};
use crate::address::Target;
use crate::error::{Error, ErrorKind, WaitError};
use crate::pattern::event::{Occurrence, Origin};

pub(crate) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    let (pid, signal) = target(setup)?;
    let pid = pid.unwrap_or_else(std::process::id);
    let process = pidfd::open(pid).map_err(|error| gone(setup, pid, error))?;
    Ok(NotifierFlavor::Signal(SignalNotifier { setup: setup.again(), pid, process, signal }))
}

pub(crate) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    let (pid, signal) = target(setup)?;
    let address = &setup.address;
    if pid.is_some_and(|pid| pid != std::process::id()) {
        let problem = "a process can only wait for signals that are sent to itself";
        return Err(Error::new(ErrorKind::NotSupported, address, problem)
            .hint(format!("listen at signal:self/{signal}; notifiers name this process")));
    }
    if FAULTS.contains(&signal) {
        let problem = format!("{signal} is the kernel's word for a fault of this process");
        return Err(Error::new(ErrorKind::NotSupported, address, problem)
            .hint("take SIGUSR1, SIGUSR2 or one from SIGRTMIN to SIGRTMAX"));
    }
    let set = SignalSet::from(signal);
    signal::block(&set).map_err(|error| setup.system("cannot block the signal", error))?.keep();
    let signals =
        SignalFd::new(&set).map_err(|error| setup.system("cannot watch for signals", error))?;
    Ok(ListenerFlavor::Signal(SignalListener { setup: setup.again(), signal, signals }))
}

/// Blocked, they would kill where they can be survived now.
const FAULTS: [Signal; 4] = [Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL];

fn target(setup: &Setup) -> Result<(Option<u32>, Signal), Error> {
    match setup.address.target {
        Target::Signal { pid, signal } => Ok((pid, signal)),
        _ => Err(Error::new(ErrorKind::BadAddress, &setup.address, "no signal")),
    }
}

fn gone(setup: &Setup, pid: u32, error: kernel::Error) -> Error {
    if error.name() == "ESRCH" {
        let problem = format!("there is no process {pid}");
        return Error::new(ErrorKind::NotFound, &setup.address, problem);
    }
    setup.system("cannot reach the process", error)
}

#[derive(Debug)]
pub(crate) struct SignalNotifier {
    setup: Setup,
    pid: u32,
    process: OwnedFd,
    signal: Signal,
}

impl SignalNotifier {
    pub(crate) fn notify(&self, value: Option<i32>) -> Result<(), Error> {
        let sent = match value {
            // Without a number, the kernel vouches for the sender. But of real-time signals only
            // those with a number are sure to be queued, or refused.
            None if !self.signal.is_real_time() => signal::send_pidfd(&self.process, self.signal),
            value => signal::queue_pidfd(&self.process, self.signal, value.unwrap_or(0)),
        };
        sent.map_err(|error| match error.name() {
            "EAGAIN" => self
                .setup
                .system("cannot notify", error)
                .kinded(ErrorKind::LimitReached)
                .hint(format!(
                    "too many signals are pending for its user: RLIMIT_SIGPENDING of process {} \
                     (SigQ in /proc/{}/status)",
                    self.pid, self.pid
                )),
            "EPERM" => self
                .setup
                .system("cannot notify", error)
                .hint("a signal goes to processes of the same user, unless root sends it"),
            _ => gone(&self.setup, self.pid, error),
        })
    }
}

#[derive(Debug)]
pub(crate) struct SignalListener {
    setup: Setup,
    signal: Signal,
    signals: SignalFd,
}

impl SignalListener {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    pub(crate) fn local_address(&self) -> String {
        format!("signal:{}/{}", std::process::id(), self.signal)
    }

    pub(crate) fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        let taken = self.signals.try_next();
        let taken = taken.map_err(|error| self.setup.system("cannot wait", error))?;
        Ok(taken.map(|received| occurrence(&received)))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<Occurrence, WaitError> {
        loop {
            if let Some(occurrence) = self.try_wait()? {
                return Ok(occurrence);
            }
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            let cancel = self.setup.options.cancel.as_ref();
            match wait_or_cancel(self.signals.as_fd(), Interest::Readable, cancel, deadline) {
                Ok(true) => {}
                Ok(false) => return Err(WaitError::Interrupted),
                Err(error) => return Err(self.setup.system("cannot wait", error).into()),
            }
        }
    }
}

fn occurrence(received: &Received) -> Occurrence {
    let origin = |pid| Origin { pid, uid: received.uid, verified: received.is_sender_verified() };
    Occurrence {
        id: 0,
        count: 1,
        merged: !received.signal.is_real_time(),
        value: received.value.filter(|_| received.code == Code::Queue),
        from: received.pid.map(origin),
    }
}
