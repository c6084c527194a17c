//! The reading end of a state over links: it is told every value, and keeps the newest of each key.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::hub::Hub;
use super::known::{Known, KnownValues};
use super::stream_follower::{Heard, StreamFollower};
use super::stream_state_writer::MOST_KEYS;
use crate::error::{Error, WaitError};
use crate::link::Event;

/// How long opening waits for what a writer that is there has to say: it may be busy.
const MEETS_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct StreamStateReader {
    follower: StreamFollower,
    values: KnownValues,
    /// The writer has said all that was set when this side joined.
    is_known: bool,
}

impl StreamStateReader {
    pub(crate) fn new(hub: Hub) -> Result<Self, Error> {
        let connected = !hub.connections.is_empty();
        let follower = StreamFollower::new(hub);
        let mut reader = Self { follower, values: KnownValues::default(), is_known: false };
        if connected {
            match reader.wait_until(Deadline::after(MEETS_WITHIN), |reader| reader.is_known) {
                Err(WaitError::Failed(error)) => return Err(error),
                // Whoever waits next is told that, too.
                _ => reader.values.look_at_all(),
            }
        }
        Ok(reader)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.follower.fd()
    }

    pub(crate) fn peers(&self) -> usize {
        self.follower.peers()
    }

    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    pub(crate) fn get(&mut self, key: &str) -> Result<Option<&Known>, Error> {
        self.gather()?;
        Ok(self.values.look(key))
    }

    pub(crate) fn keys(&mut self) -> Result<Vec<String>, Error> {
        self.gather()?;
        Ok(self.values.keys())
    }

    /// Waits until a writer has said all that is set.
    pub(crate) fn wait_for_writer(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        self.wait_until(deadline, |reader| reader.is_known)
    }

    /// Waits until the value of a key is one that was not looked at.
    pub(crate) fn watch(&mut self, key: &str, deadline: Deadline) -> Result<(), WaitError> {
        self.wait_until(deadline, |reader| reader.values.is_new(key))
    }

    /// Waits until the value of some key is one that was not looked at: which.
    pub(crate) fn watch_any(&mut self, deadline: Deadline) -> Result<String, WaitError> {
        let mut found = None;
        self.wait_until(deadline, |reader| {
            found = reader.values.next_changed();
            found.is_some()
        })?;
        // It was there, or this would have ended otherwise.
        found.ok_or(WaitError::TimedOut)
    }

    fn wait_until(
        &mut self,
        deadline: Deadline,
        mut is_there: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), WaitError> {
        loop {
            self.gather()?;
            if is_there(self) {
                return Ok(());
            }
            self.follower.check()?;
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            self.follower.wait(deadline)?;
        }
    }

    fn gather(&mut self) -> Result<(), Error> {
        let (values, is_known) = (&mut self.values, &mut self.is_known);
        let mut liar = None;
        self.follower.gather(&mut |connection, heard| {
            match heard {
                Heard::Said(Event::Value { key, version, bytes }) => {
                    if !values.put(key, version, bytes) {
                        liar = Some((connection, "a value that is older than the one before it"));
                    } else if values.len() > MOST_KEYS {
                        liar = Some((connection, "more keys than there may be"));
                    }
                }
                Heard::Said(Event::Known) => *is_known = true,
                // Values live as long as their writer.
                Heard::Left => {
                    values.clear();
                    *is_known = false;
                }
                Heard::Said(_) => {}
            }
            liar.is_none()
        })?;
        if let Some((connection, problem)) = liar {
            self.follower.accuse(connection, problem);
            self.values.clear();
            self.is_known = false;
        }
        Ok(())
    }
}
