//! How the endpoints of a channel find each other, without a daemon.
//!
//! Source: `docs/design/shm.md`, "Meeting". [`Meeting::open`] listens, then scans the folder;
//! [`Meeting::poll`] dials each complement that was there, moves everything on, and never waits. What comes of a connection is an [`Event`]; a [`Met`] is a connection on which both sides
//! said hello, with everything checked, that now is the caller's: its socket is non-blocking and in no
//! `epoll` any more, and what comes next on it is the caller's to read.
//!
//! *The caller* makes what a connection needs before its hello (a reader's page, a writer's
//! doorbell): [`Offer`]. It may watch descriptors of its own with the meeting's [`epoll`](Meeting::epoll)
//! under tokens from [`FIRST_TOKEN`]; they come back as [`Event::Ready`]. When a link has ended it says
//! so: [`forget`](Meeting::forget), or [`go_again`](Meeting::go_again) if nothing came of it.
//!
//! ```text
//! let folder = Folder::open(&address, scope, &Surroundings::here(), &name)?;
//! let hello = Hello { id: Id::random()?, pattern, role, … };
//! let mut meeting = Meeting::open(&address, folder, hello, Instant::now())?;
//! loop {
//!     meeting.wait(deadline)?;                            // or any epoll around meeting.fd()
//!     meeting.poll(Instant::now(), &mut offer, &mut events)?;
//!     for event in events.drain(..) { … }
//! }
//! ```
//!
//! *One link per pair.* Who dialled says hello at once, who accepted answers with its own. The answer
//! decides: both sides have met when it was given, and not before. Where both dialled each other, the
//! side with the lower ID closes what it accepted as long as its own dial is unanswered, and the other
//! answers what it accepted and then closes its own. So one is answered and never both: the lower
//! answers only while it has no dial of its own under way, and then there is none for the higher to
//! answer. Who dialled and sees the connection close dials again, for as long as the other lives, until
//! it has met it: so there is one.
//!
//! *Bounds*: 16 datagrams, connections and dials per call; 256 connections that were accepted and said
//! nothing (the oldest goes first), 10 s each; 3072 links, of which one process has 1024 at most, and fewer where
//! those would take more than half of the descriptors that this process may have. An end of a service lets a new peer in only while
//! there are descriptors for both of its links ([`Pair`]). Who does not answer a dial costs one
//! connection for as long as it lives: it may be stopped, and goes on one day.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::timerfd::TimerFd;
use switchboard_kernel::{self as kernel, fork};

use super::datagram::{Datagram, Fault, MOST_LINKS};
use super::folder::{Dialled, Folder};
use super::hello::{Hello, Id};
use super::name::Entry;
use super::peer::{Peer, Process, process_of};
use crate::address::Address;
use crate::error::{Error, ErrorKind};

mod accepting;
mod admitting;
mod dialling;
mod pairing;

use accepting::Silent;
use admitting::Access;
pub(super) use admitting::{OF_ONE_USER, check_of_one_user};
pub(crate) use dialling::Way;
use dialling::{Outgoing, Wanted};
use pairing::Held;
pub(super) use pairing::Pair;

/// The caller's tokens begin here.
pub(crate) const FIRST_TOKEN: u64 = 1 << 63;

/// A connection that was accepted says its hello within this time.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Datagrams, connections and dials of one call at most.
pub(crate) const MOST_STEPS: usize = 16;
/// Connections accepted in one call, so that a flood of them leaves room for the others' hellos.
pub(crate) const MOST_ACCEPTS: usize = MOST_STEPS / 2;
/// Connections that were accepted and have not said hello.
pub(crate) const MOST_SILENT: usize = 256;
/// Links with one process at most, of those whose process is known.
pub(crate) const MOST_LINKS_OF_A_PROCESS: usize = 1024;
/// So many there may be, however few descriptors this process may have.
const LEAST_LINKS_OF_A_PROCESS: usize = 16;
/// Socket, process, and a sender's ring.
const DESCRIPTORS_OF_A_LINK: u64 = 3;
/// After which time without a free descriptor connections that wait are looked at again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Descriptors that are looked at in one turn; others are ready in the next one still. Every end has room for so
/// many.
const EVENTS_PER_TURN: usize = 16;

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
/// Connections have an even token, the process of a dialled one the odd token after it.
const FIRST_CONNECTION: u64 = 2;

/// What a caller makes for each connection.
pub(crate) trait Offer {
    /// What belongs to one connection: it comes back with [`Met`], and is dropped if nothing comes of
    /// the connection.
    type Made;

    /// Makes it, before hello is said on a connection.
    ///
    /// # Errors
    /// `LimitReached` is tried again later; anything else refuses the peer. Both are told to the
    /// caller as [`Event::Failed`].
    fn make(&mut self) -> Result<Self::Made, Error>;

    /// The descriptors that go with the hello: a writer's doorbell, then the ring of a topic; a
    /// reader's page.
    fn descriptors<'a>(&'a self, made: &'a Self::Made) -> Vec<BorrowedFd<'a>>;

    /// Those that go to a process of another user: no doorbell, which both would write.
    fn for_others<'a>(&'a self, made: &'a Self::Made) -> Vec<BorrowedFd<'a>> {
        self.descriptors(made)
    }
}

/// A peer that was met.
#[derive(Debug)]
pub(crate) struct Met<M> {
    pub(crate) socket: OwnedFd,
    /// Readable when the peer is dead; none if it is in another PID namespace.
    pub(crate) process: Option<OwnedFd>,
    pub(crate) peer: Peer,
    /// What it says about itself, its ID too.
    pub(crate) hello: Hello,
    /// Those of its hello, as many as [`Hello::descriptors`] says. What they stand for is not checked.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// What was made for this connection.
    pub(crate) made: M,
    /// How to dial it again, if it was dialled.
    pub(crate) way: Option<Way>,
    /// It is of another user.
    pub(crate) is_other: bool,
}

/// Who was met, by the kernel's word.
#[derive(Debug)]
struct Known {
    pid: Option<u32>,
    uid: u32,
    /// In a box: a map has room for eleven where there is one.
    _held: Option<Box<Held>>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<M> {
    Met(Box<Met<M>>),
    /// A peer that cannot be met: either side refused, and both know why.
    Refused {
        peer: Peer,
        problem: String,
    },
    /// This end's rules do not let a peer in. `came`: it is that one who came.
    KeptOut {
        peer: Peer,
        problem: String,
        came: bool,
    },
    /// A peer has as many links as may be.
    Full {
        peer: Peer,
        problem: String,
    },
    /// The rules of a peer that was here first do not allow what this end does.
    Denied {
        peer: Peer,
        problem: String,
    },
    /// A peer broke the protocol; its connection is closed.
    Misbehaved {
        peer: Peer,
        problem: String,
    },
    /// This side cannot take a peer now.
    Failed(Error),
    /// Somebody who may wants to see the counters: where to send them.
    Asked(OwnedFd),
    /// A descriptor of the caller's.
    Ready {
        token: u64,
    },
}

/// The meeting of one endpoint.
#[derive(Debug)]
pub(crate) struct Meeting<M> {
    address: Address,
    hello: Hello,
    /// The same, encoded.
    greeting: Vec<u8>,
    folder: Folder,
    entry: Entry,
    /// None when this endpoint has left.
    listener: Option<OwnedFd>,
    epoll: Epoll,
    timer: TimerFd,
    events: Events,
    /// Events were fetched by [`wait`](Self::wait) and not looked at.
    fetched: bool,
    /// Connections that were accepted and brought nothing yet, by token: the oldest first.
    silent: BTreeMap<u64, Silent>,
    /// Connections that were dialled and are not answered, by token.
    dialled: BTreeMap<u64, Box<Outgoing<M>>>,
    next_token: u64,
    /// Complements that were found and are not met.
    wanted: BTreeMap<Id, Wanted>,
    /// Those that were met, and their processes.
    met: BTreeMap<Id, Known>,
    access: Box<Access>,
    /// Of an end of a service.
    pair: Option<Arc<Pair>>,
    /// There was no descriptor for a connection that waits: when to look again.
    accept_again: Option<Instant>,
    /// A want of descriptors or memory was told, and it goes on.
    short: bool,
    /// What `fork` this process is of.
    pub(super) generation: u32,
}

/// One call of [`Meeting::poll`].
struct Turn<'a, O: Offer> {
    now: Instant,
    steps_left: usize,
    offer: &'a mut O,
    found: &'a mut Vec<Event<O::Made>>,
}

impl<O: Offer> Turn<'_, O> {
    /// Whether something more may be done in this call.
    fn step(&mut self) -> bool {
        let left = self.steps_left.checked_sub(1);
        self.steps_left = left.unwrap_or_default();
        left.is_some()
    }
}

impl<M> Event<M> {
    fn of(fault: Fault, peer: Peer) -> Self {
        match fault {
            Fault::Misbehaved(problem) => Self::Misbehaved { peer, problem },
            Fault::Mismatch(problem) => Self::Refused { peer, problem },
        }
    }
}

impl<M> Meeting<M> {
    /// Listens in the folder, and notes the complements that are there.
    ///
    /// # Errors
    /// `Mismatch`: a live endpoint of another pattern has this name; `LimitReached`; what the system
    /// says.
    pub(crate) fn open(
        address: &Address,
        mut folder: Folder,
        hello: Hello,
        now: Instant,
    ) -> Result<Self, Error> {
        let failed = |error| Error::system(address, "cannot open", error);
        let generation = fork::watch().map_err(failed)?;
        let epoll = Epoll::new().map_err(failed)?;
        let timer = TimerFd::new().map_err(failed)?;
        epoll.add(&timer, TIMER, Interest::Readable).map_err(failed)?;
        let entry = Entry { pattern: hello.pattern, role: hello.role, id: hello.id };
        let access = Box::new(Access::open(address, &hello, folder.is_shared())?);
        let listener = folder.listen(entry)?;
        let mut meeting = Self {
            address: address.clone(),
            greeting: Datagram::Hello(hello.clone()).encode(),
            hello,
            folder,
            entry,
            listener: Some(listener),
            epoll,
            timer,
            events: Events::with_capacity(EVENTS_PER_TURN),
            fetched: false,
            silent: BTreeMap::new(),
            dialled: BTreeMap::new(),
            next_token: FIRST_CONNECTION,
            wanted: BTreeMap::new(),
            met: BTreeMap::new(),
            access,
            pair: None,
            accept_again: None,
            short: false,
            generation,
        };
        // From here on the name goes when this is dropped.
        meeting.watch_listener()?;
        meeting.look_around(now)?;
        meeting.set_timer(now)?;
        Ok(meeting)
    }

    /// Only peers are met for whom the other end that has this pair can have a link, too.
    pub(super) fn pair_up(&mut self, pair: &Arc<Pair>) {
        self.pair = Some(Arc::clone(pair));
    }

    /// A place for a peer that is met on a socket that was just made.
    ///
    /// # Errors
    /// There is none now.
    fn hold(&self, id: Id, socket: &OwnedFd) -> Result<Option<Box<Held>>, ()> {
        let Some(pair) = &self.pair else { return Ok(None) };
        let held = pair.hold((id, self.hello.pattern), socket.as_fd());
        held.map(|held| Some(Box::new(held))).ok_or(())
    }

    fn watch_listener(&self) -> Result<(), Error> {
        let Some(listener) = &self.listener else { return Ok(()) };
        self.epoll
            .add(listener, LISTENER, Interest::Readable)
            .map_err(|error| self.system("cannot watch the socket", error))
    }

    /// Notes the complements that are there.
    pub(super) fn look_around(&mut self, now: Instant) -> Result<(), Error> {
        for entry in self.folder.scan()? {
            if !entry.pattern.goes_with(self.entry.pattern) {
                self.check_other_pattern(entry)?;
            } else if entry.pattern == self.entry.pattern
                && entry.role == self.entry.role.complement()
                && !self.met.contains_key(&entry.id)
            {
                self.wanted.entry(entry.id).or_insert_with(|| Wanted::new(entry, now));
            }
        }
        Ok(())
    }

    /// A name is for one pattern: whoever comes later is told who came first.
    fn check_other_pattern(&self, entry: Entry) -> Result<(), Error> {
        let who = match self.folder.dial(entry) {
            Dialled::Gone => return Ok(()),
            Dialled::Connected(socket) => {
                let Ok(peer) = Peer::of(socket.as_fd()) else { return Ok(()) };
                // A stranger's name is nobody's.
                if self.folder.is_shared() && !self.may_join(&socket, &peer) {
                    return Ok(());
                }
                if matches!(process_of(socket.as_fd(), &peer), Ok(Process::Dead)) {
                    self.folder.remove(entry);
                    return Ok(());
                }
                peer.to_string()
            }
            // It takes no connections now, and is there.
            Dialled::NotNow(error) if error.kind() == kernel::ErrorKind::WouldBlock => {
                if self.folder.is_shared() {
                    return Ok(());
                }
                "another process".into()
            }
            Dialled::NotNow(error) | Dialled::Failed(error) => {
                return Err(self.system("cannot see who has this name", error));
            }
        };
        let [other, this] = [entry, self.entry].map(|entry| with_article(entry.pattern.name()));
        let problem = format!("{who} has this name as {other}, and this would be {this}");
        Err(Error::new(ErrorKind::Mismatch, &self.address, problem)
            .hint("choose another name, or open it as the other does"))
    }

    #[cfg(test)]
    /// What this side says about itself.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Readable when [`poll`](Self::poll) has something to do.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// For descriptors of the caller, under tokens from [`FIRST_TOKEN`].
    pub(crate) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// How many complements were found that are not met yet.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.len()
    }

    #[cfg(test)]
    /// Who was dialled and has not answered: for the error of an endpoint that waited in vain.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = &Peer> {
        self.dialled.values().map(|outgoing| &outgoing.peer)
    }

    /// The link with this peer has ended; it may be met again.
    pub(crate) fn forget(&mut self, id: Id) {
        self.met.remove(&id);
    }

    /// Sleeps until [`poll`](Self::poll) has something to do.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.epoll
            .wait(&mut self.events, deadline)
            .map_err(|error| Error::system(&self.address, "cannot wait", error))?;
        self.fetched = true;
        Ok(())
    }

    /// Moves on, without waiting: accepts, dials, takes hellos. What happened is added to `found`.
    ///
    /// # Errors
    /// `NotSupported` in a forked child; what the system says, where this endpoint cannot go on.
    pub(crate) fn poll<O: Offer<Made = M>>(
        &mut self,
        now: Instant,
        offer: &mut O,
        found: &mut Vec<Event<M>>,
    ) -> Result<(), Error> {
        if !self.is_ours() {
            return Err(Error::of_parent(&self.address));
        }
        if !std::mem::take(&mut self.fetched) {
            self.wait(Deadline::after(Duration::ZERO))?;
            self.fetched = false;
        }
        let mut turn = Turn { now, steps_left: MOST_STEPS, offer, found };
        let tokens: Vec<u64> = self.events.iter().map(|(token, _)| token).collect();
        for token in tokens {
            match token {
                LISTENER => self.accept(&mut turn)?,
                TIMER => {
                    let _ = self.timer.clear();
                }
                FIRST_TOKEN.. => turn.found.push(Event::Ready { token }),
                _ if !turn.step() => {}
                token if self.silent.contains_key(&token) => {
                    self.look_at_silent(token, &mut turn);
                }
                token => self.look_at_dialled(token & !1, token & 1 == 1, &mut turn),
            }
        }
        self.turn_silent_away(&mut turn);
        self.dial_wanted(&mut turn);
        self.resume_accepting(now);
        self.set_timer(now)
    }

    /// Removes the name: nobody new finds this endpoint. Links go on.
    pub(crate) fn leave(&mut self) {
        if !self.is_ours() {
            return;
        }
        // The name first, so that it never names nobody.
        let Some(listener) = self.listener.take() else { return };
        self.folder.remove(self.entry);
        let _ = self.epoll.delete(&listener);
        drop(listener);
        self.folder.remove_if_empty();
        self.wanted.clear();
        for silent in std::mem::take(&mut self.silent).into_values() {
            let _ = self.epoll.delete(&silent.socket);
        }
        for outgoing in std::mem::take(&mut self.dialled).into_values() {
            self.unwatch(&outgoing);
        }
    }

    /// Whether this is the process that opened it, and no forked child.
    fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Arms the timer for the next thing that time brings.
    fn set_timer(&self, now: Instant) -> Result<(), Error> {
        let silent = self.silent.values().next().map(|silent| silent.since + HELLO_TIMEOUT);
        let dials = self.wanted.values().filter(|wanted| wanted.token.is_none());
        let dial = dials.map(|wanted| wanted.next).min();
        let Some(at) = silent.into_iter().chain(dial).chain(self.accept_again).min() else {
            return Ok(());
        };
        let after = at.saturating_duration_since(now).max(Duration::from_micros(100));
        self.timer.arm(after, None).map_err(|error| self.system("cannot set a timer", error))
    }

    /// What is said where a link more with this process, and with so many that are under way, would be one too many.
    fn is_full(&self, peer: &Peer, under_way: usize) -> Option<String> {
        if self.met.len() >= MOST_LINKS {
            return Some(format!("this end has {MOST_LINKS} links, and takes no more"));
        }
        let met = self.met.values().filter(|met| met.pid.is_some() && met.pid == peer.pid).count();
        let count = met + under_way;
        // The limit costs a system call, and most need not know it.
        if count < LEAST_LINKS_OF_A_PROCESS || count < most_links_of_a_process() {
            return None;
        }
        Some(format!(
            "this end has {met} links with {peer}, and takes no more of one process: at most \
             {MOST_LINKS_OF_A_PROCESS}, and half of the descriptors that it may have (RLIMIT_NOFILE)"
        ))
    }

    /// This side is short of something that may be there later. Told once until it is there.
    fn fall_short<O: Offer<Made = M>>(&mut self, error: Error, turn: &mut Turn<'_, O>) {
        if !std::mem::replace(&mut self.short, true) {
            turn.found.push(Event::Failed(error));
        }
    }

    fn next_token(&mut self) -> u64 {
        self.next_token += 2;
        self.next_token - 2
    }

    fn system(&self, doing: &str, error: kernel::Error) -> Error {
        Error::system(&self.address, doing, error)
    }
}

/// So many as take no more than half of the descriptors of this process.
pub(crate) fn most_links_of_a_process() -> usize {
    let (files, _) = kernel::process::file_limit();
    let half = usize::try_from(files / 2 / DESCRIPTORS_OF_A_LINK).unwrap_or(usize::MAX);
    half.clamp(LEAST_LINKS_OF_A_PROCESS, MOST_LINKS_OF_A_PROCESS)
}

impl<M> Drop for Meeting<M> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A noun, as in a sentence.
fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
