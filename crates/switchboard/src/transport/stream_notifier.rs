//! The notifying end of an event over links.
//!
//! What a listener's socket does not take now waits here, merged by id: so notifying never waits, and takes
//! memory for ids, not for notifications. `docs/design/event.md` has the rules.

use std::collections::BTreeMap;

use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Read, Wire};
use super::counts::{Counts, MOST_IDS};
use super::hub::Hub;
use super::stream_peers::StreamPeers;
use crate::error::{Error, ErrorKind, WaitError};

/// Bytes that may wait to be written to a listener; the rest is merged.
const MOST_UNWRITTEN_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct StreamNotifier {
    peers: StreamPeers,
    /// What is for each listener that is connected, by connection.
    desks: BTreeMap<u64, Desk>,
    /// What was notified while nobody was there: for the first that comes.
    kept: Counts,
    cancelled: bool,
}

/// What is for one listener.
#[derive(Debug, Default)]
struct Desk {
    /// Not written.
    counts: Counts,
    /// On the way to it, and not sure to be read: it may be gone before all is written, or be none that fits.
    under_way: Counts,
    /// It said hello.
    confirmed: bool,
}

impl Desk {
    /// Forgets what is with the kernel of a listener that said hello: it lives and dies with it.
    fn settle(&mut self, connection: &Connection) {
        if self.confirmed && connection.unwritten_bytes() == 0 {
            self.under_way = Counts::default();
        }
    }

    fn give(mut self) -> Counts {
        self.counts.append(self.under_way);
        self.counts
    }
}

impl StreamNotifier {
    pub(crate) fn new(mut hub: Hub) -> Self {
        hub.redial = hub.setup.options.reconnect;
        Self {
            peers: StreamPeers::new(hub),
            desks: BTreeMap::new(),
            kept: Counts::default(),
            cancelled: false,
        }
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.peers.local_address()
    }

    pub(crate) fn peers(&self) -> usize {
        self.desks.values().filter(|desk| desk.confirmed).count()
    }

    pub(crate) fn notify(&mut self, id: u64, count: u64) -> Result<(), Error> {
        self.look()?;
        self.peers.must_fit().map_err(|error| self.peers.as_error(error))?;
        let full = |counts: &&Counts| !counts.has_room_for(id);
        if self.desks.values().any(|desk| full(&&desk.counts)) || full(&&self.kept) {
            let problem = format!("{MOST_IDS} different events wait to be taken already");
            return Err(Error::new(
                ErrorKind::LimitReached,
                &self.peers.hub.setup.address,
                problem,
            ));
        }
        if self.desks.is_empty() {
            self.kept.add(id, count);
        } else {
            self.desks.values_mut().for_each(|desk| desk.counts.add(id, count));
        }
        self.pump();
        Ok(())
    }

    /// Moves on what can move. Whether everything that was notified is with the kernel.
    pub(crate) fn drive(&mut self) -> Result<bool, Error> {
        self.look()?;
        self.peers.must_fit().map_err(|error| self.peers.as_error(error))?;
        self.pump();
        let waits = self.desks.values().any(|desk| !desk.counts.is_empty());
        let unwritten = self.peers.hub.connections.iter().any(|c| c.unwritten_bytes() > 0);
        Ok(self.kept.is_empty() && !waits && !unwritten)
    }

    /// Whether all who are connected have said that they listen.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.desks.values().all(|desk| desk.confirmed)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        if std::mem::take(&mut self.cancelled) {
            return Err(WaitError::Interrupted);
        }
        self.peers.hub.wait(deadline)?;
        Ok(())
    }

    fn look(&mut self) -> Result<(), Error> {
        let found = self.peers.look().map_err(|error| self.peers.as_error(error))?;
        self.cancelled |= found.cancelled;
        for id in found.ready {
            let Some(connection) = self.peers.hub.connection(id) else { continue };
            let read = connection.read();
            let flushed = connection.flush();
            if let Err(who) = self.peers.hear(id, |_| {}) {
                self.lose(id);
                self.peers.turned_away(who).map_err(|error| self.peers.as_error(error))?;
            } else if read == Read::Closed || !flushed {
                self.lose(id);
            }
        }
        self.join();
        Ok(())
    }

    /// Whoever is connected gets what is notified from now on; the first also what was kept. Their hello is not
    /// waited for: this end may not be called again for long.
    fn join(&mut self) {
        for connection in &self.peers.hub.connections {
            let kept = &mut self.kept;
            let desk = self
                .desks
                .entry(connection.id)
                .or_insert_with(|| Desk { counts: std::mem::take(kept), ..Desk::default() });
            if connection.is_open() && !std::mem::replace(&mut desk.confirmed, true) {
                desk.settle(connection);
            }
        }
    }

    /// A listener is gone. What waited for it alone is for the next.
    fn lose(&mut self, id: u64) {
        let spoke = self.peers.hub.connection(id).is_some_and(|connection| connection.is_open());
        if spoke {
            self.peers.hub.remove(id);
        } else {
            self.peers.hub.forget(id);
        }
        if let Some(desk) = self.desks.remove(&id)
            && self.desks.is_empty()
        {
            self.kept.append(desk.give());
        }
    }

    fn pump(&mut self) {
        let mut lost = Vec::new();
        for connection in &mut self.peers.hub.connections {
            if let Some(desk) = self.desks.get_mut(&connection.id)
                && !write(connection, desk)
            {
                lost.push(connection.id);
            }
        }
        for id in lost {
            self.lose(id);
        }
    }
}

/// Writes what waits for a listener, as far as there is room. `false`: it is gone.
fn write(connection: &mut Connection, desk: &mut Desk) -> bool {
    loop {
        let Wire::Link(link) = &mut connection.wire else { return true };
        while link.unwritten_bytes() < MOST_UNWRITTEN_BYTES
            && let Some((id, count)) = desk.counts.pop()
        {
            desk.under_way.add(id, count);
            link.notify(id, count);
        }
        if !connection.flush() {
            return false;
        }
        desk.settle(connection);
        if desk.counts.is_empty() || connection.unwritten_bytes() > 0 {
            return true;
        }
    }
}

impl Drop for StreamNotifier {
    fn drop(&mut self) {
        if self.peers.hub.setup.is_here() {
            self.pump();
        }
    }
}
