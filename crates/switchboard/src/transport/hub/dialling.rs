//! The connection that an endpoint makes, and makes anew.

use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, Interest};

use super::{ATTEMPT, Dial, Hub, Place};
use crate::error::{Error, ErrorKind};

const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait before dialling again after so long without anybody there: it makes no wait much longer than
/// it was.
fn pause_after(waited: Duration) -> Duration {
    (waited / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

impl Hub {
    pub(super) fn is_dialling_on(&self) -> bool {
        matches!(self.place, Place::Dialling { attempt: Some(_), .. })
    }

    /// Waits until a connection that is under way is decided: an end that is not called again for long would not
    /// notice.
    pub(crate) fn decide_dial(&mut self, within: Duration) -> Result<(), Error> {
        let deadline = Deadline::after(within);
        while self.is_dialling_on() && !deadline.passed() {
            self.wait(deadline)?;
            // What else is found stays to be found.
            self.look()?;
        }
        Ok(())
    }

    /// The error of an endpoint that was not to wait.
    pub(super) fn nobody(&self) -> Error {
        let problem = "nobody is there, and waiting was not wanted";
        Error::new(ErrorKind::NotFound, &self.setup.address, problem)
            .hint("start the other side first, or leave out --no-wait")
    }

    /// Dials if it is time to.
    pub(super) fn dial(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let Place::Dialling { attempt: None, next: Some(next), .. } = self.place else {
            return Ok(());
        };
        if next > now {
            return self.set_timer();
        }
        let Some(meet) = &self.meet else { return Ok(()) };
        let dial = meet.dial()?;
        self.dialled(dial)
    }

    /// The attempt under way was decided.
    pub(super) fn attempted(&mut self) -> Result<(), Error> {
        let Place::Dialling { attempt, .. } = &mut self.place else { return Ok(()) };
        let (Some(fd), Some(meet)) = (attempt.take(), &self.meet) else { return Ok(()) };
        let _ = self.epoll.delete(&fd);
        let dial = meet.dialled(fd)?;
        self.dialled(dial)
    }

    fn dialled(&mut self, dial: Dial) -> Result<(), Error> {
        let Place::Dialling { attempt, next, since } = &mut self.place else { return Ok(()) };
        match dial {
            Dial::Connected(met) => {
                *next = None;
                return self.join(met);
            }
            Dial::Connecting(fd) => {
                self.epoll
                    .add(&fd, ATTEMPT, Interest::Writable)
                    .map_err(|error| self.setup.system("cannot connect", error))?;
                *attempt = Some(fd);
                *next = None;
            }
            Dial::NotYet if !self.setup.options.wait => return Err(self.nobody()),
            Dial::NotYet => {
                let now = Instant::now();
                *next = Some(now + pause_after(now.saturating_duration_since(*since)));
            }
        }
        self.set_timer()
    }

    pub(super) fn dial_again(&mut self) {
        if let Place::Dialling { attempt: None, next, since } = &mut self.place
            && (self.redial || self.joined == 0)
            && self.connections.is_empty()
            && next.is_none()
        {
            *since = Instant::now();
            *next = Some(*since + SHORTEST_PAUSE);
            let _ = self.set_timer();
        }
    }
}
