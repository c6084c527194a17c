//! The connections of a sending end, a queue's or a topic's: who is there, who does not fit, and what
//! went wrong between two calls.

use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Wire};
use super::hub::{Found, Hub};
use crate::error::{Error, ErrorKind, SendError};
use crate::link::{Event, LinkError};

#[derive(Debug)]
pub(crate) struct StreamPeers {
    pub(crate) hub: Hub,
    /// There was a peer once. A receiver that left after it acknowledged everything need not be told
    /// the end.
    pub(crate) met: bool,
    /// Why the peer that was there last does not fit. Closing does not wait for another.
    unfit: Option<String>,
    /// What went wrong with a message after it was accepted, for the next call to report.
    failed: Option<SendError>,
}

/// A peer that is turned away: what is known of it, and why.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    peer: String,
    error: LinkError,
}

impl TurnedAway {
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    pub(crate) fn problem(&self) -> String {
        match &self.error {
            LinkError::Misbehaved(problem)
            | LinkError::Mismatch(problem)
            | LinkError::Refused(problem) => problem.clone(),
        }
    }
}

impl StreamPeers {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { hub, met: false, unfit: None, failed: None }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.hub.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.hub.local_address()
    }

    /// How many are connected and said who they are.
    pub(crate) fn count(&self) -> usize {
        self.hub.connections.iter().filter(|connection| connection.is_open()).count()
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        Ok(self.hub.wait(deadline)?)
    }

    /// Whether a message is one that this side may send.
    #[inline]
    pub(crate) fn check_len(&self, len: usize) -> Result<(), SendError> {
        let limit = self.hub.hello.max_message_bytes as usize;
        if len > limit {
            return Err(too_large(len, limit, self.hub.setup.limit_name()));
        }
        Ok(())
    }

    /// Keeps an error for the next call to report.
    pub(crate) fn report_later(&mut self, result: Result<(), SendError>) {
        self.failed = result.err().or(self.failed.take());
    }

    /// What went wrong after a message was accepted.
    pub(crate) fn report(&mut self) -> Result<(), SendError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Accepts, dials, and says which connections have something. Whoever connected and says nothing is
    /// turned away.
    pub(crate) fn look(&mut self) -> Result<Found, SendError> {
        let found = self.hub.look()?;
        if let Some(id) = self.hub.overdue() {
            self.hub.remove(id);
        }
        Ok(found)
    }

    /// Gives what a peer said to `with`, but for its hello and its answer to the end. A peer that cannot
    /// be talked to on is told why; its connection is to be removed, and
    /// [`turned_away`](Self::turned_away) asked what that means.
    pub(crate) fn hear(
        &mut self,
        id: u64,
        mut with: impl FnMut(Event<'_>),
    ) -> Result<(), TurnedAway> {
        let Some(connection) = self.hub.connection(id) else { return Ok(()) };
        let link = match &mut connection.wire {
            Wire::Link(link) => link,
            Wire::Foreign(foreign) => {
                // What a foreign receiver says back means nothing here.
                let unread = foreign.input.unread().len();
                foreign.input.consume(unread);
                return Ok(());
            }
        };
        let error = loop {
            match link.next_event() {
                Ok(None) => return Ok(()),
                Ok(Some(Event::EndSeen)) => connection.done = true,
                Ok(Some(Event::Established)) => {
                    self.met = true;
                    self.unfit = None;
                }
                Ok(Some(event)) => with(event),
                Err(error) => break error,
            }
        };
        // The reason goes out before the connection closes, unless it would be taken for a part of a
        // message.
        if !connection.place.as_ref().is_some_and(|place| place.is_inside()) {
            connection.flush();
        }
        Err(TurnedAway { peer: connection.peer.clone(), error })
    }

    /// What it means that a peer was turned away: nothing to an endpoint that others can come to.
    pub(crate) fn turned_away(&mut self, who: TurnedAway) -> Result<(), SendError> {
        if self.hub.listens() {
            return Ok(());
        }
        let TurnedAway { peer, error } = who;
        let problem = match error {
            LinkError::Misbehaved(problem) => {
                return Err(SendError::PeerMisbehaved(format!("{peer}: {problem}")));
            }
            LinkError::Mismatch(problem) => problem,
            LinkError::Refused(problem) => format!("it turned this side away: {problem}"),
        };
        self.unfit = Some(format!("{peer} does not fit: {problem}"));
        self.must_fit()
    }

    /// An error if the peer that was there last does not fit.
    pub(crate) fn must_fit(&self) -> Result<(), SendError> {
        let Some(problem) = &self.unfit else { return Ok(()) };
        Err(Error::new(ErrorKind::Mismatch, &self.hub.setup.address, problem).into())
    }

    /// An error of these ends as one that an endpoint of an event or a state tells.
    pub(crate) fn as_error(&self, error: SendError) -> Error {
        let address = &self.hub.setup.address;
        match error {
            SendError::Failed(error) => error,
            SendError::PeerMisbehaved(problem) => {
                let problem = format!("a peer misbehaved: {problem}");
                Error::new(ErrorKind::PeerMisbehaved, address, problem)
            }
            other => Error::new(ErrorKind::System, address, other.to_string()),
        }
    }

    /// Writes what waits on every connection. Which of them are gone.
    pub(crate) fn flush_all(&mut self) -> Vec<u64> {
        let connections = self.hub.connections.iter_mut();
        connections.filter_map(|c: &mut Connection| (!c.flush()).then_some(c.id)).collect()
    }
}

/// The error of a message that is too long for `limit`.
pub(crate) fn too_large(len_bytes: usize, limit_bytes: usize, limit: &str) -> SendError {
    SendError::TooLarge { len_bytes, limit_bytes, limit: limit.to_owned() }
}
