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
use super::stream_peers::{StreamPeers, too_large};
use crate::error::SendError;
use crate::framing::Unframable;
use crate::link::{Event, Unsettled};

/// Gathered messages are written once they are this long.
const GATHER_BYTES: usize = 64 * 1024;
/// A foreign connection takes no more messages while this much waits to be written.
const MOST_UNWRITTEN_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct StreamSender {
    peers: StreamPeers,
    /// Messages whose connection was lost or that were rejected, oldest first.
    backlog: VecDeque<Unsettled>,
    /// Messages acknowledged over links, and written to foreign connections that are gone.
    acknowledged: u64,
    rejected: u64,
    /// Messages of foreign connections that ended before they were written: no other receiver could
    /// know where they go on.
    lost: u64,
    /// Where the last message went: the next one is looked for here first.
    current: usize,
    finishing: bool,
    reserved: Option<u64>,
}

impl StreamSender {
    pub(crate) fn new(hub: Hub) -> Self {
        Self {
            peers: StreamPeers::new(hub),
            backlog: VecDeque::new(),
            acknowledged: 0,
            rejected: 0,
            lost: 0,
            current: 0,
            finishing: false,
            reserved: None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.peers.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.peers.local_address()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        let written = |connection: &Connection| match &connection.wire {
            Wire::Link(_) => 0,
            Wire::Foreign(foreign) => foreign.written_messages(),
        };
        self.acknowledged + self.peers.hub.connections.iter().map(written).sum::<u64>()
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.rejected
    }

    pub(crate) fn peers(&self) -> usize {
        self.peers.count()
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
        self.peers.hub.connections.iter().map(outstanding).sum::<u64>() + self.backlog.len() as u64
    }

    #[inline]
    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        _priority: u32,
        more: bool,
    ) -> Result<(), SendError> {
        self.peers.check_len(payload.len())?;
        // One receiver with room, and nothing that has to go before: the usual case.
        if let [connection] = self.peers.hub.connections.as_mut_slice()
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
        let connection = &mut self.peers.hub.connections[at];
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
        let connection = &mut self.peers.hub.connections[at];
        if more && !connection.has_gathered(GATHER_BYTES) {
            return;
        }
        if !connection.flush() {
            let id = connection.id;
            let lost = self.lose(id);
            self.peers.report_later(lost);
        }
    }

    pub(crate) fn reserve(&mut self, len: usize) -> Result<Option<&mut [u8]>, SendError> {
        self.peers.check_len(len)?;
        let Some(at) = self.place_or_look(len)? else { return Err(SendError::Full) };
        let connection = &mut self.peers.hub.connections[at];
        self.reserved = Some(connection.id);
        match &mut connection.wire {
            Wire::Link(link) => Ok(Some(link.reserve(len))),
            Wire::Foreign(_) => Ok(None),
        }
    }

    pub(crate) fn commit(&mut self, len: usize, more: bool) -> Result<(), SendError> {
        let id = self.reserved.take();
        let at = self.peers.hub.connections.iter().position(|connection| Some(connection.id) == id);
        let Some(at) = at else { return Ok(()) };
        if let Wire::Link(link) = &mut self.peers.hub.connections[at].wire {
            link.commit(len);
        }
        self.flush_after(at, more);
        Ok(())
    }

    /// A connection with room for a message, after a look at what happened if there was none.
    #[inline]
    fn place_or_look(&mut self, len: usize) -> Result<Option<usize>, SendError> {
        self.peers.report()?;
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
        let count = self.peers.hub.connections.len();
        for step in 0..count {
            let at = (self.current + 1 + step) % count;
            if let Some(load) = room(&self.peers.hub.connections[at])
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
        let limits =
            self.peers.hub.connections.iter().filter_map(|connection| match &connection.wire {
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
        self.peers.report()?;
        if self.peers.hub.connections.iter().any(|connection| connection.unwritten_bytes() > 0) {
            self.flush_all()?;
        }
        if self.is_flushed() {
            return Ok(true);
        }
        self.look()?;
        Ok(self.is_flushed())
    }

    fn is_flushed(&self) -> bool {
        self.backlog.is_empty()
            && self.peers.hub.connections.iter().all(|c| c.unwritten_bytes() == 0)
    }

    fn flush_all(&mut self) -> Result<(), SendError> {
        self.peers.flush_all().into_iter().try_for_each(|id| self.lose(id))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.peers.wait(deadline)
    }

    /// Looks at every connection: reads answers, writes what waits, gives the backlog out.
    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.peers.report()?;
        let found = self.peers.look()?;
        for id in found.ready {
            self.serve(id)?;
        }
        self.give_out_backlog()?;
        if found.cancelled { Err(SendError::Interrupted) } else { Ok(()) }
    }

    fn serve(&mut self, id: u64) -> Result<(), SendError> {
        let Some(connection) = self.peers.hub.connection(id) else { return Ok(()) };
        let read = connection.read();
        self.take_events(id)?;
        let Some(connection) = self.peers.hub.connection(id) else { return Ok(()) };
        let foreign = matches!(connection.wire, Wire::Foreign(_));
        if read == Read::Closed && !foreign {
            return self.lose(id);
        }
        // A foreign receiver may close its own direction and still read ours.
        if !connection.flush() { self.lose(id) } else { Ok(()) }
    }

    fn take_events(&mut self, id: u64) -> Result<(), SendError> {
        let limit = self.peers.hub.setup.options.max_deliveries.max(1);
        let heard = self.peers.hear(id, |event| match event {
            Event::Acknowledged(count) => self.acknowledged += count,
            Event::Rejected(message) if message.deliveries >= limit => self.rejected += 1,
            Event::Rejected(message) => self.backlog.push_back(message),
            _ => {}
        });
        heard.or_else(|who| {
            self.requeue(id);
            self.peers.turned_away(who)
        })
    }

    /// A connection is gone: its unsettled messages come first again.
    fn lose(&mut self, id: u64) -> Result<(), SendError> {
        // Acknowledgements that arrived before the end still count.
        if let Some(connection) = self.peers.hub.connection(id) {
            while connection.read() == Read::Some {}
            self.take_events(id)?;
        }
        let Some(connection) = self.peers.hub.connection(id) else { return Ok(()) };
        let done = connection.done;
        let broken = matches!(&connection.wire, Wire::Foreign(f) if f.unwritten_bytes() > 0);
        self.requeue(id);
        let reconnects = self.peers.hub.redial && self.peers.hub.expects_more();
        if done || (reconnects && !broken) || (self.finishing && self.unacknowledged() == 0) {
            return Ok(());
        }
        if self.peers() > 0 && self.peers.hub.listens() && !broken {
            return Ok(());
        }
        Err(SendError::PeerDied { unacknowledged: self.unacknowledged() })
    }

    fn requeue(&mut self, id: u64) {
        let Some(mut connection) = self.peers.hub.remove(id) else { return };
        match &mut connection.wire {
            Wire::Link(link) => {
                for message in link.take_unsettled().into_iter().rev() {
                    self.backlog.push_front(message);
                }
            }
            Wire::Foreign(foreign) => {
                self.acknowledged += foreign.written_messages();
                self.lost += foreign.unwritten_messages();
                self.peers.met = true;
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
            if let Wire::Link(link) = &mut self.peers.hub.connections[at].wire {
                link.send(&message.payload, message.redelivered, message.deliveries);
            }
        }
        if touched { self.flush_all() } else { Ok(()) }
    }

    /// Says the end on every connection once nothing is left to give out. Whether all is settled.
    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        self.finishing = true;
        self.look()?;
        self.peers.must_fit()?;
        let settled = self.pending() == 0;
        if settled {
            self.say_end(Connection::is_open)?;
            self.one_way_ends();
        }
        let all_done = self.peers.hub.connections.iter().all(|c| c.done || !c.is_open());
        let finished = settled && all_done && (self.peers.met || !self.peers.hub.expects_more());
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
            return self.peers.must_fit().map(|()| false);
        }
        self.say_end(|_| true)?;
        Ok(self.is_flushed())
    }

    fn say_end(&mut self, to: impl Fn(&Connection) -> bool) -> Result<(), SendError> {
        for connection in &mut self.peers.hub.connections {
            let chosen = to(connection);
            match &mut connection.wire {
                Wire::Link(link) if chosen && !link.end_sent() => link.end(),
                Wire::Foreign(foreign) if foreign.unwritten_bytes() == 0 => {
                    if !std::mem::replace(&mut connection.done, true) {
                        connection.shutdown();
                    }
                    self.peers.met = true;
                }
                _ => {}
            }
        }
        self.flush_all()
    }

    /// On a pipe nobody answers: the end is reached when its frame is written.
    fn one_way_ends(&mut self) {
        for connection in &mut self.peers.hub.connections {
            if let Wire::Link(link) = &connection.wire
                && link.is_one_way()
                && link.end_sent()
                && link.unwritten_bytes() == 0
            {
                connection.done = true;
                self.peers.met = true;
            }
        }
    }
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
