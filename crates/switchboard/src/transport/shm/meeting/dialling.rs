//! Connections that this side makes, to the complements that were there when it came.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use switchboard_kernel::ErrorKind as K;
use switchboard_kernel::io::Interest;

use super::admitting::Admitted;
use super::{Event, Held, Meeting, Met, Offer, Turn};
use crate::error::{Error, ErrorKind};
use crate::transport::shm::datagram::MOST_LINKS;
use crate::transport::shm::folder::Dialled;
use crate::transport::shm::greeting::{self, First};
use crate::transport::shm::hello::{Hello, Id};
use crate::transport::shm::name::Entry;
use crate::transport::shm::peer::{Peer, Process, process_of};

/// When a peer that could not be reached is dialled again.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// A complement that was found and is not met.
#[derive(Debug)]
pub(super) struct Wanted {
    entry: Entry,
    /// The connection under way.
    pub(super) token: Option<u64>,
    /// When to dial, if none is.
    pub(super) next: Instant,
    backoff: Duration,
}

impl Wanted {
    pub(super) fn new(entry: Entry, now: Instant) -> Self {
        Self { entry, token: None, next: now, backoff: FIRST_BACKOFF }
    }
}

/// How a peer was reached that this side dialled: should nothing come of that, it is dialled again.
#[derive(Debug)]
pub(crate) struct Way {
    entry: Entry,
    backoff: Duration,
}

/// A connection that this side made, and said hello on.
#[derive(Debug)]
pub(super) struct Outgoing<M> {
    socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) id: Id,
    process: Option<OwnedFd>,
    made: M,
    is_other: bool,
    held: Option<Box<Held>>,
}

impl<M> Meeting<M> {
    /// Dials those whose time has come.
    pub(super) fn dial_wanted<O: Offer<Made = M>>(&mut self, turn: &mut Turn<'_, O>) {
        let is_due = |wanted: &&Wanted| wanted.token.is_none() && wanted.next <= turn.now;
        // From a place of this end's own on: else who is first would be so for all, and get all calls of clients that call once.
        let own = self.hello.id;
        let in_turn = self.wanted.range(own..).chain(self.wanted.range(..own));
        let due = in_turn.map(|(_, wanted)| wanted).filter(is_due).take(turn.steps_left);
        let due: Vec<Entry> = due.map(|wanted| wanted.entry).collect();
        for entry in due {
            if turn.step() {
                self.dial(entry, turn);
            }
        }
    }

    fn dial<O: Offer<Made = M>>(&mut self, entry: Entry, turn: &mut Turn<'_, O>) {
        let links = self.met.len() + self.dialled.len();
        if links >= MOST_LINKS {
            let problem = format!("this end has {MOST_LINKS} links, and takes no more");
            let error = Error::new(ErrorKind::LimitReached, &self.address, problem);
            return self.dial_later(entry.id, error, turn);
        }
        match self.folder.dial(entry) {
            Dialled::Connected(socket) => self.connected(entry, socket, turn),
            Dialled::Gone => {
                self.wanted.remove(&entry.id);
            }
            // A full backlog is no want of this side's.
            Dialled::NotNow(error) if error.kind() == K::WouldBlock => {
                self.dial_again(entry.id, turn.now);
            }
            Dialled::NotNow(error) => {
                let error = self.system("cannot connect to a peer", error);
                self.dial_later(entry.id, error, turn);
            }
            Dialled::Failed(error) => {
                self.wanted.remove(&entry.id);
                let error = self.system("cannot connect to a peer", error);
                turn.found.push(Event::Failed(error));
            }
        }
    }

    fn connected<O: Offer<Made = M>>(
        &mut self,
        entry: Entry,
        socket: OwnedFd,
        turn: &mut Turn<'_, O>,
    ) {
        let Ok(peer) = Peer::of(socket.as_fd()) else {
            return self.dial_again(entry.id, turn.now);
        };
        let Some(admitted) = self.admit(&socket, (&peer, false), turn) else {
            self.wanted.remove(&entry.id);
            return;
        };
        let pids = self.dialled.values().map(|other| other.peer.pid);
        let under_way = pids.filter(|pid| pid.is_some() && *pid == peer.pid).count();
        let is_full = self.is_full(&peer, under_way);
        if let Some(problem) = is_full.or_else(|| self.is_full_of_user(&peer, admitted)) {
            let error = Error::new(ErrorKind::LimitReached, &self.address, problem);
            return self.dial_later(entry.id, error, turn);
        }
        let Ok(held) = self.hold(entry.id, &socket) else {
            return self.dial_again(entry.id, turn.now);
        };
        let process = match process_of(socket.as_fd(), &peer) {
            Ok(Process::Alive(process)) => Some(process),
            Ok(Process::Unknown) => None,
            // A forked child keeps the socket of a dead endpoint.
            Ok(Process::Dead) => return self.is_dead(entry),
            Err(error) => {
                let error = self.system("cannot watch a peer", error);
                return self.dial_later(entry.id, error, turn);
            }
        };
        let made = match turn.offer.make() {
            Ok(made) => made,
            Err(error) if error.kind() == ErrorKind::LimitReached => {
                return self.dial_later(entry.id, error, turn);
            }
            Err(error) => {
                greeting::refuse(socket.as_fd(), "the other side cannot make a link");
                self.wanted.remove(&entry.id);
                turn.found.push(Event::Failed(error));
                return;
            }
        };
        let is_other = admitted == Admitted::OtherUser;
        let given = match is_other {
            true => turn.offer.for_others(&made),
            false => turn.offer.descriptors(&made),
        };
        let said = greeting::say(socket.as_fd(), &self.greeting, &given);
        match said.err().map(|error| (error.kind(), error)) {
            // A peer that has closed already may have said why.
            None | Some((K::BrokenPipe | K::ConnectionReset, _)) => {}
            Some((_, error)) => {
                let error = self.system("cannot say hello", error);
                return self.dial_later(entry.id, error, turn);
            }
        }
        let id = entry.id;
        let outgoing = Box::new(Outgoing { socket, peer, id, process, made, is_other, held });
        self.watch_outgoing(outgoing, turn);
    }

    fn watch_outgoing<O: Offer<Made = M>>(
        &mut self,
        outgoing: Box<Outgoing<M>>,
        turn: &mut Turn<'_, O>,
    ) {
        let token = self.next_token();
        let watched = self.epoll.add(&outgoing.socket, token, Interest::Readable).and_then(|()| {
            let process = outgoing.process.as_ref();
            process.map_or(Ok(()), |fd| self.epoll.add(fd, token + 1, Interest::Readable))
        });
        if let Err(error) = watched {
            self.unwatch(&outgoing);
            let error = self.system("cannot watch a connection", error);
            return self.dial_later(outgoing.id, error, turn);
        }
        if let Some(wanted) = self.wanted.get_mut(&outgoing.id) {
            wanted.token = Some(token);
        }
        self.dialled.insert(token, outgoing);
    }

    pub(super) fn unwatch(&self, outgoing: &Outgoing<M>) {
        // A copy in a forked child would be reported for ever.
        let _ = self.epoll.delete(&outgoing.socket);
        if let Some(process) = &outgoing.process {
            let _ = self.epoll.delete(process);
        }
    }

    /// Looks at a connection that was dialled: at its socket, or because its peer died.
    pub(super) fn look_at_dialled<O: Offer<Made = M>>(
        &mut self,
        token: u64,
        died: bool,
        turn: &mut Turn<'_, O>,
    ) {
        let Some(outgoing) = self.dialled.get(&token) else { return };
        let id = outgoing.id;
        let first = greeting::take(outgoing.socket.as_fd());
        if matches!(first, First::Nothing) && !died {
            return;
        }
        let Some(outgoing) = self.dialled.remove(&token) else { return };
        self.unwatch(&outgoing);
        match first {
            First::Hello(hello, descriptors) => self.answered(*outgoing, hello, descriptors, turn),
            First::Nothing => {
                if let Some(wanted) = self.wanted.get(&id) {
                    self.is_dead(wanted.entry);
                }
            }
            First::HungUp | First::Look => self.dial_again(id, turn.now),
            First::Short(error) => {
                let error = self.system("cannot take a peer's descriptors", error);
                self.dial_later(id, error, turn);
            }
            First::Refused(problem) => {
                self.wanted.remove(&id);
                turn.found.push(Event::Refused { peer: outgoing.peer, problem });
            }
            First::Full(problem) => {
                self.wanted.remove(&id);
                turn.found.push(Event::Full { peer: outgoing.peer, problem });
            }
            First::Denied(problem) => {
                self.wanted.remove(&id);
                turn.found.push(Event::Denied { peer: outgoing.peer, problem });
            }
            First::Wrong(fault) => {
                self.wanted.remove(&id);
                greeting::refuse(outgoing.socket.as_fd(), fault.problem());
                turn.found.push(Event::of(fault, outgoing.peer));
            }
        }
    }

    /// The peer answered: both have met, if it is who was dialled.
    fn answered<O: Offer<Made = M>>(
        &mut self,
        outgoing: Outgoing<M>,
        hello: Hello,
        descriptors: Vec<OwnedFd>,
        turn: &mut Turn<'_, O>,
    ) {
        let wanted = self.wanted.remove(&outgoing.id);
        let way = wanted.map(|Wanted { entry, backoff, .. }| Way { entry, backoff });
        let Outgoing { socket, peer, id, process, made, is_other, held } = outgoing;
        let peer = peer.named(&hello.program);
        if hello.id != id {
            let problem = format!("it is dialled as {id}, and says that it is {}", hello.id);
            greeting::refuse(socket.as_fd(), &problem);
            turn.found.push(Event::Misbehaved { peer, problem });
            return;
        }
        if let Err(problem) = self.hello.fits(&hello) {
            greeting::refuse(socket.as_fd(), &problem);
            turn.found.push(Event::Refused { peer, problem });
            return;
        }
        let met = Met { socket, process, peer, hello, descriptors, made, way, is_other };
        self.have_met(met, held, turn);
    }

    /// Nothing came of the link with a peer that was met and lives: it is dialled again, a little later.
    pub(crate) fn go_again(&mut self, way: Way, now: Instant) {
        let Way { entry, backoff } = way;
        self.met.remove(&entry.id);
        if self.listener.is_none() {
            // This side has left.
            return;
        }
        self.wanted.entry(entry.id).or_insert(Wanted { entry, token: None, next: now, backoff });
        self.dial_again(entry.id, now);
        // If it cannot be set, what next is done here sets it.
        let _ = self.set_timer(now);
    }

    /// The peer was met on a connection that it made: the one made here is not needed.
    pub(super) fn give_up_dialling(&mut self, id: Id) {
        let wanted = self.wanted.remove(&id);
        let token = wanted.and_then(|wanted| wanted.token);
        if let Some(outgoing) = token.and_then(|token| self.dialled.remove(&token)) {
            self.unwatch(&outgoing);
        }
    }

    /// Nobody will answer there.
    fn is_dead(&mut self, entry: Entry) {
        self.wanted.remove(&entry.id);
        self.folder.remove(entry);
    }

    fn dial_again(&mut self, id: Id, now: Instant) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            wanted.token = None;
            wanted.next = now + wanted.backoff;
            wanted.backoff = (wanted.backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// This side is short of something; that may change.
    fn dial_later<O: Offer<Made = M>>(&mut self, id: Id, error: Error, turn: &mut Turn<'_, O>) {
        self.dial_again(id, turn.now);
        self.fall_short(error, turn);
    }
}
