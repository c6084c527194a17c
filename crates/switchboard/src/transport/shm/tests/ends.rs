//! Endpoints that do nothing but meet, for the tests.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket;
use switchboard_testkit::Scratch;

use crate::address::Address;
use crate::error::Error;
use crate::transport::shm::base::Surroundings;
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::folder::Folder;
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::meeting::{Event, Meeting, Met, Offer};
use crate::transport::shm::name::ChannelName;

/// An address to name in errors.
pub(super) fn address() -> Address {
    "unix:/channel".parse().expect("an address")
}

/// Surroundings in which everything is in one folder.
pub(super) fn surroundings(base: &Path) -> Surroundings {
    Surroundings {
        runtime: Some(base.to_owned()),
        users: base.join("no-users"),
        temporary: base.join("no-temporary"),
    }
}

pub(super) fn folder(base: &Path, name: &str) -> Folder {
    try_folder(base, name).expect("a folder")
}

pub(super) fn try_folder(base: &Path, name: &str) -> Result<Folder, Error> {
    let name = ChannelName::new(name.as_bytes()).expect("a name");
    Folder::open(&address(), None, &surroundings(base), &name)
}

pub(super) fn hello(pattern: Pattern, role: Role) -> Hello {
    Hello {
        pattern,
        role,
        id: Id::random().expect("random bytes"),
        fingerprint: 7,
        max_message_bytes: 8192,
        window_messages: 64,
        program: "test".into(),
        schema: "Reading".into(),
    }
}

pub(super) fn publisher(scratch: &Scratch) -> End {
    End::open(scratch.path(), Pattern::Topic, Role::Writer)
}

pub(super) fn subscriber() -> Hello {
    hello(Pattern::Topic, Role::Reader)
}

/// Descriptors that stand for memory.
#[derive(Debug)]
pub(super) struct Tokens {
    count: usize,
    pub(super) made: usize,
    /// What the next one fails with.
    pub(super) fails: Option<Error>,
}

impl Tokens {
    pub(super) fn of(hello: &Hello) -> Self {
        Self { count: hello.descriptors(), made: 0, fails: None }
    }
}

impl Offer for Tokens {
    type Made = Vec<EventFd>;

    fn make(&mut self) -> Result<Vec<EventFd>, Error> {
        if let Some(error) = self.fails.take() {
            return Err(error);
        }
        self.made += 1;
        let made = (0..self.count).map(|_| EventFd::new(0)).collect::<Result<_, _>>();
        made.map_err(|error| Error::system(&address(), "cannot make a token", error))
    }

    fn descriptors<'a>(&'a self, made: &'a Vec<EventFd>) -> Vec<BorrowedFd<'a>> {
        made.iter().map(AsFd::as_fd).collect()
    }
}

/// An endpoint and what came of it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) meeting: Meeting<Vec<EventFd>>,
    pub(super) tokens: Tokens,
    pub(super) met: Vec<Met<Vec<EventFd>>>,
    /// What else happened, as text.
    pub(super) said: Vec<String>,
}

impl End {
    pub(super) fn open(base: &Path, pattern: Pattern, role: Role) -> Self {
        Self::with(base, hello(pattern, role)).expect("an endpoint")
    }

    pub(super) fn with(base: &Path, hello: Hello) -> Result<Self, Error> {
        let tokens = Tokens::of(&hello);
        let folder = try_folder(base, "channel")?;
        let meeting = Meeting::open(&address(), folder, hello, Instant::now())?;
        Ok(Self { meeting, tokens, met: Vec::new(), said: Vec::new() })
    }

    pub(super) fn id(&self) -> Id {
        self.meeting.hello().id
    }

    /// One turn, at this time.
    pub(super) fn turn(&mut self, now: Instant) {
        let mut events = Vec::new();
        self.meeting.poll(now, &mut self.tokens, &mut events).expect("a turn");
        for event in events {
            match event {
                Event::Met(met) => {
                    assert_eq!(met.descriptors.len(), met.hello.descriptors());
                    self.met.push(*met);
                }
                Event::Refused { peer, problem } | Event::KeptOut { peer, problem, .. } => {
                    self.said.push(format!("refused: {peer}: {problem}"));
                }
                Event::Denied { peer, problem } => {
                    self.said.push(format!("denied: {peer}: {problem}"));
                }
                Event::Full { peer, problem } => {
                    self.said.push(format!("full: {peer}: {problem}"));
                }
                Event::Misbehaved { peer, problem } => {
                    self.said.push(format!("misbehaved: {peer}: {problem}"));
                }
                Event::Failed(error) => self.said.push(format!("failed: {error}")),
                Event::Asked(_) => self.said.push("asked".to_owned()),
                Event::Ready { token, .. } => self.said.push(format!("ready: {token}")),
            }
        }
    }

    /// Waits for something to do, and does it, until this holds.
    ///
    /// # Panics
    /// When it does not come to hold.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Deadline::after(switchboard_testkit::DEADLINE);
        while !holds(self) {
            assert!(!deadline.passed(), "{what}: {:?} and {} met", self.said, self.met.len());
            self.meeting.wait(deadline.min(Deadline::after(Duration::from_secs(1)))).expect("wait");
            self.turn(Instant::now());
        }
    }
}

/// The channel's folder.
pub(super) fn channel(base: &Path) -> PathBuf {
    base.join("switchboard/shm/channel")
}

/// The names in the channel's folder.
pub(super) fn names(base: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(channel(base)) else {
        return Vec::new();
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().expect("text");
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort_unstable();
    names
}

/// Whether both have met one another, once, and their sockets are each other's ends.
pub(super) fn are_linked(one: &End, other: &End) -> bool {
    let link = |end: &End, peer: Id| {
        let mut links = end.met.iter().filter(|met| met.hello.id == peer);
        let first = links.next().map(|met| met.socket.try_clone().expect("a descriptor"));
        first.filter(|_| links.next().is_none())
    };
    let (Some(a), Some(b)) = (link(one, other.id()), link(other, one.id())) else { return false };
    reaches(&a, &b) && reaches(&b, &a)
}

/// Whether what is said on one socket is heard on the other, and nothing else is.
fn reaches(from: &OwnedFd, to: &OwnedFd) -> bool {
    let word = Datagram::Reject { number: 77 }.encode();
    let mut buffer = [0; 64];
    unix_socket::send(from, &word).is_ok()
        && wait_for(to, Interest::Readable, Deadline::after(Duration::ZERO)) == Ok(true)
        && unix_socket::recv(to, &mut buffer) == Ok(word.len())
        && buffer.starts_with(&word)
        && wait_for(to, Interest::Readable, Deadline::after(Duration::ZERO)) == Ok(false)
}
