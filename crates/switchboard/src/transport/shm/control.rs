//! The control path of an endpoint: whom it meets, what comes on the links' sockets, who dies.
//!
//! Nothing here waits. All of it shows on one descriptor. What is said to peers is in `control/saying.rs`.

mod saying;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{self, Interest};
use switchboard_kernel::{ErrorKind as Kind, unix_socket};

use super::datagram::{Datagram, LONGEST_BYTES, MOST_DESCRIPTORS};
use super::hello::{Hello, Id, LARGEST_WINDOW, Pattern, Role};
use super::meeting::{self, FIRST_TOKEN, Meeting, Offer, Pair, Way};
use super::peer::Peer;
use crate::error::Error;
use crate::transport::Setup;

/// A link of this endpoint; never used again.
pub(super) type LinkId = u64;

const CANCEL: u64 = FIRST_TOKEN;
const NUDGE: u64 = FIRST_TOKEN + 1;
/// Each link has an even token for its socket, and the odd one after it for its peer's process.
const FIRST_LINK: u64 = FIRST_TOKEN + 2;

/// Datagrams that are taken in one turn, shared by the links that have some: a flood on one leaves the
/// others their turn.
const MOST_DATAGRAMS: usize = 16;
/// More than a socket holds, unless somebody adds to it all the time.
const MOST_LAST_WORDS: usize = 4096;

/// What happened.
#[derive(Debug)]
pub(super) enum Event<M> {
    Met(Met<M>),
    Welcome(LinkId, Welcome),
    Segment(LinkId, u32, OwnedFd),
    Reject(LinkId, u64),
    Taken(LinkId, u64),
    /// There may be something in the memory.
    Wake,
    /// The peer died, or hung up. [`Control::part`] forgets it.
    Gone(LinkId),
    /// The peer of a link broke the protocol, and nothing more is heard of it: it is to be
    /// [turned away](Control::turn_away).
    Broke(LinkId, String),
    Refused {
        peer: String,
        problem: String,
    },
    /// This end's rules do not let a peer in. `came`: it is that one who came.
    KeptOut {
        peer: String,
        problem: String,
        came: bool,
    },
    /// The peer has as many links as may be.
    Full {
        peer: String,
        problem: String,
    },
    /// The peer of a link has turned this end away, and writes on as if it were not there. Its end follows.
    TurnedAway(LinkId, String),
    /// The peer's rules do not allow what this end does.
    Denied {
        peer: String,
        problem: String,
    },
    /// A reader that has no byte in the doorbell has read up to here, and is about to sleep.
    Sleeps(LinkId, u64),
    Misbehaved {
        peer: String,
        problem: String,
    },
    /// The caller's descriptor is readable: [`Control::watch_cancel`] looks for that again.
    Cancelled,
    /// Somebody wants to see the counters: where to [send](super::counting::answer) them.
    Asked(OwnedFd),
    Failed(Error),
}

impl<M> Event<M> {
    /// Whether the caller may have to look again: not where somebody only wants to see the counters.
    pub(super) fn is_news(&self) -> bool {
        !matches!(self, Self::Asked(_) | Self::Sleeps(..))
    }
}

/// A peer with which hellos were exchanged.
#[derive(Debug)]
pub(super) struct Met<M> {
    pub(super) link: LinkId,
    pub(super) hello: Hello,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) made: M,
    /// It is of another user.
    pub(super) is_other: bool,
}

/// Where a reader begins.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) slot: u32,
    pub(super) position: u64,
    pub(super) number: u64,
    pub(super) ring: Option<OwnedFd>,
}

#[derive(Debug)]
struct Link {
    id: Id,
    peer: String,
    /// Who it is, if it is of another user.
    other: Option<Peer>,
    socket: OwnedFd,
    process: Option<OwnedFd>,
    gone: bool,
    /// How to reach it again, as long as nothing came of the link, as far as this side can tell.
    way: Option<Box<Way>>,
}

#[derive(Debug)]
pub(crate) struct Control<O: Offer> {
    setup: Setup,
    offer: O,
    meeting: Meeting<O::Made>,
    pattern: Pattern,
    role: Role,
    /// In boxes: a map has room for eleven where there is one.
    links: BTreeMap<LinkId, Box<Link>>,
    next: LinkId,
    /// Datagrams that are taken at once where all is, as of a dead peer.
    pub(super) last_words: usize,
    nudge: Option<EventFd>,
    found: Vec<meeting::Event<O::Made>>,
}

impl<O: Offer> Control<O> {
    /// Opens it under an ID, which another end of this process may have for another pattern.
    pub(super) fn open_as(
        setup: &Setup,
        (pattern, role, id): (Pattern, Role, Id),
        offer: O,
    ) -> Result<Self, Error> {
        let hello = Hello {
            pattern,
            role,
            id,
            fingerprint: setup.schema.fingerprint,
            max_message_bytes: setup.largest_message_bytes(),
            window_messages: setup.options.prefetch_messages.clamp(1, LARGEST_WINDOW),
            program: switchboard_kernel::process::command_name(std::process::id())
                .unwrap_or_default(),
            schema: setup.schema.name.clone(),
        };
        let folder = super::folder_of(&setup.address)?;
        let meeting = Meeting::open(&setup.address, folder, hello, Instant::now())?;
        let control = Self {
            offer,
            meeting,
            pattern,
            role,
            links: BTreeMap::new(),
            next: 0,
            last_words: MOST_LAST_WORDS,
            nudge: None,
            found: Vec::new(),
            setup: setup.again(),
        };
        control.watch_cancel()?;
        Ok(control)
    }

    /// Of a service, whose other end has the same pair.
    pub(super) fn pair_up(&mut self, pair: &Arc<Pair>) {
        self.meeting.pair_up(pair);
    }

    /// Readable when [`turn`](Self::turn) has something to do.
    pub(super) fn epoll(&self) -> Result<OwnedFd, Error> {
        io::duplicate(self.meeting.fd()).map_err(|error| self.setup.system("cannot open", error))
    }

    /// Watches the caller's cancel descriptor, until it is readable.
    pub(super) fn watch_cancel(&self) -> Result<(), Error> {
        let Some(cancel) = &self.setup.options.cancel else { return Ok(()) };
        let _ = self.meeting.epoll().delete(cancel);
        self.meeting
            .epoll()
            .add(cancel, CANCEL, Interest::Readable)
            .map_err(|error| self.setup.system("cannot watch the cancel descriptor", error))
    }

    /// Complements that were found and not met yet.
    pub(super) fn wanted(&self) -> usize {
        self.meeting.wanted()
    }

    /// Deals with what is there, without waiting.
    pub(super) fn turn(&mut self) -> Vec<Event<O::Made>> {
        let mut events = Vec::new();
        let mut found = std::mem::take(&mut self.found);
        if let Err(error) = self.meeting.poll(Instant::now(), &mut self.offer, &mut found) {
            events.push(Event::Failed(error));
        }
        let is_link = |event: &&meeting::Event<_>| {
            matches!(event, meeting::Event::Ready { token: FIRST_LINK.. })
        };
        let share = (MOST_DATAGRAMS / found.iter().filter(is_link).count().max(1)).max(1);
        for event in found.drain(..) {
            match event {
                meeting::Event::Met(met) => self.met(*met, &mut events),
                meeting::Event::Refused { peer, problem } => {
                    events.push(Event::Refused { peer: peer.to_string(), problem });
                }
                meeting::Event::KeptOut { peer, problem, came } => {
                    events.push(Event::KeptOut { peer: peer.to_string(), problem, came });
                }
                meeting::Event::Full { peer, problem } => {
                    events.push(Event::Full { peer: peer.to_string(), problem });
                }
                meeting::Event::Denied { peer, problem } => {
                    events.push(Event::Denied { peer: peer.to_string(), problem });
                }
                meeting::Event::Misbehaved { peer, problem } => {
                    events.push(Event::Misbehaved { peer: peer.to_string(), problem });
                }
                meeting::Event::Failed(error) => events.push(Event::Failed(error)),
                meeting::Event::Asked(socket) => events.push(Event::Asked(socket)),
                meeting::Event::Ready { token: CANCEL } => {
                    // It stays readable, and nobody here reads it.
                    if let Some(cancel) = &self.setup.options.cancel {
                        let _ = self.meeting.epoll().delete(cancel);
                    }
                    events.push(Event::Cancelled);
                }
                meeting::Event::Ready { token: NUDGE } => {
                    if let Some(nudge) = &self.nudge {
                        let _ = nudge.try_take();
                    }
                    events.push(Event::Wake);
                }
                meeting::Event::Ready { token } => {
                    let link = (token - FIRST_LINK) / 2;
                    let died = token % 2 == 1;
                    let most = if died { self.last_words } else { share };
                    self.read(link, died, most, &mut events);
                }
            }
        }
        self.found = found;
        events
    }

    fn met(&mut self, met: meeting::Met<O::Made>, events: &mut Vec<Event<O::Made>>) {
        let meeting::Met { socket, process, peer, hello, descriptors, made, way, is_other } = met;
        let link = self.next;
        self.next += 1;
        let token = FIRST_LINK + 2 * link;
        let epoll = self.meeting.epoll();
        let watched = epoll.add(&socket, token, Interest::Readable).and_then(|()| {
            process.as_ref().map_or(Ok(()), |fd| epoll.add(fd, token + 1, Interest::Readable))
        });
        if let Err(error) = watched {
            self.meeting.forget(hello.id);
            events.push(Event::Failed(self.setup.system("cannot watch a link", error)));
            return;
        }
        let (id, other) = (hello.id, is_other.then(|| peer.clone()));
        let peer = peer.to_string();
        let way = way.map(Box::new);
        let entry = Link { id, peer, other, socket, process, gone: false, way };
        self.links.insert(link, Box::new(entry));
        events.push(Event::Met(Met { link, hello, descriptors, made, is_other }));
    }

    /// What a peer has said by now.
    pub(super) fn hear(&mut self, link: LinkId) -> Vec<Event<O::Made>> {
        let mut events = Vec::new();
        self.read(link, false, self.last_words, &mut events);
        events
    }

    /// Reads what a peer said, so many datagrams at most, and notices its end.
    fn read(&mut self, link: LinkId, died: bool, most: usize, events: &mut Vec<Event<O::Made>>) {
        let Some(entry) = self.links.get(&link).filter(|entry| !entry.gone) else { return };
        let mut buffer = [0; LONGEST_BYTES + 1];
        for _ in 0..most {
            let (received, descriptors) =
                match unix_socket::recv_with_fds(&entry.socket, &mut buffer, MOST_DESCRIPTORS) {
                    Ok((received, _)) if received.len == 0 => {
                        return self.gone(link, !died, events);
                    }
                    Ok(found) => found,
                    Err(error) if error.kind() == Kind::WouldBlock && !died => return,
                    // It left something unread: the kernel says so first, and once. What it said is still there.
                    Err(error) if error.kind() == Kind::ConnectionReset => continue,
                    Err(error) if error.kind() == Kind::MessageTooLarge => {
                        return self.broke(link, "too many descriptors at a time", events);
                    }
                    // A want of this side's, and what came is lost.
                    Err(error) if error.kind() == Kind::TooManyFiles => {
                        let error = self.setup.system("cannot take a peer's descriptors", error);
                        events.push(Event::Failed(error));
                        return self.gone(link, true, events);
                    }
                    Err(_) => return self.gone(link, !died, events),
                };
            let bytes = &buffer[..received.len.min(buffer.len())];
            let from = self.role.complement();
            match Datagram::decode_next(bytes, descriptors.len(), self.pattern, from) {
                Ok(datagram) => match event(link, datagram, descriptors) {
                    Ok(event) => events.push(event),
                    Err(Farewell::Leaves) => return self.gone(link, false, events),
                    Err(Farewell::Refuses(problem)) => {
                        events.push(Event::TurnedAway(link, problem));
                        return self.gone(link, false, events);
                    }
                },
                Err(fault) => return self.broke(link, fault.problem(), events),
            }
        }
        if died {
            self.gone(link, false, events);
        }
    }

    fn broke(&mut self, link: LinkId, problem: &str, events: &mut Vec<Event<O::Made>>) {
        self.unwatch(link);
        if let Some(entry) = self.links.get_mut(&link) {
            entry.gone = true;
            events.push(Event::Broke(link, problem.to_owned()));
        }
    }

    /// `again`: it has hung up, and neither left for good nor died.
    fn gone(&mut self, link: LinkId, again: bool, events: &mut Vec<Event<O::Made>>) {
        self.unwatch(link);
        if let Some(entry) = self.links.get_mut(&link) {
            entry.gone = true;
            entry.way.take_if(|_| !again);
            events.push(Event::Gone(link));
        }
    }

    fn unwatch(&self, link: LinkId) {
        let Some(entry) = self.links.get(&link) else { return };
        let _ = self.meeting.epoll().delete(&entry.socket);
        if let Some(process) = &entry.process {
            let _ = self.meeting.epoll().delete(process);
        }
    }

    /// Whether a link is one of this endpoint's still: what its peer said before it was turned away may be
    /// under way.
    pub(super) fn has(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Who is at the other end of a link.
    pub(super) fn id_of(&self, link: LinkId) -> Option<Id> {
        self.links.get(&link).map(|entry| entry.id)
    }

    /// What is known of a peer, for people to read.
    pub(super) fn peer_name(&self, link: LinkId) -> String {
        self.links.get(&link).map_or_else(|| "a peer".to_owned(), |entry| entry.peer.clone())
    }

    /// The ID of a peer.
    pub(super) fn peer_id(&self, link: LinkId) -> Option<Id> {
        self.links.get(&link).map(|entry| entry.id)
    }

    /// A reader was told where to begin: from now on it is a link, and its end is an end.
    pub(super) fn opened(&mut self, link: LinkId) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.way = None;
        }
    }

    /// A link has ended, and all is done about it; its peer may come again. One that hung up although it lives, and
    /// that this side had dialled, is dialled again.
    pub(super) fn part(&mut self, link: LinkId) {
        self.unwatch(link);
        let Some(entry) = self.links.remove(&link) else { return };
        match entry.way {
            Some(way) => self.meeting.go_again(*way, Instant::now()),
            None => self.meeting.forget(entry.id),
        }
    }

    /// Gives up a link, for want of something on this side. Who dialled dials again, a little later.
    pub(super) fn put_off(&mut self, link: LinkId) {
        self.part(link);
    }

    /// Closes the link of a peer that broke the protocol. Should it come again, nothing is held against
    /// it: a liar has a new name each time.
    pub(super) fn turn_away(&mut self, link: LinkId, why: &str) {
        self.refuse(link, why);
        self.opened(link);
        self.part(link);
    }

    /// Turns a peer of another user away that was let in.
    pub(super) fn evict(&mut self, link: LinkId, why: &str) {
        if let Some(entry) = self.links.get(&link)
            && let Some(other) = &entry.other
        {
            self.meeting.evicted(&entry.socket, other, why);
        }
        self.turn_away(link, why);
    }

    /// Makes the descriptor readable.
    pub(super) fn nudge(&mut self) {
        if self.nudge.is_none()
            && let Ok(nudge) = EventFd::new(0)
            && self.meeting.epoll().add(&nudge, NUDGE, Interest::Readable).is_ok()
        {
            self.nudge = Some(nudge);
        }
        if let Some(nudge) = &self.nudge {
            let _ = nudge.add(1);
        }
    }
}

/// What ends a link.
enum Farewell {
    Leaves,
    Refuses(String),
}

/// What a datagram means.
fn event<M>(
    link: LinkId,
    datagram: Datagram,
    descriptors: Vec<OwnedFd>,
) -> Result<Event<M>, Farewell> {
    let mut descriptors = descriptors.into_iter();
    Ok(match datagram {
        Datagram::Welcome { slot, position, number } => {
            let ring = descriptors.next();
            Event::Welcome(link, Welcome { slot, position, number, ring })
        }
        Datagram::Segment { index, .. } => match descriptors.next() {
            Some(segment) => Event::Segment(link, index, segment),
            // It came with one: that was checked.
            None => Event::Wake,
        },
        Datagram::Reject { number } => Event::Reject(link, number),
        Datagram::Taken { number } => Event::Taken(link, number),
        Datagram::Wake | Datagram::Hello(_) => Event::Wake,
        Datagram::Sleeps { position } => Event::Sleeps(link, position),
        Datagram::Refuse(problem) | Datagram::Full(problem) | Datagram::Denied(problem) => {
            return Err(Farewell::Refuses(problem));
        }
        Datagram::Leave => return Err(Farewell::Leaves),
    })
}

impl<O: Offer> Drop for Control<O> {
    fn drop(&mut self) {
        self.meeting.leave();
        if self.role == Role::Reader {
            for link in self.links.keys() {
                self.say(*link, &Datagram::Leave, &[]);
            }
        }
    }
}
