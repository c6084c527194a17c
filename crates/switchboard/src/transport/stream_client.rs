//! The calling end of a service over links.
//!
//! A call is on one link at a time. One that its server had not begun when it went, or when it said that
//! it takes no more, goes to another server, if one is there; of the others the caller is told what is
//! known. `docs/design/service.md` has the tables.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Read, Wire};
use super::hub::Hub;
use super::service_flavor::{Ending, Heard, Part};
use super::stream_peers::{StreamPeers, too_large};
use crate::error::{Error, ErrorKind};
use crate::link::{Event, Link};
use crate::pattern::service::CallError;

/// Calls of one client that are not over, whatever the servers would take.
const MOST_CALLS: usize = 65_536;

#[derive(Debug)]
pub(crate) struct StreamClient {
    peers: StreamPeers,
    calls: BTreeMap<u64, Call>,
    /// The call that a number on a connection belongs to.
    routes: BTreeMap<(u64, u64), u64>,
    last_key: u64,
    /// Calls that no server began, whose server went: they come before new ones.
    backlog: VecDeque<u64>,
    /// Where the last call went: the next place is looked for behind it.
    current: usize,
    /// A connection that is likely to have the next reply.
    likely: u64,
}

#[derive(Debug)]
struct Call {
    /// The request, until its server began with it.
    request: Vec<u8>,
    until: Option<Instant>,
    /// Where it is: connection and number.
    place: Option<(u64, u64)>,
    started: bool,
    parts: VecDeque<Part>,
    ending: Option<Heard>,
}

impl StreamClient {
    pub(crate) fn new(mut hub: Hub) -> Self {
        hub.redial = hub.setup.options.reconnect;
        Self {
            peers: StreamPeers::new(hub),
            calls: BTreeMap::new(),
            routes: BTreeMap::new(),
            last_key: 0,
            backlog: VecDeque::new(),
            current: 0,
            likely: 0,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.peers.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.peers.local_address()
    }

    pub(crate) fn peers(&self) -> usize {
        self.peers.hub.connections.iter().filter(|c| c.is_open() && !c.closed).count()
    }

    pub(crate) fn try_call(
        &mut self,
        request: &[u8],
        timeout: Option<Duration>,
    ) -> Result<u64, CallError> {
        self.peers.check_len(request.len())?;
        let Some(at) = self.place_or_look(request.len())? else { return Err(CallError::Full) };
        self.last_key += 1;
        let key = self.last_key;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let call = Call {
            request: request.to_vec(),
            until,
            place: None,
            started: false,
            parts: VecDeque::new(),
            ending: None,
        };
        self.calls.insert(key, call);
        self.put(key, at);
        if !self.peers.hub.connections[at].flush() {
            let id = self.peers.hub.connections[at].id;
            self.lose(id);
        } else if self.peers.hub.connections[at].unwritten_bytes() > 0 {
            let id = self.peers.hub.connections[at].id;
            self.peers.hub.watch_again(id);
        }
        Ok(key)
    }

    /// A connection that takes a request now, after a look at what happened if there was none.
    fn place_or_look(&mut self, len: usize) -> Result<Option<usize>, CallError> {
        if self.backlog.is_empty()
            && let Some(at) = self.place(len)?
        {
            return Ok(Some(at));
        }
        self.look()?;
        self.peers.must_fit()?;
        if !self.backlog.is_empty() {
            return Ok(None);
        }
        let at = self.place(len)?;
        if at.is_none() && self.peers.hub.connections.is_empty() && !self.peers.hub.expects_more() {
            let problem = "the server is gone, and connecting again was not wanted";
            let address = &self.peers.hub.setup.address;
            return Err(Error::new(ErrorKind::NotFound, address, problem).into());
        }
        Ok(at)
    }

    /// The connection with the fewest calls under way of those that take one of this length.
    fn place(&mut self, len: usize) -> Result<Option<usize>, CallError> {
        let connections = &self.peers.hub.connections;
        let count = connections.len();
        let mut best: Option<(usize, usize)> = None;
        let (mut limit, mut fits) = (None, false);
        for step in 0..count {
            let at = (self.current + 1 + step) % count;
            let Some(link) = usable(&connections[at]) else { continue };
            if len > link.largest_message_bytes() {
                limit = limit.max(Some(link.largest_message_bytes()));
                continue;
            }
            fits = true;
            let load = link.calls();
            if link.takes_call(len) && best.is_none_or(|(_, least)| load < least) {
                best = Some((at, load));
            }
        }
        if let Some((at, _)) = best {
            self.current = at;
            let room = self.calls.len() < MOST_CALLS;
            return Ok(room.then_some(at));
        }
        let whose = "what the server takes (its ?max-message=)";
        match limit {
            Some(limit) if !fits => Err(too_large(len, limit, whose).into()),
            _ => Ok(None),
        }
    }

    /// Puts a call on a connection that takes it.
    fn put(&mut self, key: u64, at: usize) {
        let connection = &mut self.peers.hub.connections[at];
        let (Wire::Link(link), Some(call)) = (&mut connection.wire, self.calls.get_mut(&key))
        else {
            return;
        };
        // What is over by the time it arrives still says so: 0 would be for ever.
        let left = call.until.map(|until| until.saturating_duration_since(Instant::now()));
        let left_us =
            left.map_or(0, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1));
        let id = link.call(left_us, &call.request);
        call.place = Some((connection.id, id));
        self.routes.insert((connection.id, id), key);
        self.likely = connection.id;
    }

    pub(crate) fn take(&mut self, key: u64, with: &mut dyn FnMut(&[u8])) -> Option<Heard> {
        let call = self.calls.get_mut(&key)?;
        let Some(part) = call.parts.pop_front() else {
            call.ending.as_ref()?;
            return self.calls.remove(&key)?.ending;
        };
        with(&part);
        if call.parts.is_empty() && matches!(call.ending, Some(Heard::Reply)) {
            self.calls.remove(&key);
            return Some(Heard::Reply);
        }
        if let Some((connection, id)) = call.place
            && call.ending.is_none()
            && let Some(connection) = self.peers.hub.connection(connection)
            && let Wire::Link(link) = &mut connection.wire
        {
            link.grant(id, part.len());
            // If the server is gone, reading finds that out.
            connection.flush();
        }
        Some(Heard::Part)
    }

    pub(crate) fn is_with_server(&self, key: u64) -> bool {
        self.calls.get(&key).is_none_or(|call| call.place.is_some())
    }

    pub(crate) fn cancel(&mut self, key: u64) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.backlog.retain(|waiting| *waiting != key);
        let Some(place) = call.place.filter(|_| call.ending.is_none()) else { return };
        self.routes.remove(&place);
        if let Some(connection) = self.peers.hub.connection(place.0)
            && let Wire::Link(link) = &mut connection.wire
        {
            link.cancel(place.1);
            connection.flush();
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), CallError> {
        Ok(self.peers.wait(deadline)?)
    }

    pub(crate) fn look(&mut self) -> Result<(), CallError> {
        // The server that was called last is likely to answer next: one call instead of two.
        let likely = self.likely;
        if let Some(connection) = self.peers.hub.connection(likely)
            && connection.is_open()
        {
            match connection.read() {
                Read::Some => return self.hear(likely),
                Read::Closed => self.lose(likely),
                Read::Nothing => {}
            }
        }
        let found = self.peers.look()?;
        for id in found.ready {
            let Some(connection) = self.peers.hub.connection(id) else { continue };
            let read = connection.read();
            let flushed = connection.flush();
            self.hear(id)?;
            if read == Read::Closed || !flushed {
                self.lose(id);
            }
        }
        self.give_out_backlog()?;
        if found.cancelled { Err(CallError::Interrupted) } else { Ok(()) }
    }

    /// Takes what was read from a connection.
    fn hear(&mut self, id: u64) -> Result<(), CallError> {
        let (calls, routes) = (&mut self.calls, &mut self.routes);
        let mut closing = false;
        let heard = self.peers.hear(id, |event| match event {
            Event::End => closing = true,
            event => note(calls, routes, id, event),
        });
        if closing {
            self.take_back_waiting(id);
        }
        heard.or_else(|who| {
            let (peer, problem) = (who.peer().to_owned(), who.problem());
            self.drop_connection(id, |started| Ending::Misbehaved {
                peer: peer.clone(),
                problem: problem.clone(),
                started,
            });
            Ok(self.peers.turned_away(who)?)
        })
    }

    /// The server takes no more: what it did not begin goes to others.
    fn take_back_waiting(&mut self, id: u64) {
        let Some(connection) = self.peers.hub.connection(id) else { return };
        let peer = connection.peer.clone();
        let Wire::Link(link) = &mut connection.wire else { return };
        let waiting = link.take_waiting_calls();
        for number in waiting {
            if let Some(key) = self.routes.remove(&(id, number)) {
                self.again_or(key, Ending::Gone { peer: peer.clone(), started: false });
            }
        }
    }

    /// A call that no server began goes to another, if one is there, and ends otherwise.
    fn again_or(&mut self, key: u64, ending: Ending) {
        let others = self.peers.hub.connections.iter().any(|c| usable(c).is_some());
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.place = None;
        if others {
            self.backlog.push_back(key);
        } else {
            call.ending = Some(Heard::Over(ending));
        }
    }

    /// A connection is gone. What its server said before that counts.
    fn lose(&mut self, id: u64) {
        loop {
            let Some(connection) = self.peers.hub.connection(id) else { return };
            let read = connection.read();
            // What does not fit is found out here, too, and removes the connection.
            if self.hear(id).is_err() || read != Read::Some {
                break;
            }
        }
        let Some(connection) = self.peers.hub.connection(id) else { return };
        if !connection.is_open() {
            self.peers.hub.forget(id);
            return;
        }
        let peer = connection.peer.clone();
        self.drop_connection(id, |started| Ending::Gone { peer: peer.clone(), started });
    }

    fn drop_connection(&mut self, id: u64, ending: impl Fn(bool) -> Ending) {
        let crosses = self.peers.hub.setup.address.transport().capabilities.crosses_hosts;
        let Some(mut connection) = self.peers.hub.remove(id) else { return };
        // Between machines, a broken connection may have swallowed that a call was begun.
        let doubtful = crosses && connection.broken;
        let Wire::Link(link) = &mut connection.wire else { return };
        for (number, started) in link.take_calls() {
            let Some(key) = self.routes.remove(&(id, number)) else { continue };
            if started || doubtful {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.ending = Some(Heard::Over(ending(true)));
                }
            } else {
                self.again_or(key, ending(false));
            }
        }
        // What waited for room at other servers ends with the last of them.
        if !self.peers.hub.connections.iter().any(|c| usable(c).is_some()) {
            for key in std::mem::take(&mut self.backlog) {
                self.again_or(key, ending(false));
            }
        }
    }

    fn give_out_backlog(&mut self) -> Result<(), CallError> {
        while let Some(key) = self.backlog.front().copied() {
            let Some(call) = self.calls.get(&key) else {
                self.backlog.pop_front();
                continue;
            };
            let Some(at) = self.place(call.request.len())? else { break };
            self.backlog.pop_front();
            self.put(key, at);
            if !self.peers.hub.connections[at].flush() {
                let id = self.peers.hub.connections[at].id;
                self.lose(id);
            }
        }
        Ok(())
    }
}

impl Drop for StreamClient {
    fn drop(&mut self) {
        if !self.peers.hub.setup.is_here() {
            return;
        }
        for connection in &mut self.peers.hub.connections {
            if let Wire::Link(link) = &mut connection.wire {
                link.end_calls();
            }
            connection.flush();
        }
    }
}

/// The link of a connection whose server may take calls.
fn usable(connection: &Connection) -> Option<&Link> {
    match &connection.wire {
        Wire::Link(link) if link.is_open() && !link.is_closing() && !connection.closed => {
            Some(link)
        }
        _ => None,
    }
}

/// Notes what a server said of a call.
fn note(
    calls: &mut BTreeMap<u64, Call>,
    routes: &mut BTreeMap<(u64, u64), u64>,
    connection: u64,
    event: Event<'_>,
) {
    let (id, part, ending) = match event {
        Event::Started(id) => (id, None, None),
        Event::Part { id, payload } => (id, Some(payload), None),
        Event::Reply { id, payload } => (id, Some(payload), Some(Heard::Reply)),
        Event::Done(id) => (id, None, Some(Heard::Over(Ending::Done))),
        Event::CallFailed { id, failure } => (id, None, Some(Heard::Over(Ending::Failed(failure)))),
        _ => return,
    };
    let Some(key) = routes.get(&(connection, id)) else { return };
    let Some(call) = calls.get_mut(key) else { return };
    if !std::mem::replace(&mut call.started, true) {
        call.request = Vec::new();
    }
    if let Some(part) = part {
        call.parts.push_back(part.to_vec());
    }
    if ending.is_some() {
        call.ending = ending;
        routes.remove(&(connection, id));
    }
}
