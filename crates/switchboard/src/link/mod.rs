//! The link: one established, identified connection between two processes, as a state machine.
//!
//! It does no I/O and reads no clock. Bytes that were read go into [`Link::room`] and
//! [`Link::filled`], events come out of [`Link::next_event`]; what it has to say waits in
//! [`Link::unwritten`] until [`Link::wrote`] says it is on its way. `docs/design/link.md` draws the
//! bytes and says what happens when either side dies or lies at each step.

mod calls;
mod frame;
mod hello;
mod incoming;
pub(crate) mod news;
mod outbox;
pub(crate) mod publication;
mod taking;

use calls::Calls;
pub use calls::{Answer, Failure, Unanswered};
pub(crate) use calls::{failure_body, failure_of};
pub(crate) use frame::LONGEST_KEY;
use frame::{HEADER_BYTES, Header, Kind, PREFACE};
pub use hello::{Hello, Pattern, Role};
pub(crate) use hello::{cut, name_or_bytes, printable};
use incoming::{Incoming, Settled};
use outbox::Outbox;
pub use outbox::Unsettled;

use crate::framing::InBuffer;

/// What happened on a link.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The hellos are exchanged; messages may flow.
    Established,
    /// A message arrived. In a queue it stays unsettled until it is acknowledged or rejected.
    Message {
        /// Counts from 1 on each link of a queue; of a topic, at each publisher.
        sequence: u64,
        /// The bytes.
        payload: &'a [u8],
        /// Whether a receiver may have seen it before.
        redelivered: bool,
        /// How often it was given to a receiver before.
        deliveries: u16,
    },
    /// The peer settled messages: this many were acknowledged.
    Acknowledged(u64),
    /// The peer gave a message back.
    Rejected(Unsettled),
    /// So many messages of a topic are missing before the next event.
    Gap(u64),
    /// The sender said that no message follows.
    End,
    /// The receiver saw the end, and everything is settled.
    EndSeen,
    /// A client of a service calls.
    Call {
        /// Counts from 1 on each link.
        id: u64,
        /// How long the client waits, in microseconds; 0 for ever.
        timeout_us: u64,
        /// The bytes.
        request: &'a [u8],
    },
    /// The server began with this call.
    Started(u64),
    /// A part of the reply to a call.
    Part {
        /// The call.
        id: u64,
        /// The bytes.
        payload: &'a [u8],
    },
    /// The reply to a call, or the last part of it.
    Reply {
        /// The call.
        id: u64,
        /// The bytes.
        payload: &'a [u8],
    },
    /// The parts of the reply to this call were all.
    Done(u64),
    /// There is no reply to this call.
    CallFailed {
        /// The call.
        id: u64,
        /// Why.
        failure: Failure,
    },
    /// The client waits for this call no more.
    Cancelled(u64),
    /// The client took a part of the reply to this call.
    Granted(u64),
    /// Something happened.
    Notified {
        /// What.
        id: u64,
        /// How many times, since it was said last.
        count: u64,
    },
    /// The newest value of a key.
    Value {
        /// The key; empty: the state's own value.
        key: &'a str,
        /// Of the values of one key, the newer one's is larger.
        version: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Everything that was set when this side joined has come.
    Known,
}

/// Why a link cannot go on. The link sends nothing further but its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The peer broke the protocol: what it did.
    Misbehaved(String),
    /// The peer cannot be talked to: the two do not fit, and why.
    Mismatch(String),
    /// The peer closed the link and said why.
    Refused(String),
}

/// A link over a pipe takes no more messages while this much waits to be written: nothing else holds
/// its sender back.
const MOST_UNWRITTEN_BYTES: usize = 256 * 1024;

/// Answers that a sender may leave unread, beyond one for each message of its window.
const MOST_UNREAD_BYTES: usize = 64 * 1024;
/// Room for a preface and a hello, with what may follow in a later version.
const GREETING_BYTES: usize = 4096;
/// The largest window that a sender uses, whatever its receiver offers: it keeps what is under way.
const LARGEST_WINDOW_MESSAGES: u32 = 1 << 20;
const LARGEST_WINDOW_BYTES: u32 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for the peer's preface.
    Preface,
    /// Waiting for the peer's hello.
    Hello,
    /// Messages flow.
    Open,
    /// The peer said its end.
    Ended,
    /// It is over: misbehaviour, a mismatch or a refusal.
    Failed,
}

/// One side of a link.
#[derive(Debug)]
pub struct Link {
    local: Hello,
    peer: Option<Hello>,
    state: State,
    /// A pipe: frames flow one way, nothing is acknowledged.
    one_way: bool,
    input: InBuffer,
    outbox: Outbox,
    incoming: Incoming,
    calls: Calls,
    /// A publisher said which number the first message has.
    begun: bool,
    end_sent: bool,
    end_seen_sent: bool,
}

impl Link {
    /// A link over a connection that goes both ways. It starts by saying its hello.
    #[must_use]
    pub fn new(local: Hello) -> Self {
        let mut link = Self::silent(local);
        link.outbox.push_bytes(&PREFACE);
        let hello = link.local.to_bytes();
        link.outbox.push_control(Kind::Hello, 0, &hello);
        link
    }

    /// A link over a pipe. The sender says hello and is open at once; the receiver only listens.
    /// Nothing is acknowledged: the pipe's capacity, and 256 KiB that wait for it, are the limit.
    #[must_use]
    pub fn one_way(local: Hello) -> Self {
        let mut link = if local.role == Role::Sender {
            let mut link = Self::new(local);
            link.state = State::Open;
            link
        } else {
            Self::silent(local)
        };
        link.one_way = true;
        link
    }

    fn silent(local: Hello) -> Self {
        Self {
            local,
            peer: None,
            state: State::Preface,
            one_way: false,
            input: InBuffer::default(),
            outbox: Outbox::default(),
            incoming: Incoming::default(),
            calls: Calls::default(),
            begun: false,
            end_sent: false,
            end_seen_sent: false,
        }
    }

    /// Whether messages may flow.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Ended)
    }

    /// Whether messages are acknowledged on it.
    #[inline]
    fn answers(&self) -> bool {
        !self.one_way && self.local.pattern == Pattern::Queue
    }

    /// Whether this is a link over a pipe.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.one_way
    }

    /// Whether the peer said its end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// What the peer said about itself.
    #[must_use]
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    // ---- sending ----

    /// The largest message that both sides take.
    #[must_use]
    pub fn largest_message_bytes(&self) -> usize {
        let peer = self.peer.as_ref().map_or(u32::MAX, |peer| peer.max_message_bytes);
        self.local.max_message_bytes.min(peer) as usize
    }

    /// Whether the window has room for a message of this length. A message larger than the whole
    /// window may go alone.
    #[must_use]
    #[inline]
    pub fn has_room_for(&self, len: usize) -> bool {
        if self.state != State::Open || self.end_sent {
            return false;
        }
        if self.one_way {
            return self.outbox.unwritten_bytes() < MOST_UNWRITTEN_BYTES;
        }
        let Some(peer) = &self.peer else { return false };
        let messages = self.outbox.outstanding_messages();
        let bytes = self.outbox.outstanding_bytes() + len as u64;
        let window = u64::from(peer.window_messages);
        self.outbox.spread() < window * 2
            && (messages == 0 || (messages < window && bytes <= peer.window_bytes.into()))
    }

    /// Queues a message. The caller has checked [`has_room_for`](Self::has_room_for) and
    /// [`largest_message_bytes`](Self::largest_message_bytes).
    #[inline]
    pub fn send(&mut self, payload: &[u8], redelivered: bool, deliveries: u16) {
        self.outbox.push_message(payload, redelivered, deliveries);
        self.forget_if_one_way();
    }

    /// Room for a message of up to `len` bytes; [`commit`](Self::commit) sends it.
    pub fn reserve(&mut self, len: usize) -> &mut [u8] {
        self.outbox.reserve(len)
    }

    /// Queues the first `len` bytes of the room last reserved.
    pub fn commit(&mut self, len: usize) {
        self.outbox.commit_message(len, false, 0);
        self.forget_if_one_way();
    }

    fn forget_if_one_way(&mut self) {
        if self.one_way {
            self.outbox.settle_through(self.outbox.last_sequence());
        }
    }

    /// Says that no message follows. Once. Before the peer's hello there were none: a sender that leaves
    /// then is not taken for dead.
    pub fn end(&mut self) {
        self.end_after(self.outbox.last_sequence());
    }

    /// As [`end`](Self::end), of a topic: this was its last message.
    pub fn end_after(&mut self, sequence: u64) {
        if !self.end_sent && !matches!(self.state, State::Ended | State::Failed) {
            self.end_sent = true;
            self.outbox.push_control(Kind::End, sequence, &[]);
        }
    }

    /// Says which number the first message of a topic has. The messages themselves are not queued here:
    /// their publisher has them once for all its links.
    pub fn begin(&mut self, sequence: u64) {
        self.outbox.push_control(Kind::Begin, sequence, &[]);
    }

    /// Whether [`end`](Self::end) was called and its frame queued.
    #[must_use]
    pub fn end_sent(&self) -> bool {
        self.end_sent
    }

    /// Messages sent and not settled.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.outbox.outstanding_messages()
    }

    /// Takes back every message that was not settled, in order: the link is over.
    #[must_use]
    pub fn take_unsettled(&mut self) -> Vec<Unsettled> {
        self.state = State::Failed;
        self.outbox.take_unsettled()
    }

    // ---- receiving ----

    /// Acknowledges one message. Whether that changed anything.
    #[inline]
    pub fn acknowledge(&mut self, sequence: u64) -> bool {
        match self.incoming.settle(sequence) {
            Settled::Not => false,
            Settled::OutOfOrder if !self.one_way => {
                self.outbox.push_control(Kind::AckOne, sequence, &[]);
                true
            }
            _ => true,
        }
    }

    /// Acknowledges messages `first` to `last`.
    pub fn acknowledge_run(&mut self, first: u64, last: u64) {
        if !self.incoming.settle_run(first, last) {
            for sequence in first..=last.min(self.incoming.last) {
                self.acknowledge(sequence);
            }
        }
    }

    /// Gives a message back to its sender. `false` where nothing can be given back.
    pub fn reject(&mut self, sequence: u64) -> bool {
        if !self.answers() || self.incoming.settle(sequence) == Settled::Not {
            return false;
        }
        self.outbox.push_control(Kind::Reject, sequence, &[]);
        true
    }

    /// Messages received and not settled.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.incoming.unsettled()
    }

    /// Acknowledgements that wait for [`tell`](Self::tell).
    #[must_use]
    #[inline]
    pub fn untold(&self) -> u64 {
        self.incoming.untold()
    }

    /// Puts acknowledgements into what is to be written, and the answer to the sender's end once
    /// everything is settled.
    pub fn tell(&mut self) {
        if !self.answers() || !self.is_open() {
            return;
        }
        if let Some(through) = self.incoming.tell() {
            self.outbox.push_control(Kind::AckThrough, through, &[]);
        }
        if self.state == State::Ended && !self.end_seen_sent && self.incoming.spread() == 0 {
            self.end_seen_sent = true;
            self.outbox.push_control(Kind::EndSeen, self.incoming.last, &[]);
        }
    }

    /// Tells the peer why this side closes.
    pub fn refuse(&mut self, reason: &str) {
        if !self.one_way && self.state != State::Failed {
            self.state = State::Failed;
            let body = reason.as_bytes();
            self.outbox.push_control(Kind::Refuse, 0, &body[..body.len().min(512)]);
        }
    }

    // ---- bytes ----

    /// Room to read bytes into.
    pub fn room(&mut self) -> &mut [u8] {
        self.room_for_packet(0)
    }

    /// Room to read a packet of up to `packet` bytes into.
    pub fn room_for_packet(&mut self, packet: usize) -> &mut [u8] {
        let publishes = self.local.role == Role::Sender
            && matches!(self.local.pattern, Pattern::Topic | Pattern::Event | Pattern::State);
        if matches!(self.state, State::Preface | State::Hello) || publishes {
            // Nothing but its hello may come before this side's is answered, and from a subscriber
            // nothing at all: many who only knock or listen take little memory.
            return self.input.room_to_greet(GREETING_BYTES);
        }
        let whole = match self.state {
            State::Open => {
                Header::parse(self.input.unread(), self.local.max_message_bytes as usize)
                    .ok()
                    .flatten()
                    .map(|header| HEADER_BYTES + header.body_bytes)
            }
            _ => None,
        };
        self.input.room_for_packet(whole, packet)
    }

    /// Says that `n` bytes were read into the room.
    pub fn filled(&mut self, n: usize) {
        self.input.filled(n);
    }

    /// Gives memory back after unusually large messages. Call when nothing is left to take.
    pub fn shrink(&mut self) {
        self.input.shrink();
    }

    /// Bytes that wait to be written.
    #[must_use]
    #[inline]
    pub fn unwritten_bytes(&self) -> usize {
        self.outbox.unwritten_bytes()
    }

    /// What to write next, in order.
    pub fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        self.outbox.unwritten()
    }

    /// Says that `n` bytes of [`unwritten`](Self::unwritten) were written.
    pub fn wrote(&mut self, n: usize) {
        self.outbox.wrote(n);
    }
}

#[cfg(test)]
mod tests;
