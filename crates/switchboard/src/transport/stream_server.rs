//! The answering end of a service over links.
//!
//! Calls wait here in the order of each client, and clients take turns. A call is handed out only after its
//! client was told, so that a client knows of each call whether it can have begun; and only once
//! nothing else waits to be written to that client, so that one that reads nothing gets nothing done.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::Receipt;
use super::connection::{Connection, Read, Wire};
use super::hub::Hub;
use super::service_flavor::Request;
use super::stream_peers::too_large;
use crate::error::{Error, ErrorKind, RecvError};
use crate::link::{Answer, Event, LinkError};
use crate::pattern::service::{CallState, Code, ReplyError};

/// Calls handed out without a look at who else has something to say.
const BETWEEN_LOOKS: u32 = 16;

#[derive(Debug)]
pub(crate) struct StreamServer {
    hub: Hub,
    desks: BTreeMap<u64, Desk>,
    /// Connections with calls that wait, each once.
    turns: VecDeque<u64>,
    /// What is to be reported before anything else is handed out.
    reports: VecDeque<RecvError>,
    /// A connection that is likely to have the next call.
    likely: u64,
    since_look: u32,
    finishing: bool,
}

/// What waits of one client.
#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Waiting>,
    /// Its client was told, and not all of that is written.
    told: Option<Waiting>,
    /// It is among the turns.
    has_turn: bool,
    /// Calls handed out, and until when their clients wait.
    begun: BTreeMap<u64, Option<Instant>>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    until: Option<Instant>,
    request: Vec<u8>,
}

impl StreamServer {
    pub(crate) fn new(mut hub: Hub) -> Self {
        hub.redial = hub.setup.options.reconnect;
        Self {
            hub,
            desks: BTreeMap::new(),
            turns: VecDeque::new(),
            reports: VecDeque::new(),
            likely: 0,
            since_look: 0,
            finishing: false,
        }
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

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        if self.reports.is_empty() && self.turns.is_empty() {
            self.hub.wait(deadline)?;
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Request<'_>)) -> Result<bool, RecvError> {
        if self.since_look < BETWEEN_LOOKS && self.hand_out(with) {
            self.since_look += 1;
            return Ok(true);
        }
        // The client that was answered last is likely to call next: one call instead of two.
        let likely = self.likely;
        if self.since_look < BETWEEN_LOOKS
            && let Some(connection) = self.hub.connection(likely)
            && connection.is_open()
        {
            let read = connection.read();
            self.hear(likely, read);
            if self.hand_out(with) {
                self.since_look += 1;
                return Ok(true);
            }
        }
        self.since_look = 0;
        self.look()?;
        if self.hand_out(with) {
            return Ok(true);
        }
        if self.hub.connections.is_empty() && !self.hub.expects_more() {
            return Err(RecvError::Ended);
        }
        Ok(false)
    }

    pub(crate) fn has_call(&self) -> bool {
        self.desks.values().any(|desk| !desk.waiting.is_empty())
    }

    pub(crate) fn look(&mut self) -> Result<(), RecvError> {
        let cancelled = self.gather()?;
        if let Some(report) = self.reports.pop_front() {
            return Err(report);
        }
        if cancelled { Err(RecvError::Interrupted) } else { Ok(()) }
    }

    /// Waits for a client to take a part, and reads what all of them say meanwhile. What is to be reported
    /// is kept. `Interrupted`.
    pub(crate) fn wait_for_room(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        self.hub.wait(deadline)?;
        if self.gather()? { Err(RecvError::Interrupted) } else { Ok(()) }
    }

    /// Accepts, reads and writes, without waiting. Whether this end's wait is cancelled.
    fn gather(&mut self) -> Result<bool, RecvError> {
        let found = self.hub.look()?;
        for id in found.ready {
            let Some(connection) = self.hub.connection(id) else { continue };
            let read = connection.read();
            connection.flush();
            self.hear(id, read);
        }
        if let Some(id) = self.hub.overdue() {
            let problem = "it connected and said no hello within 10 s".to_owned();
            self.turn_away(id, LinkError::Misbehaved(problem));
        }
        Ok(found.cancelled)
    }

    /// Takes what was read from a connection.
    fn hear(&mut self, id: u64, read: Read) {
        let Some(connection) = self.hub.connections.iter_mut().find(|c| c.id == id) else { return };
        let Wire::Link(link) = &mut connection.wire else { return };
        let desk = self.desks.entry(id).or_default();
        let mut ended = false;
        let error = loop {
            match link.next_event() {
                Ok(Some(Event::Call { id, timeout_us, request })) => {
                    let left = (timeout_us > 0).then(|| Duration::from_micros(timeout_us));
                    let until = left.and_then(|left| Instant::now().checked_add(left));
                    desk.waiting.push_back(Waiting { id, until, request: request.to_vec() });
                }
                Ok(Some(Event::End)) => ended = true,
                Ok(Some(_)) => {}
                Ok(None) => {
                    link.shrink();
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        connection.done |= ended;
        if !connection.is_open() && error.is_none() {
            // It has said nothing yet, and may be made to go without a word.
            self.desks.remove(&id);
            if read == Read::Closed {
                self.forget(id);
            }
            return;
        }
        let waits = !desk.waiting.is_empty() || desk.told.is_some();
        if waits && !std::mem::replace(&mut desk.has_turn, true) {
            self.turns.push_back(id);
        }
        if let Some(error) = error {
            self.turn_away(id, error);
        } else if read == Read::Closed {
            self.forget(id);
        }
    }

    /// A client is gone; so is what it asked for.
    fn forget(&mut self, id: u64) {
        self.desks.remove(&id);
        let spoke = self.hub.connection(id).is_some_and(|connection| connection.is_open());
        if spoke {
            self.hub.remove(id);
        } else {
            self.hub.forget(id);
        }
    }

    /// Closes a connection whose peer cannot be talked to.
    fn turn_away(&mut self, id: u64, error: LinkError) {
        let Some(connection) = self.hub.connection(id) else { return };
        if let (Wire::Link(link), LinkError::Misbehaved(problem)) = (&mut connection.wire, &error) {
            link.refuse(problem);
        }
        connection.flush();
        let peer = connection.peer.clone();
        let only = !self.hub.listens();
        if only && !matches!(error, LinkError::Misbehaved(_)) {
            // It will not fit the next time either.
            self.hub.redial = false;
        }
        self.desks.remove(&id);
        self.hub.remove(id);
        self.reports.push_back(match error {
            LinkError::Misbehaved(problem) => RecvError::PeerMisbehaved { peer, problem },
            LinkError::Mismatch(problem) | LinkError::Refused(problem) if only => {
                let problem = format!("{peer} does not fit: {problem}");
                RecvError::Failed(Error::new(ErrorKind::Mismatch, &self.hub.setup.address, problem))
            }
            LinkError::Mismatch(problem) | LinkError::Refused(problem) => {
                RecvError::PeerRefused { peer, problem }
            }
        });
    }

    /// Hands out the call of the client whose turn it is.
    fn hand_out(&mut self, with: &mut dyn FnMut(Request<'_>)) -> bool {
        for _ in 0..self.turns.len() {
            let Some(connection) = self.turns.pop_front() else { return false };
            let Some(desk) = self.desks.get_mut(&connection) else { continue };
            desk.has_turn = false;
            let found = self.hub.connections.iter_mut().find(|c| c.id == connection);
            let Some(peer) = found else { continue };
            let Some(call) = next_of(desk, peer) else { continue };
            desk.begun.insert(call.id, call.until);
            if !desk.waiting.is_empty() {
                desk.has_turn = true;
                self.turns.push_back(connection);
            }
            self.likely = connection;
            with(Request {
                receipt: Receipt { connection, sequence: call.id },
                bytes: &call.request,
                deadline: call.until,
            });
            return true;
        }
        false
    }

    pub(crate) fn answer(
        &mut self,
        receipt: Receipt,
        answer: Answer<'_>,
    ) -> Result<(), ReplyError> {
        let Receipt { connection, sequence } = receipt;
        let Some(peer) = self.hub.connection(connection) else {
            return Err(ReplyError::ClientGone);
        };
        let Wire::Link(link) = &mut peer.wire else { return Err(ReplyError::ClientGone) };
        let wanted = link.wants_reply(sequence);
        if let Answer::Reply(payload) = answer {
            check_len(payload.len(), link.largest_message_bytes())?;
        }
        let answer = if wanted { answer } else { Answer::Done };
        let open = link.answer(sequence, answer);
        // A client that is gone is found out by reading.
        peer.flush();
        if peer.unwritten_bytes() > 0 {
            self.hub.watch_again(connection);
        }
        if let Some(desk) = self.desks.get_mut(&connection) {
            desk.begun.remove(&sequence);
        }
        if wanted && open { Ok(()) } else { Err(ReplyError::Cancelled) }
    }

    pub(crate) fn try_part(&mut self, receipt: Receipt, bytes: &[u8]) -> Result<(), ReplyError> {
        let Receipt { connection, sequence } = receipt;
        let Some(peer) = self.hub.connection(connection) else {
            return Err(ReplyError::ClientGone);
        };
        let Wire::Link(link) = &mut peer.wire else { return Err(ReplyError::ClientGone) };
        check_len(bytes.len(), link.largest_message_bytes())?;
        if !link.wants_reply(sequence) {
            return Err(ReplyError::Cancelled);
        }
        if !link.takes_part(sequence, bytes.len()) || link.unwritten_bytes() > 0 {
            return Err(ReplyError::Full);
        }
        link.part(sequence, bytes);
        peer.flush();
        if peer.unwritten_bytes() > 0 {
            self.hub.watch_again(connection);
        }
        Ok(())
    }

    /// Whether a call's client waits for it, after reading what it said.
    pub(crate) fn state(&mut self, receipt: Receipt) -> CallState {
        let Receipt { connection, sequence } = receipt;
        if let Some(peer) = self.hub.connection(connection) {
            let read = peer.read();
            self.hear(connection, read);
        }
        let Some(peer) = self.hub.connection(connection) else { return CallState::ClientGone };
        let Wire::Link(link) = &mut peer.wire else { return CallState::ClientGone };
        if !link.wants_reply(sequence) {
            return CallState::Cancelled;
        }
        let until = self.desks.get(&connection).and_then(|desk| desk.begun.get(&sequence));
        match until {
            Some(Some(until)) if *until <= Instant::now() => CallState::DeadlinePassed,
            _ => CallState::Wanted,
        }
    }

    /// Takes no more calls. Whether nothing is left to be answered or written.
    pub(crate) fn finish(&mut self) -> Result<bool, RecvError> {
        if !std::mem::replace(&mut self.finishing, true) {
            self.turns.clear();
            for connection in &mut self.hub.connections {
                if let Some(desk) = self.desks.get_mut(&connection.id) {
                    desk.waiting.clear();
                    // Its client was told that it begins.
                    if let (Some(call), Wire::Link(link)) = (desk.told.take(), &mut connection.wire)
                    {
                        let code = Code::Unavailable as u16;
                        link.answer(call.id, Answer::Fail(code, "the server is closing", &[]));
                    }
                }
                if let Wire::Link(link) = &mut connection.wire {
                    link.take_no_more_calls();
                }
                connection.flush();
            }
        }
        if self.gather()? {
            return Err(RecvError::Interrupted);
        }
        let busy = self.desks.values().any(|desk| !desk.begun.is_empty());
        let unwritten = self.hub.connections.iter().any(|c| c.is_open() && c.unwritten_bytes() > 0);
        Ok(!busy && !unwritten)
    }
}

impl Drop for StreamServer {
    fn drop(&mut self) {
        if !self.hub.setup.is_here() {
            return;
        }
        // Those whose calls did not begin are told so.
        for connection in &mut self.hub.connections {
            if let Wire::Link(link) = &mut connection.wire {
                link.take_no_more_calls();
            }
            connection.flush();
        }
    }
}

fn check_len(len: usize, limit: usize) -> Result<(), ReplyError> {
    if len <= limit {
        return Ok(());
    }
    let whose = "what both sides take (?max-message=)";
    Err(ReplyError::too_large(too_large(len, limit, whose)))
}

/// The next call of a client that can be handed out: its client wants it still, was told, and has taken
/// everything else.
fn next_of(desk: &mut Desk, peer: &mut Connection) -> Option<Waiting> {
    loop {
        peer.flush();
        if peer.unwritten_bytes() > 0 {
            // It goes on when there is room; then this desk gets a turn.
            return None;
        }
        let Wire::Link(link) = &mut peer.wire else { return None };
        if let Some(call) = desk.told.take() {
            return Some(call);
        }
        let call = desk.waiting.pop_front()?;
        let over = call.until.is_some_and(|until| until <= Instant::now());
        if over || !link.wants_reply(call.id) {
            let (code, text) = if over {
                (Code::DeadlineExceeded, "its time was over before it began")
            } else {
                (Code::Cancelled, "it was cancelled before it began")
            };
            link.answer(call.id, Answer::Fail(code as u16, text, &[]));
            continue;
        }
        link.start_call(call.id);
        desk.told = Some(call);
    }
}
