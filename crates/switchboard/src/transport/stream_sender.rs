//! The sending end of a queue over connections: links, or a foreign framing.
//!
//! Every message is on exactly one connection until it is settled. When a connection is lost, its
//! unsettled messages go to the front of the backlog, marked if any of their bytes were written, and
//! from there to the next receiver with room.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Read, Wire};
use super::hub::Hub;
use crate::error::{Error, ErrorKind, SendError};
use crate::framing::Unframable;
use crate::link::{Event, LinkError, Unsettled};

/// Gathered messages are written once they are this long.
const GATHER_BYTES: usize = 64 * 1024;
/// A foreign connection takes no more messages while this much waits to be written.
const MOST_UNWRITTEN_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct StreamSender {
    hub: Hub,
    /// Messages whose connection was lost or that were rejected, oldest first.
    backlog: VecDeque<Unsettled>,
    /// Messages acknowledged over links, and written to foreign connections that are gone.
    acknowledged: u64,
    rejected: u64,
    /// Messages of foreign connections that ended before they were written: no other receiver could
    /// know where they go on.
    lost: u64,
    /// What went wrong with a message after it was accepted, for the next call to report.
    failed: Option<SendError>,
    /// Where the last message went: the next one is looked for here first.
    current: usize,
    finishing: bool,
    /// There was a receiver once. One that left after it acknowledged everything need not be told
    /// the end.
    met: bool,
    /// Why the receiver that was there last does not fit. Closing does not wait for another.
    unfit: Option<String>,
    reserved: Option<u64>,
}

impl StreamSender {
    pub(crate) fn new(hub: Hub) -> Self {
        Self {
            hub,
            backlog: VecDeque::new(),
            acknowledged: 0,
            rejected: 0,
            lost: 0,
            failed: None,
            current: 0,
            finishing: false,
            met: false,
            unfit: None,
            reserved: None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.hub.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.hub.local_address()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        let written = |connection: &Connection| match &connection.wire {
            Wire::Link(_) => 0,
            Wire::Foreign(foreign) => foreign.written_messages(),
        };
        self.acknowledged + self.hub.connections.iter().map(written).sum::<u64>()
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.rejected
    }

    pub(crate) fn peers(&self) -> usize {
        self.hub.connections.iter().filter(|connection| connection.is_open()).count()
    }

    /// Messages accepted and not acknowledged; over a foreign framing, not written.
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.pending() + self.lost
    }

    /// Those of them that still can be.
    pub(crate) fn pending(&self) -> u64 {
        let outstanding = |connection: &Connection| match &connection.wire {
            Wire::Link(link) => link.outstanding(),
            Wire::Foreign(foreign) => foreign.unwritten_messages(),
        };
        self.hub.connections.iter().map(outstanding).sum::<u64>() + self.backlog.len() as u64
    }

    #[inline]
    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        _priority: u32,
        more: bool,
    ) -> Result<(), SendError> {
        let limit = self.hub.hello.max_message_bytes as usize;
        if payload.len() > limit {
            return Err(too_large(payload.len(), limit, self.hub.setup.limit_name()));
        }
        // One receiver with room, and nothing that has to go before: the usual case.
        if let [connection] = self.hub.connections.as_mut_slice()
            && !(connection.closed || self.finishing)
            && self.backlog.is_empty()
            && let Wire::Link(link) = &mut connection.wire
            && link.has_room_for(payload.len())
            && payload.len() <= link.largest_message_bytes()
        {
            link.send(payload, false, 0);
            if more && link.unwritten_bytes() < GATHER_BYTES {
                return Ok(());
            }
            self.flush_after(0, more);
            return Ok(());
        }
        let Some(at) = self.place_or_look(payload.len())? else { return Err(SendError::Full) };
        let connection = &mut self.hub.connections[at];
        match &mut connection.wire {
            Wire::Link(link) => link.send(payload, false, 0),
            Wire::Foreign(foreign) => {
                foreign.push(payload).map_err(|problem| unframable(payload.len(), problem))?;
            }
        }
        self.flush_after(at, more);
        Ok(())
    }

    /// Writes what was accepted. What goes wrong is for the next call to say: this one's message is
    /// accepted, and counted.
    fn flush_after(&mut self, at: usize, more: bool) {
        let connection = &mut self.hub.connections[at];
        if more && !connection.has_gathered(GATHER_BYTES) {
            return;
        }
        if !connection.flush() {
            let id = connection.id;
            self.failed = self.lose(id).err().or(self.failed.take());
        }
    }

    /// What went wrong after a message was accepted.
    fn report(&mut self) -> Result<(), SendError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub(crate) fn reserve(&mut self, len: usize) -> Result<Option<&mut [u8]>, SendError> {
        let limit = self.hub.hello.max_message_bytes as usize;
        if len > limit {
            return Err(too_large(len, limit, self.hub.setup.limit_name()));
        }
        let Some(at) = self.place_or_look(len)? else { return Err(SendError::Full) };
        let connection = &mut self.hub.connections[at];
        self.reserved = Some(connection.id);
        match &mut connection.wire {
            Wire::Link(link) => Ok(Some(link.reserve(len))),
            Wire::Foreign(_) => Ok(None),
        }
    }

    pub(crate) fn commit(&mut self, len: usize, more: bool) -> Result<(), SendError> {
        let id = self.reserved.take();
        let at = self.hub.connections.iter().position(|connection| Some(connection.id) == id);
        let Some(at) = at else { return Ok(()) };
        if let Wire::Link(link) = &mut self.hub.connections[at].wire {
            link.commit(len);
        }
        self.flush_after(at, more);
        Ok(())
    }

    /// A connection with room for a message, after a look at what happened if there was none.
    #[inline]
    fn place_or_look(&mut self, len: usize) -> Result<Option<usize>, SendError> {
        self.report()?;
        if self.backlog.is_empty()
            && let Some(at) = self.place(len)?
        {
            return Ok(Some(at));
        }
        self.look()?;
        if self.backlog.is_empty() { self.place(len) } else { Ok(None) }
    }

    /// The connection that takes a message: the one with the fewest messages under way.
    #[inline]
    fn place(&mut self, len: usize) -> Result<Option<usize>, SendError> {
        if self.finishing {
            return Ok(None);
        }
        let room = |connection: &Connection| match &connection.wire {
            Wire::Link(link) => {
                let fits = len <= link.largest_message_bytes() && link.has_room_for(len);
                (!connection.closed && fits).then(|| link.outstanding())
            }
            Wire::Foreign(foreign) => (!connection.done
                && foreign.unwritten_bytes() < MOST_UNWRITTEN_BYTES)
                .then(|| foreign.unwritten_bytes() as u64),
        };
        let mut best: Option<(usize, u64)> = None;
        let count = self.hub.connections.len();
        for step in 0..count {
            let at = (self.current + 1 + step) % count;
            if let Some(load) = room(&self.hub.connections[at])
                && best.is_none_or(|(_, least)| load < least)
            {
                best = Some((at, load));
            }
        }
        let Some((at, _)) = best else { return self.nobody_takes(len) };
        self.current = at;
        Ok(Some(at))
    }

    /// No receiver takes a message now: whether one will.
    #[cold]
    fn nobody_takes(&self, len: usize) -> Result<Option<usize>, SendError> {
        let limits = self.hub.connections.iter().filter_map(|connection| match &connection.wire {
            Wire::Link(link) if link.is_open() && !connection.closed => {
                Some(link.largest_message_bytes())
            }
            _ => None,
        });
        match limits.max() {
            Some(limit) if len > limit => {
                Err(too_large(len, limit, "what the receiver takes (its ?max-message=)"))
            }
            _ => Ok(None),
        }
    }

    /// Moves on whatever can move. Whether everything accepted is with the kernel.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        self.report()?;
        if self.hub.connections.iter().any(|connection| connection.unwritten_bytes() > 0) {
            self.flush_all()?;
        }
        if self.is_flushed() {
            return Ok(true);
        }
        self.look()?;
        Ok(self.is_flushed())
    }

    fn is_flushed(&self) -> bool {
        self.backlog.is_empty() && self.hub.connections.iter().all(|c| c.unwritten_bytes() == 0)
    }

    fn flush_all(&mut self) -> Result<(), SendError> {
        let lost: Vec<u64> = self
            .hub
            .connections
            .iter_mut()
            .filter_map(|connection| (!connection.flush()).then_some(connection.id))
            .collect();
        lost.into_iter().try_for_each(|id| self.lose(id))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        Ok(self.hub.wait(deadline)?)
    }

    /// Looks at every connection: reads answers, writes what waits, gives the backlog out.
    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.report()?;
        let found = self.hub.look()?;
        for id in found.ready {
            self.serve(id)?;
        }
        if let Some(id) = self.hub.overdue() {
            // It connected and says nothing: not a receiver.
            self.hub.remove(id);
        }
        self.give_out_backlog()?;
        if found.cancelled { Err(SendError::Interrupted) } else { Ok(()) }
    }

    fn serve(&mut self, id: u64) -> Result<(), SendError> {
        let Some(connection) = self.hub.connection(id) else { return Ok(()) };
        let read = connection.read();
        self.take_events(id)?;
        let Some(connection) = self.hub.connection(id) else { return Ok(()) };
        let foreign = matches!(connection.wire, Wire::Foreign(_));
        if read == Read::Closed && !foreign {
            return self.lose(id);
        }
        // A foreign receiver may close its own direction and still read ours.
        if !connection.flush() { self.lose(id) } else { Ok(()) }
    }

    fn take_events(&mut self, id: u64) -> Result<(), SendError> {
        let limit = self.hub.setup.options.max_deliveries.max(1);
        let fatal = !self.hub.listens();
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
                Ok(Some(Event::Acknowledged(count))) => self.acknowledged += count,
                Ok(Some(Event::Rejected(message))) if message.deliveries >= limit => {
                    self.rejected += 1;
                }
                Ok(Some(Event::Rejected(message))) => self.backlog.push_back(message),
                Ok(Some(Event::EndSeen)) => {
                    connection.done = true;
                }
                Ok(Some(Event::Established)) => {
                    self.met = true;
                    self.unfit = None;
                }
                Ok(Some(_)) => {}
                Err(error) => break error,
            }
        };
        // The reason goes out before the connection closes.
        connection.flush();
        let peer = connection.peer.clone();
        self.requeue(id);
        match error {
            LinkError::Misbehaved(problem) if fatal => {
                Err(SendError::PeerMisbehaved(format!("{peer}: {problem}")))
            }
            LinkError::Mismatch(problem) if fatal => Err(self.unfit(&peer, &problem)),
            LinkError::Refused(problem) if fatal => {
                Err(self.unfit(&peer, &format!("it turned this side away: {problem}")))
            }
            _ => Ok(()),
        }
    }

    fn unfit(&mut self, peer: &str, problem: &str) -> SendError {
        let problem = format!("{peer} does not fit: {problem}");
        let error = self.mismatch(&problem);
        self.unfit = Some(problem);
        error
    }

    fn mismatch(&self, problem: &str) -> SendError {
        Error::new(ErrorKind::Mismatch, &self.hub.setup.address, problem).into()
    }

    /// A connection is gone: its unsettled messages come first again.
    fn lose(&mut self, id: u64) -> Result<(), SendError> {
        // Acknowledgements that arrived before the end still count.
        if let Some(connection) = self.hub.connection(id) {
            while connection.read() == Read::Some {}
            self.take_events(id)?;
        }
        let Some(connection) = self.hub.connection(id) else { return Ok(()) };
        let done = connection.done;
        let broken = matches!(&connection.wire, Wire::Foreign(f) if f.unwritten_bytes() > 0);
        self.requeue(id);
        let reconnects = self.hub.redial && self.hub.expects_more();
        if done || (reconnects && !broken) || (self.finishing && self.unacknowledged() == 0) {
            return Ok(());
        }
        if self.peers() > 0 && self.hub.listens() && !broken {
            return Ok(());
        }
        Err(SendError::PeerDied { unacknowledged: self.unacknowledged() })
    }

    fn requeue(&mut self, id: u64) {
        let Some(mut connection) = self.hub.remove(id) else { return };
        match &mut connection.wire {
            Wire::Link(link) => {
                for message in link.take_unsettled().into_iter().rev() {
                    self.backlog.push_front(message);
                }
            }
            Wire::Foreign(foreign) => {
                self.acknowledged += foreign.written_messages();
                self.lost += foreign.unwritten_messages();
                self.met = true;
            }
        }
    }

    fn give_out_backlog(&mut self) -> Result<(), SendError> {
        let mut touched = false;
        while let Some(message) = self.backlog.front() {
            let len = message.payload.len();
            let finishing = std::mem::take(&mut self.finishing);
            let placed = self.place(len);
            self.finishing = finishing;
            let Some(at) = placed? else { break };
            let Some(message) = self.backlog.pop_front() else { break };
            touched = true;
            if let Wire::Link(link) = &mut self.hub.connections[at].wire {
                link.send(&message.payload, message.redelivered, message.deliveries);
            }
        }
        if touched { self.flush_all() } else { Ok(()) }
    }

    /// Says the end on every connection once nothing is left to give out. Whether all is settled.
    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        self.finishing = true;
        self.look()?;
        if let Some(problem) = &self.unfit {
            return Err(self.mismatch(problem));
        }
        let settled = self.pending() == 0;
        if settled {
            self.say_end(Connection::is_open)?;
            self.one_way_ends();
        }
        let all_done = self.hub.connections.iter().all(|c| c.done || !c.is_open());
        let finished = settled && all_done && (self.met || !self.hub.expects_more());
        if finished && self.lost > 0 {
            return Err(SendError::PeerDied { unacknowledged: self.lost });
        }
        Ok(finished)
    }

    /// Moves towards leaving without an answer: once nothing is pending the end is said to whoever is
    /// there, also to a peer whose hello did not come yet. Whether that is done.
    pub(crate) fn leave(&mut self) -> Result<bool, SendError> {
        self.finishing = true;
        self.look()?;
        if self.pending() > 0 {
            let unfit = self.unfit.as_ref();
            return unfit.map_or(Ok(false), |problem| Err(self.mismatch(problem)));
        }
        self.say_end(|_| true)?;
        Ok(self.is_flushed())
    }

    fn say_end(&mut self, to: impl Fn(&Connection) -> bool) -> Result<(), SendError> {
        for connection in &mut self.hub.connections {
            let chosen = to(connection);
            match &mut connection.wire {
                Wire::Link(link) if chosen && !link.end_sent() => link.end(),
                Wire::Foreign(foreign) if foreign.unwritten_bytes() == 0 => {
                    if !std::mem::replace(&mut connection.done, true) {
                        connection.shutdown();
                    }
                    self.met = true;
                }
                _ => {}
            }
        }
        self.flush_all()
    }

    /// On a pipe nobody answers: the end is reached when its frame is written.
    fn one_way_ends(&mut self) {
        for connection in &mut self.hub.connections {
            if let Wire::Link(link) = &connection.wire
                && link.is_one_way()
                && link.end_sent()
                && link.unwritten_bytes() == 0
            {
                connection.done = true;
                self.met = true;
            }
        }
    }
}

fn too_large(len_bytes: usize, limit_bytes: usize, limit: &str) -> SendError {
    SendError::TooLarge { len_bytes, limit_bytes, limit: limit.to_owned() }
}

fn unframable(len_bytes: usize, problem: Unframable) -> SendError {
    SendError::Unframable(match problem {
        Unframable::NotWhole { limit_bytes } => {
            return too_large(
                len_bytes,
                limit_bytes,
                "PIPE_BUF, what a pipe keeps whole, less the framing",
            );
        }
        Unframable::ContainsNewline => {
            "a message with a line feed in it is no line; use ?framing=length on both sides".into()
        }
        Unframable::Empty => {
            "an empty message cannot be told from no message here; use ?framing=lines or length"
                .into()
        }
    })
}
