//! Looking again and again, where the kernel tells nobody: a timer that stands in for a descriptor.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::timerfd::TimerFd;

use super::{Setup, wait_or_cancel};
use crate::error::Error;

const FIRST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(10);

/// Fires after 0.2 ms, then less and less often, up to every 10 ms.
#[derive(Debug)]
pub(crate) struct Rhythm {
    timer: TimerFd,
    next: Duration,
}

impl Rhythm {
    pub(crate) fn new(setup: &Setup) -> Result<Self, Error> {
        let timer = TimerFd::new().map_err(|error| setup.system("cannot set a timer", error))?;
        Ok(Self { timer, next: FIRST })
    }

    /// Nothing could be done now: the timer fires when to look again.
    pub(crate) fn rest(&mut self) {
        let _ = self.timer.clear();
        let _ = self.timer.arm(self.next, None);
        self.next = (self.next * 2).min(LONGEST);
    }

    /// Something could be done: from now on, look often again.
    pub(crate) fn moved(&mut self) {
        self.next = FIRST;
    }

    /// Waits for the timer. `false` when cancelled.
    pub(crate) fn wait(&self, setup: &Setup, deadline: Deadline) -> Result<bool, Error> {
        let cancel = setup.options.cancel.as_ref();
        wait_or_cancel(self.timer.as_fd(), Interest::Readable, cancel, deadline)
            .map_err(|error| setup.system("cannot wait", error))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
