//! Connections that others made: taking them, and answering their hellos.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use switchboard_kernel::ErrorKind as K;
use switchboard_kernel::io::Interest;
use switchboard_kernel::unix_socket;

use super::admitting::Admitted;
use super::{ACCEPT_AGAIN, HELLO_TIMEOUT, MOST_ACCEPTS, MOST_SILENT};
use super::{Event, Held, Known, Meeting, Met, Offer, Turn};
use crate::error::{Error, ErrorKind};
use crate::transport::shm::datagram::MOST_DESCRIPTORS;
use crate::transport::shm::greeting::{self, First};
use crate::transport::shm::hello::{Hello, Id};
use crate::transport::shm::peer::{Peer, Process, process_of};

/// What is told here of a connection that brought nothing and was closed before its time.
const OTHERS_WAIT: &str = "it said no hello, and others wait";

/// A connection that was accepted, and has brought nothing yet.
#[derive(Debug)]
pub(super) struct Silent {
    pub(super) socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) since: Instant,
}

impl<M> Meeting<M> {
    /// Takes connections that wait.
    pub(super) fn accept<O: Offer<Made = M>>(
        &mut self,
        turn: &mut Turn<'_, O>,
    ) -> Result<(), Error> {
        for _ in 0..MOST_ACCEPTS {
            let Some(listener) = &self.listener else { return Ok(()) };
            if !turn.step() {
                return Ok(());
            }
            match unix_socket::accept(listener, true) {
                Ok(socket) => self.accepted(socket, turn),
                Err(error) => match error.kind() {
                    K::WouldBlock => return Ok(()),
                    // It was gone before it was accepted.
                    K::ConnectionReset => {}
                    K::TooManyFiles | K::TooManyFilesInSystem | K::OutOfMemory => {
                        let error = self.system("cannot accept a connection", error);
                        self.make_way(error, turn);
                        if self.accept_again.is_some() {
                            return Ok(());
                        }
                    }
                    _ => return Err(self.system("cannot accept a connection", error)),
                },
            }
        }
        Ok(())
    }

    fn accepted<O: Offer<Made = M>>(&mut self, socket: OwnedFd, turn: &mut Turn<'_, O>) {
        let Ok(peer) = Peer::of(socket.as_fd()) else { return };
        // Who may look says so, and is not refused before.
        if !peer.may_look() && self.admit(&socket, (&peer, true), turn).is_none() {
            return;
        }
        // Who dials says hello at once: mostly it is there.
        let silent = Silent { socket, peer, since: turn.now };
        let Some(silent) = self.hear(silent, turn) else { return };
        if self.silent.len() >= MOST_SILENT
            && let Some(Silent { peer, .. }) = self.hang_up_on_oldest()
        {
            turn.found.push(Event::Misbehaved { peer, problem: OTHERS_WAIT.into() });
        }
        let token = self.next_token();
        match self.epoll.add(&silent.socket, token, Interest::Readable) {
            Ok(()) => {
                self.silent.insert(token, silent);
            }
            // It dials again.
            Err(error) => {
                let error = self.system("cannot watch a connection", error);
                self.make_way(error, turn);
            }
        }
    }

    /// Looks at a connection that was accepted.
    pub(super) fn look_at_silent<O: Offer<Made = M>>(
        &mut self,
        token: u64,
        turn: &mut Turn<'_, O>,
    ) {
        let Some(silent) = self.silent.remove(&token) else { return };
        // Whatever comes of it; if nothing, it is watched again.
        let _ = self.epoll.delete(&silent.socket);
        if let Some(silent) = self.hear(silent, turn)
            && self.epoll.add(&silent.socket, token, Interest::Readable).is_ok()
        {
            self.silent.insert(token, silent);
        }
    }

    /// Takes what a connection brought; gives it back if that was nothing.
    fn hear<O: Offer<Made = M>>(
        &mut self,
        silent: Silent,
        turn: &mut Turn<'_, O>,
    ) -> Option<Silent> {
        match greeting::take(silent.socket.as_fd()) {
            First::Nothing => return Some(silent),
            First::HungUp => {}
            // Who may not has been refused by now.
            First::Look => turn.found.push(Event::Asked(silent.socket)),
            First::Hello(hello, descriptors) => self.answer(silent, hello, descriptors, turn),
            First::Refused(problem) => {
                turn.found.push(Event::Refused { peer: silent.peer, problem });
            }
            First::Full(problem) => turn.found.push(Event::Full { peer: silent.peer, problem }),
            // The word of somebody who may not come himself is none.
            First::Denied(problem) if self.may_join(&silent.socket, &silent.peer) => {
                // Who was here first goes on, whoever comes and wants nothing of it.
                let problem = format!("it does not let this end in: {problem}");
                turn.found.push(Event::Refused { peer: silent.peer, problem });
            }
            First::Denied(_) => {}
            First::Wrong(fault) => {
                greeting::refuse(silent.socket.as_fd(), fault.problem());
                turn.found.push(Event::of(fault, silent.peer));
            }
            // It dials again.
            First::Short(error) => {
                let error = self.system("cannot take a peer's descriptors", error);
                self.make_way(error, turn);
            }
        }
        None
    }

    /// Answers a hello with this side's own, if the two can meet and have not.
    fn answer<O: Offer<Made = M>>(
        &mut self,
        silent: Silent,
        hello: Hello,
        descriptors: Vec<OwnedFd>,
        turn: &mut Turn<'_, O>,
    ) {
        let Silent { socket, peer, .. } = silent;
        let peer = peer.named(&hello.program);
        let Some(admitted) = self.admit(&socket, (&peer, true), turn) else { return };
        if let Err(problem) = self.hello.fits(&hello) {
            greeting::refuse(socket.as_fd(), &problem);
            turn.found.push(Event::Refused { peer, problem });
            return;
        }
        if let Err(problem) = self.check_identity(&hello, &peer) {
            greeting::refuse(socket.as_fd(), &problem);
            turn.found.push(Event::Misbehaved { peer, problem });
            return;
        }
        // The other connection stays. Who dialled dials again, should that one be no more.
        if self.met.contains_key(&hello.id)
            || (self.is_dialled(hello.id) && self.hello.id < hello.id)
        {
            return;
        }
        let is_full = self.is_full(&peer, 0).or_else(|| self.is_full_of_user(&peer, admitted));
        if let Some(problem) = is_full {
            greeting::say_full(socket.as_fd(), &problem);
            turn.found.push(Event::Refused { peer, problem });
            return;
        }
        // It dials again.
        let Ok(held) = self.hold(hello.id, &socket) else { return };
        let process = match process_of(socket.as_fd(), &peer) {
            Ok(Process::Alive(process)) => Some(process),
            Ok(Process::Unknown) => None,
            Ok(Process::Dead) => return,
            Err(error) => {
                let error = self.system("cannot watch a peer", error);
                return self.make_way(error, turn);
            }
        };
        let made = match turn.offer.make() {
            Ok(made) => made,
            Err(error) if error.kind() == ErrorKind::LimitReached => {
                return self.make_way(error, turn);
            }
            Err(error) => {
                greeting::refuse(socket.as_fd(), "the other side cannot make a link");
                turn.found.push(Event::Failed(error));
                return;
            }
        };
        let is_other = admitted == Admitted::OtherUser;
        let given = match is_other {
            true => turn.offer.for_others(&made),
            false => turn.offer.descriptors(&made),
        };
        if let Err(error) = greeting::say(socket.as_fd(), &self.greeting, &given) {
            // The peer is gone, or its connection is not needed any more; else this side is short.
            if !matches!(error.kind(), K::BrokenPipe | K::ConnectionReset) {
                let error = self.system("cannot answer a peer", error);
                self.make_way(error, turn);
            }
            return;
        }
        // From here on both have met.
        self.give_up_dialling(hello.id);
        let way = None;
        let met = Met { socket, process, peer, hello, descriptors, made, way, is_other };
        self.have_met(met, held, turn);
    }

    /// Whether a peer can be who it says it is.
    fn check_identity(&self, hello: &Hello, peer: &Peer) -> Result<(), String> {
        if hello.id == self.hello.id {
            return Err("it has the ID of who it meets".into());
        }
        let listens = self.dialled.values().find(|outgoing| outgoing.id == hello.id);
        match listens.map(|outgoing| (outgoing.peer.pid, peer.pid)) {
            Some((Some(listens), Some(dials))) if listens != dials => {
                Err(format!("it has the ID of process {listens}, and is process {dials}"))
            }
            _ => Ok(()),
        }
    }

    /// Closes the connection that has said nothing for longest, without a word: an honest peer may be
    /// about to say its hello, and dials again.
    fn hang_up_on_oldest(&mut self) -> Option<Silent> {
        let (_, silent) = self.silent.pop_first()?;
        let _ = self.epoll.delete(&silent.socket);
        Some(silent)
    }

    /// Closes connections that should have said their hello by now.
    pub(super) fn turn_silent_away<O: Offer<Made = M>>(&mut self, turn: &mut Turn<'_, O>) {
        let why = format!("it said no hello within {} seconds", HELLO_TIMEOUT.as_secs());
        while let Some((_, oldest)) = self.silent.first_key_value()
            && oldest.since + HELLO_TIMEOUT <= turn.now
            && turn.step()
        {
            let Some(silent) = self.hang_up_on_oldest() else { return };
            greeting::refuse(silent.socket.as_fd(), &why);
            turn.found.push(Event::Misbehaved { peer: silent.peer, problem: why.clone() });
        }
    }

    /// This side is short of something that a connection needs. Who has said nothing makes way; if all
    /// has been said, those who wait do so for a while. A peer whose connection closed dials again.
    fn make_way<O: Offer<Made = M>>(&mut self, error: Error, turn: &mut Turn<'_, O>) {
        // Its socket, its process, and what comes with its hello.
        let made_way = (0..2 + MOST_DESCRIPTORS).map_while(|_| self.hang_up_on_oldest()).count();
        if made_way == 0
            && let Some(listener) = &self.listener
        {
            let _ = self.epoll.delete(listener);
            self.accept_again = Some(turn.now + ACCEPT_AGAIN);
        }
        self.fall_short(error, turn);
    }

    pub(super) fn resume_accepting(&mut self, now: Instant) {
        if self.accept_again.is_some_and(|at| at <= now) {
            let again = self.watch_listener().is_err();
            self.accept_again = again.then(|| now + ACCEPT_AGAIN);
        }
    }

    pub(super) fn have_met<O: Offer<Made = M>>(
        &mut self,
        met: Met<M>,
        held: Option<Box<Held>>,
        turn: &mut Turn<'_, O>,
    ) {
        self.short = false;
        let (pid, uid) = (met.peer.pid, met.peer.uid);
        self.met.insert(met.hello.id, Known { pid, uid, _held: held });
        turn.found.push(Event::Met(Box::new(met)));
    }

    fn is_dialled(&self, id: Id) -> bool {
        self.wanted.get(&id).is_some_and(|wanted| wanted.token.is_some())
    }
}
