//! The following end of an event or a state over links: who is connected, and what they said.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::connection::{Read, Wire};
use super::hub::Hub;
use crate::error::{Error, ErrorKind, WaitError};
use crate::link::{Event, LinkError};

/// Rounds over all connections in one look, so that those who talk without end do not keep it.
const MOST_ROUNDS: usize = 64;

#[derive(Debug)]
pub(crate) struct StreamFollower {
    hub: Hub,
    /// What is to be reported before anything else.
    reports: VecDeque<Error>,
    cancelled: bool,
}

/// What came of a connection.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    Said(Event<'a>),
    /// It is gone.
    Left,
}

impl StreamFollower {
    pub(crate) fn new(mut hub: Hub) -> Self {
        hub.redial = hub.setup.options.reconnect;
        Self { hub, reports: VecDeque::new(), cancelled: false }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.hub.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.hub.local_address()
    }

    pub(crate) fn peers(&self) -> usize {
        self.hub.connections.iter().filter(|c| c.is_open() && !c.closed).count()
    }

    /// Sleeps until something comes.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.hub.wait(deadline)
    }

    /// Takes what came, without waiting. What is said is given to `with`, with the connection's number; it says
    /// whether it takes more.
    pub(crate) fn gather(
        &mut self,
        with: &mut dyn FnMut(u64, Heard<'_>) -> bool,
    ) -> Result<(), Error> {
        for _ in 0..MOST_ROUNDS {
            let found = self.hub.look()?;
            self.cancelled |= found.cancelled;
            if let Some(id) = self.hub.overdue() {
                let problem = "it connected and said no hello within 10 s".to_owned();
                self.turn_away(id, LinkError::Misbehaved(problem), with);
            }
            let mut goes_on = !found.ready.is_empty();
            for id in found.ready {
                goes_on &= self.hear(id, with);
            }
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// What is to be said once everything that came was taken.
    pub(crate) fn check(&mut self) -> Result<(), WaitError> {
        if let Some(error) = self.reports.pop_front() {
            return Err(error.into());
        }
        if std::mem::take(&mut self.cancelled) {
            return Err(WaitError::Interrupted);
        }
        if self.hub.connections.is_empty() && !self.hub.expects_more() {
            let problem = "the other side is gone, and connecting again was not wanted";
            return Err(Error::new(ErrorKind::NotFound, &self.hub.setup.address, problem).into());
        }
        Ok(())
    }

    fn hear(&mut self, id: u64, with: &mut dyn FnMut(u64, Heard<'_>) -> bool) -> bool {
        let Some(connection) = self.hub.connection(id) else { return true };
        let read = connection.read();
        connection.flush();
        let Wire::Link(link) = &mut connection.wire else { return true };
        let mut goes_on = true;
        let error = loop {
            match link.next_event() {
                Ok(Some(event)) => goes_on &= with(id, Heard::Said(event)),
                Ok(None) => {
                    link.shrink();
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = error {
            self.turn_away(id, error, with);
        } else if read == Read::Closed {
            with(id, Heard::Left);
            if connection.is_open() {
                self.hub.remove(id);
            } else {
                self.hub.forget(id);
            }
        }
        goes_on
    }

    fn turn_away(
        &mut self,
        id: u64,
        error: LinkError,
        with: &mut dyn FnMut(u64, Heard<'_>) -> bool,
    ) {
        with(id, Heard::Left);
        let Some(connection) = self.hub.connection(id) else { return };
        if let (Wire::Link(link), LinkError::Misbehaved(problem)) = (&mut connection.wire, &error) {
            link.refuse(problem);
        }
        connection.flush();
        let peer = connection.peer.clone();
        let listens = self.hub.listens();
        let (kind, problem) = match error {
            LinkError::Misbehaved(problem) => {
                (ErrorKind::PeerMisbehaved, format!("{peer} misbehaved: {problem}"))
            }
            LinkError::Mismatch(problem) | LinkError::Refused(problem) => {
                if !listens {
                    // It will not fit the next time either.
                    self.hub.redial = false;
                }
                (ErrorKind::Mismatch, format!("{peer} does not fit: {problem}"))
            }
        };
        self.hub.remove(id);
        // What a crowd did is told of the last of them.
        if self.reports.len() >= 256 {
            self.reports.pop_front();
        }
        self.reports.push_back(Error::new(kind, &self.hub.setup.address, problem));
    }

    /// Closes a connection whose peer said what cannot be, as only this end can know.
    pub(crate) fn accuse(&mut self, id: u64, problem: &str) {
        self.turn_away(id, LinkError::Misbehaved(problem.to_owned()), &mut |_, _| true);
    }
}
