//! Where the connections of an endpoint come from: it listens, dials, or was given one.
//!
//! The hub owns the endpoint's `epoll` descriptor, which is its wake-up descriptor too, accepts and
//! dials without blocking, and runs no thread: it moves when its endpoint is called.

mod accepting;
mod dialling;
mod parting;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use switchboard_kernel as kernel;
use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::timerfd::TimerFd;

use super::Setup;
use super::connection::{Channel, Connection, Wire};
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;
use crate::link::{Hello, Pattern, Role};

/// What a transport does so that two processes meet. One trait object per endpoint.
pub(crate) trait Meet: std::fmt::Debug + Send + Sync {
    /// Binds the name and listens. The name is visible only with its final owner and mode.
    fn listen(&self) -> Result<OwnedFd, Error>;
    /// Takes a connection that waits, without blocking.
    fn accept(&self, listener: BorrowedFd<'_>) -> kernel::Result<Met>;
    /// Starts a connection, without blocking.
    fn dial(&self) -> Result<Dial, Error>;
    /// Goes on with a connection that was started and became writable.
    fn dialled(&self, fd: OwnedFd) -> Result<Dial, Error>;
    /// The bound address as another process would write it.
    fn local_address(&self, listener: BorrowedFd<'_>) -> Option<String>;
    /// Sets up what is spoken over a new connection.
    fn adjust(&self, _wire: &mut Wire) {}
    /// Removes the name that this endpoint made.
    fn unlisten(&self) {}
}

/// A connection that was made.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) fd: OwnedFd,
    pub(crate) channel: Channel,
    pub(crate) peer: String,
}

/// How far a connection came.
#[derive(Debug)]
pub(crate) enum Dial {
    Connected(Met),
    /// Under way: becomes writable when it is decided.
    Connecting(OwnedFd),
    /// Nobody is there yet: why.
    NotYet,
}

#[derive(Debug)]
enum Place {
    Listening(OwnedFd),
    Dialling {
        attempt: Option<OwnedFd>,
        next: Option<Instant>,
        /// Since when nobody is there.
        since: Instant,
    },
    /// The only connection there will ever be.
    Given,
}

/// The connections of an endpoint.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) setup: Setup,
    pub(crate) hello: Hello,
    framing: Framing,
    meet: Option<Box<dyn Meet>>,
    place: Place,
    pub(crate) epoll: Epoll,
    timer: TimerFd,
    /// When the timer runs out, from when it was set until that was seen.
    timer_at: Option<Instant>,
    events: Events,
    /// Events were fetched by [`wait`](Self::wait) and not looked at.
    fetched: bool,
    pub(crate) connections: Vec<Connection>,
    next_id: u64,
    /// Connections ever made.
    pub(crate) joined: u64,
    /// Dial again when the connection is lost.
    pub(crate) redial: bool,
    /// There was no descriptor for a connection that waits: when to look again.
    accept_again: Option<Instant>,
}

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const CANCEL: u64 = 2;
const ATTEMPT: u64 = 3;
const FIRST_ID: u64 = 16;

/// A peer that connected and did not say its hello within this time is turned away.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one endpoint at most. Whoever comes then takes the place of one that has said no hello, if there is
/// such a one, and is closed at once otherwise.
pub(crate) const MOST_CONNECTIONS: usize = 4096;
/// After which time without a free descriptor connections that wait are looked at again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long opening waits for a connection that is under way to be decided, where a first word may be the
/// last for long.
const DECIDED_WITHIN: Duration = Duration::from_millis(500);
/// Accepted in one go, so that a flood of connections cannot keep an endpoint from its messages.
pub(crate) const ACCEPTS: usize = 64;

/// What a look at the connections found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Ids of connections that can be read or written.
    pub(crate) ready: Vec<u64>,
    pub(crate) cancelled: bool,
}

impl Hub {
    /// An endpoint that binds or connects as its pattern, role and address say.
    pub(crate) fn meet(
        setup: Setup,
        pattern: Pattern,
        role: Role,
        meet: Box<dyn Meet>,
    ) -> Result<Self, Error> {
        // The side of which there is usually one.
        let one = match pattern {
            Pattern::Topic | Pattern::State => Role::Sender,
            Pattern::Queue | Pattern::Service | Pattern::Answers | Pattern::Event => Role::Receiver,
        };
        let bind = setup.address.query.bind.unwrap_or(role == one);
        let mut hub = Self::new(setup, pattern, role, Some(meet))?;
        if bind {
            let meet = hub.meet.as_ref().map(|meet| meet.listen());
            if let Some(listener) = meet.transpose()? {
                hub.add(&listener, LISTENER, Interest::Readable)?;
                hub.place = Place::Listening(listener);
            }
        } else {
            let now = Instant::now();
            hub.place = Place::Dialling { attempt: None, next: Some(now), since: now };
            hub.dial()?;
            if !hub.setup.options.wait && hub.connections.is_empty() && !hub.is_dialling_on() {
                return Err(hub.nobody());
            }
            if matches!(pattern, Pattern::Topic | Pattern::Event | Pattern::State) {
                hub.decide_dial(DECIDED_WITHIN)?;
            }
        }
        Ok(hub)
    }

    /// An endpoint with the one connection that it was given.
    pub(crate) fn given(setup: Setup, role: Role, met: Met) -> Result<Self, Error> {
        let mut hub = Self::new(setup, Pattern::Queue, role, None)?;
        hub.join(met)?;
        Ok(hub)
    }

    fn new(
        setup: Setup,
        pattern: Pattern,
        role: Role,
        meet: Option<Box<dyn Meet>>,
    ) -> Result<Self, Error> {
        let failed = |error| setup.system("cannot open", error);
        let epoll = Epoll::new().map_err(failed)?;
        let timer = TimerFd::new().map_err(failed)?;
        let hello = Hello {
            pattern,
            role,
            schema: setup.schema.fingerprint,
            schema_name: setup.schema.name.clone(),
            max_message_bytes: setup.largest_message_bytes(),
            window_messages: setup.options.prefetch_messages.max(1),
            window_bytes: setup.options.prefetch_bytes.max(1),
            instance: random(),
            name: kernel::process::command_name(std::process::id()).unwrap_or_default(),
        };
        let hub = Self {
            hello,
            framing: setup.framing(),
            meet,
            place: Place::Given,
            epoll,
            timer,
            timer_at: None,
            events: Events::with_capacity(64),
            fetched: false,
            connections: Vec::new(),
            next_id: FIRST_ID,
            joined: 0,
            redial: setup.options.reconnect,
            accept_again: None,
            setup,
        };
        hub.add(&hub.timer, TIMER, Interest::Readable)?;
        if let Some(cancel) = &hub.setup.options.cancel {
            hub.add(cancel, CANCEL, Interest::Readable)?;
        }
        Ok(hub)
    }

    fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Error> {
        self.epoll.add(fd, token, interest).map_err(|error| {
            if error.errno() == 1 {
                // EPERM: a regular file or a directory, which is always ready.
                return Error::new(
                    ErrorKind::NotSupported,
                    &self.setup.address,
                    "this descriptor is a file, not a pipe or a socket",
                );
            }
            self.setup.system("cannot watch the descriptor", error)
        })
    }

    /// Whether a further connection can still come.
    pub(crate) fn expects_more(&self) -> bool {
        match self.place {
            Place::Listening(_) => true,
            Place::Dialling { .. } => self.joined == 0 || self.redial,
            Place::Given => false,
        }
    }

    /// Whether this endpoint listens.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.place, Place::Listening(_))
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match (&self.place, &self.meet) {
            (Place::Listening(listener), Some(meet)) => meet.local_address(listener.as_fd()),
            _ => None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// The id of the connection that was made last.
    pub(crate) fn newest(&self) -> u64 {
        self.next_id - 1
    }

    /// The connection with this id.
    pub(crate) fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// Watches a connection as it is now: what did not go out whole goes on when there is room, also where
    /// the caller sleeps elsewhere on this end's descriptor.
    pub(crate) fn watch_again(&mut self, id: u64) {
        let writes = self.hello.role == Role::Sender;
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
            // If it cannot be watched, the next wait says so.
            let _ = connection.watch(&self.epoll, writes);
        }
    }

    /// Sleeps until something happens; [`look`](Self::look) says what.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.watch_all()?;
        self.epoll
            .wait(&mut self.events, deadline)
            .map_err(|error| self.setup.system("cannot wait", error))?;
        self.fetched = true;
        Ok(())
    }

    fn watch_all(&mut self) -> Result<(), Error> {
        let writes = self.hello.role == Role::Sender;
        for connection in &mut self.connections {
            connection
                .watch(&self.epoll, writes)
                .map_err(|error| self.setup.system("cannot watch a connection", error))?;
        }
        Ok(())
    }

    /// Accepts, dials, and says which connections have something. Does not wait.
    pub(crate) fn look(&mut self) -> Result<Found, Error> {
        if !std::mem::take(&mut self.fetched) {
            self.wait(Deadline::after(Duration::ZERO))?;
            self.fetched = false;
        }
        let mut found = Found::default();
        let tokens: Vec<u64> = self.events.iter().map(|(token, _)| token).collect();
        for token in tokens {
            match token {
                LISTENER => self.accept()?,
                TIMER => {
                    let _ = self.timer.clear();
                    self.timer_at = None;
                    self.dial()?;
                    self.resume_accepting()?;
                }
                CANCEL => found.cancelled = true,
                ATTEMPT => self.attempted()?,
                id => found.ready.push(id),
            }
        }
        self.set_timer()?;
        Ok(found)
    }

    fn join(&mut self, met: Met) -> Result<(), Error> {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(bytes) = self.setup.options.buffer_bytes
            && met.channel != Channel::Pipe
        {
            // A wish: the kernel gives what net.core.wmem_max and rmem_max allow.
            let _ = kernel::unix_socket::set_send_buffer(&met.fd, bytes as usize);
            let _ = kernel::unix_socket::set_recv_buffer(&met.fd, bytes as usize);
        }
        let framing = self.framing;
        let mut connection =
            Connection::new(id, met.fd, met.channel, met.peer, framing, &self.hello);
        if let Some(meet) = &self.meet {
            meet.adjust(&mut connection.wire);
        }
        connection.flush();
        // The others are looked at before each wait.
        let watched = connection.watch(&self.epoll, self.hello.role == Role::Sender);
        self.connections.push(connection);
        self.joined += 1;
        watched.map_err(|error| self.setup.system("cannot watch a connection", error))
    }

    /// Drops a connection over which no hello came: a probe of whether this name is alive, or a peer that
    /// went before it saw this side.
    pub(crate) fn forget(&mut self, id: u64) {
        self.joined = self.joined.saturating_sub(1);
        self.remove(id);
    }

    /// Drops a connection; a dialling endpoint that reconnects, or met nobody yet, dials again.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Connection> {
        let at = self.connections.iter().position(|connection| connection.id == id)?;
        let mut connection = self.connections.remove(at);
        connection.closed = true;
        let _ = connection.watch(&self.epoll, false);
        self.dial_again();
        Some(connection)
    }

    /// Whether a hello is waited for only so long. Who dials has one connection and waits on: the other
    /// side may be busy, and accept it when it moves next.
    fn expects_hellos(&self) -> bool {
        self.framing == Framing::Link && !matches!(self.place, Place::Dialling { .. })
    }

    /// Connections that should have said their hello by now.
    pub(crate) fn overdue(&self) -> Option<u64> {
        if !self.expects_hellos() {
            return None;
        }
        self.connections
            .iter()
            .find(|c| !c.is_open() && !c.closed && c.since.elapsed() >= HELLO_TIMEOUT)
            .map(|connection| connection.id)
    }

    /// Arms the timer for the next thing that time brings: a dial, a hello that does not come, or
    /// connections for which there was no descriptor. Once for each: set anew at every look, it would never run out
    /// for a caller that looks all the time.
    fn set_timer(&mut self) -> Result<(), Error> {
        let dial = match self.place {
            Place::Dialling { next, .. } => next,
            _ => None,
        };
        let hello = self
            .expects_hellos()
            .then(|| {
                let waiting = self.connections.iter().filter(|c| !c.is_open() && !c.closed);
                waiting.map(|connection| connection.since + HELLO_TIMEOUT).min()
            })
            .flatten();
        let result = match dial.into_iter().chain(hello).chain(self.accept_again).min() {
            None => return Ok(()),
            at if at == self.timer_at => return Ok(()),
            Some(at) => {
                self.timer_at = Some(at);
                let after = at.saturating_duration_since(Instant::now());
                self.timer.arm(after.max(Duration::from_micros(100)), None)
            }
        };
        result.map_err(|error| self.setup.system("cannot set a timer", error))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if !self.setup.is_here() {
            return;
        }
        if let Some(meet) = &self.meet {
            meet.unlisten();
        }
        if self.setup.address.transport().capabilities.crosses_hosts {
            parting::part(&mut self.connections);
        }
    }
}

/// A random number that tells endpoints apart, in a forked child and its parent too; not a secret.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut bytes = [0; 8];
    match kernel::random::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => std::collections::hash_map::RandomState::new().build_hasher().finish(),
    }
}
