//! The receiving end of a queue over connections, links or a foreign framing; and of a topic over links.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Read, Wire};
use super::hub::Hub;
use super::{Raw, Receipt};
use crate::error::{Error, ErrorKind, RecvError};
use crate::link::{Event, LinkError};

/// Messages taken from one connection in a row, so that a fast sender cannot hide the others.
const IN_A_ROW: u32 = 256;

#[derive(Debug)]
pub(crate) struct StreamReceiver {
    hub: Hub,
    /// The connection that messages are taken from, and how many were in a row.
    current: usize,
    in_a_row: u32,
    /// What is to be reported before anything else is received.
    reports: VecDeque<RecvError>,
    /// Acknowledgements wait to be written on some connection.
    untold: bool,
    /// Senders that were reported or ended: what makes this end, when nobody is left.
    left: u64,
    /// What is missing of a topic is told by its report alone, not with the next message too.
    by_acknowledgement: bool,
}

/// What one connection had in its buffer.
enum Taken {
    Message,
    Nothing,
    /// So many are missing before the next one.
    Gap(u64),
    Gone(LinkError),
}

impl StreamReceiver {
    pub(crate) fn new(mut hub: Hub) -> Self {
        hub.redial = hub.setup.options.follow;
        Self {
            hub,
            current: 0,
            in_a_row: 0,
            reports: VecDeque::new(),
            untold: false,
            left: 0,
            by_acknowledgement: false,
        }
    }

    /// The caller counts messages when it acknowledges them: gaps are told by their reports.
    pub(crate) fn count_acknowledged(&mut self) {
        self.by_acknowledgement = true;
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.hub.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.hub.local_address()
    }

    pub(crate) fn peers(&self) -> usize {
        self.hub.connections.iter().filter(|c| !c.closed && !c.done && c.is_open()).count()
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        if self.reports.is_empty() {
            self.hub.wait(deadline)?;
        }
        Ok(())
    }

    /// Takes one message that has been read already.
    #[inline]
    pub(crate) fn take_buffered(
        &mut self,
        with: &mut dyn FnMut(Raw<'_>),
    ) -> Result<bool, RecvError> {
        let count = self.hub.connections.len();
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.current += 1;
        }
        for step in 0..count {
            let at = (self.current + step) % count;
            match take_from(&mut self.hub.connections[at], with) {
                Taken::Message => {
                    self.current = at;
                    self.in_a_row = if step == 0 { self.in_a_row + 1 } else { 1 };
                    return Ok(true);
                }
                Taken::Nothing => {}
                Taken::Gap(missing) => {
                    let connection = &mut self.hub.connections[at];
                    connection.missing = if self.by_acknowledgement { 0 } else { missing };
                    let peer = connection.peer.clone();
                    self.current = at;
                    self.reports.push_back(RecvError::Gap { peer, missing });
                    break;
                }
                Taken::Gone(error) => {
                    let id = self.hub.connections[at].id;
                    self.turn_away(id, error);
                    break;
                }
            }
        }
        self.report()?;
        Ok(false)
    }

    /// Takes up to `most` further messages of the connection that the last one came from, without
    /// looking at others. How many there were.
    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let Some(connection) = self.hub.connections.get_mut(self.current) else { return 0 };
        // Other connections get their turn after each batch.
        self.in_a_row = IN_A_ROW;
        let id = connection.id;
        let mut count = 0;
        if let Wire::Link(link) = &mut connection.wire {
            while count < most
                && let Some(Event::Message { sequence, payload, redelivered, deliveries }) =
                    link.next_message()
            {
                let receipt = Receipt { connection: id, sequence };
                with(Raw { receipt, redelivered, deliveries, ..Raw::bare(payload) });
                count += 1;
            }
        } else {
            while count < most && matches!(take_from(connection, with), Taken::Message) {
                count += 1;
            }
            return count;
        }
        connection.received += count as u64;
        count
    }

    /// The next thing to report, if any.
    fn report(&mut self) -> Result<(), RecvError> {
        match self.reports.pop_front() {
            Some(report) => Err(report),
            None => Ok(()),
        }
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        if self.take_buffered(with)? {
            return Ok(true);
        }
        // The connection that spoke last is likely to speak again: one call instead of two. While it
        // does, acknowledgements go out by their number, not with every read.
        let current = self.hub.connections.get_mut(self.current);
        if current.is_some_and(|c| c.can_guess() && c.read() == Read::Some)
            && self.take_buffered(with)?
        {
            return Ok(true);
        }
        self.flush_acknowledgements()?;
        let found = self.hub.look()?;
        for id in &found.ready {
            if let Some(connection) = self.hub.connection(*id) {
                connection.read();
                connection.flush();
            }
        }
        if self.take_buffered(with)? {
            return Ok(true);
        }
        self.flush_acknowledgements()?;
        self.bury();
        if let Some(id) = self.hub.overdue() {
            let problem = "it connected and said no hello within 10 s".to_owned();
            self.turn_away(id, LinkError::Misbehaved(problem));
        }
        self.report()?;
        if found.cancelled {
            return Err(RecvError::Interrupted);
        }
        if self.is_over() { Err(RecvError::Ended) } else { Ok(false) }
    }

    /// Whether every sender that joined has ended or died.
    fn is_over(&self) -> bool {
        let active = self.hub.connections.iter().any(|c| !(c.done || c.closed));
        let gone = self.left > 0 || self.hub.connections.iter().any(|c| c.done);
        if self.hub.setup.options.follow {
            return !active && !self.hub.expects_more();
        }
        gone && !active
    }

    /// Deals with connections that closed: all that arrived over them was handed out.
    fn bury(&mut self) {
        let closed: Vec<u64> =
            self.hub.connections.iter().filter(|c| c.closed).map(|c| c.id).collect();
        for id in closed {
            let Some(connection) = self.hub.connection(id) else { continue };
            let ended = connection.done;
            let (peer, received) = (connection.peer.clone(), connection.received);
            let spoke = connection.is_open() || matches!(connection.wire, Wire::Foreign(_));
            let foreign = matches!(connection.wire, Wire::Foreign(_));
            if !spoke {
                self.hub.forget(id);
                continue;
            }
            self.hub.remove(id);
            self.left += 1;
            if !ended && !foreign {
                self.reports.push_back(RecvError::PeerDied { peer, received });
            }
        }
    }

    /// Closes a connection whose peer cannot be talked to.
    fn turn_away(&mut self, id: u64, error: LinkError) {
        let Some(connection) = self.hub.connection(id) else { return };
        if let (Wire::Link(link), LinkError::Misbehaved(problem)) = (&mut connection.wire, &error) {
            link.refuse(problem);
        }
        connection.flush();
        let was_open = connection.received > 0;
        let peer = connection.peer.clone();
        let only = !self.hub.listens();
        if only && !matches!(error, LinkError::Misbehaved(_)) {
            // It will not fit the next time either.
            self.hub.redial = false;
        }
        if was_open || only {
            self.hub.remove(id);
            self.left += 1;
        } else {
            self.hub.forget(id);
        }
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

    #[inline]
    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        let every = u64::from(self.hub.setup.options.acknowledge_every.max(1));
        let hint = self.current;
        let at = match self.hub.connections.get(hint) {
            Some(connection) if connection.id == receipt.connection => Some(hint),
            _ => self.hub.connections.iter().position(|c| c.id == receipt.connection),
        };
        let Some(at) = at else { return Ok(false) };
        let connection = &mut self.hub.connections[at];
        let Wire::Link(link) = &mut connection.wire else { return Ok(true) };
        let settled = link.acknowledge(receipt.sequence);
        self.untold = true;
        if link.untold() >= every {
            link.tell();
            connection.flush();
        }
        Ok(settled)
    }

    /// Acknowledges many: runs of one connection at once.
    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) -> Result<(), RecvError> {
        let every = u64::from(self.hub.setup.options.acknowledge_every.max(1));
        for run in receipts.chunk_by(|a, b| {
            a.connection == b.connection && a.sequence.checked_add(1) == Some(b.sequence)
        }) {
            let [first, ..] = run else { continue };
            let last = first.sequence + (run.len() as u64 - 1);
            let Some(connection) = self.hub.connection(first.connection) else { continue };
            let Wire::Link(link) = &mut connection.wire else { continue };
            link.acknowledge_run(first.sequence, last);
            if link.untold() >= every {
                link.tell();
                connection.flush();
            }
            self.untold = true;
        }
        Ok(())
    }

    pub(crate) fn reject(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        let Some(connection) = self.hub.connection(receipt.connection) else { return Ok(false) };
        let Wire::Link(link) = &mut connection.wire else { return Ok(false) };
        let rejected = link.reject(receipt.sequence);
        link.tell();
        connection.flush();
        Ok(rejected)
    }

    pub(crate) fn flush_acknowledgements(&mut self) -> Result<(), RecvError> {
        if !std::mem::take(&mut self.untold) {
            return Ok(());
        }
        for connection in &mut self.hub.connections {
            if let Wire::Link(link) = &mut connection.wire {
                link.tell();
            }
            // If the sender is gone, reading finds that out.
            connection.flush();
        }
        Ok(())
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        if !self.hub.setup.is_here() {
            return;
        }
        self.untold = true;
        let _ = self.flush_acknowledgements();
    }
}

/// Takes the next message out of one connection's buffer.
#[inline]
fn take_from(connection: &mut Connection, with: &mut dyn FnMut(Raw<'_>)) -> Taken {
    let id = connection.id;
    match &mut connection.wire {
        Wire::Link(link) => loop {
            match link.next_event() {
                Ok(Some(Event::Message { sequence, payload, redelivered, deliveries })) => {
                    let receipt = Receipt { connection: id, sequence };
                    let lost_before = std::mem::take(&mut connection.missing);
                    with(Raw {
                        receipt,
                        redelivered,
                        deliveries,
                        lost_before,
                        ..Raw::bare(payload)
                    });
                    connection.received += 1;
                    return Taken::Message;
                }
                Ok(Some(Event::Gap(missing))) => return Taken::Gap(missing),
                Ok(Some(Event::End)) => {
                    connection.done = true;
                    link.tell();
                    connection.flush();
                    // Nothing may follow: if something does, it is looked at now.
                    return take_from(connection, with);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    link.shrink();
                    return Taken::Nothing;
                }
                Err(error) => return Taken::Gone(error),
            }
        },
        Wire::Foreign(foreign) => match foreign.next() {
            Ok(Some(payload)) => {
                with(Raw {
                    receipt: Receipt { connection: id, sequence: 0 },
                    ..Raw::bare(payload)
                });
                connection.received += 1;
                Taken::Message
            }
            Ok(None) => {
                foreign.input.shrink();
                Taken::Nothing
            }
            Err(problem) => Taken::Gone(LinkError::Misbehaved(problem)),
        },
    }
}
