//! The listening end of an event over links. `docs/design/event.md` has the rules.

use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::counts::Counts;
use super::hub::Hub;
use super::stream_follower::{Heard, StreamFollower};
use crate::error::{Error, WaitError};
use crate::link::Event;
use crate::pattern::event::Occurrence;

#[derive(Debug)]
pub(crate) struct StreamListener {
    follower: StreamFollower,
    counts: Counts,
}

impl StreamListener {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { follower: StreamFollower::new(hub), counts: Counts::default() }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.follower.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.follower.local_address()
    }

    pub(crate) fn peers(&self) -> usize {
        self.follower.peers()
    }

    pub(crate) fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        match self.take() {
            Ok(occurrence) => Ok(occurrence),
            Err(WaitError::Failed(error)) => Err(error),
            // It stays readable, for who waits.
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<Occurrence, WaitError> {
        loop {
            if let Some(occurrence) = self.take()? {
                return Ok(occurrence);
            }
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            self.follower.wait(deadline)?;
        }
    }

    fn take(&mut self) -> Result<Option<Occurrence>, WaitError> {
        if self.counts.is_empty() {
            self.gather()?;
        }
        if let Some((id, count)) = self.counts.pop() {
            return Ok(Some(Occurrence::of(id, count)));
        }
        self.follower.check()?;
        Ok(None)
    }

    fn gather(&mut self) -> Result<(), Error> {
        let counts = &mut self.counts;
        self.follower.gather(&mut |_, heard| {
            if let Heard::Said(Event::Notified { id, count }) = heard {
                // What was read is in memory that is bounded; no more is read while there is no room.
                counts.add(id, count);
            }
            !counts.is_full()
        })
    }
}
