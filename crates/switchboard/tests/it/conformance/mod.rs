//! What every row of the table of transports has to keep, between processes.
//!
//! A check is written once and run for each [`Meeting`]: a row of [`TABLE`] and a way in which two
//! processes meet over it. What must hold follows from the row's capabilities.

mod boundaries;
pub(crate) mod contents;
pub(crate) mod crowds;
pub(crate) mod death;
mod dropping;
pub(crate) mod ends;
mod foreign;
pub(crate) mod hostile;
pub(crate) mod liar;
pub(crate) mod limits;
mod many;
pub(crate) mod permissions;
mod rejects;
mod restart;
mod slow;
pub(crate) mod timeouts;
pub(crate) mod topics;
pub(crate) mod udp;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use switchboard::Framing;
use switchboard::transport::{TABLE, Transport};
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_kernel::{Permissions, pipe};
use switchboard_testkit::child::Child;
use switchboard_testkit::{DEADLINE, Scratch, unique};

use contents::{contents, digest};
use ends::HANDED;

/// Where two processes meet, over one row.
pub(crate) struct Meeting {
    pub(crate) row: &'static Transport,
    pub(crate) name: String,
    pub(crate) scratch: Scratch,
    place: Place,
}

enum Place {
    Address(String),
    /// Descriptors to hand over: the sender's and the receiver's.
    Descriptors(Option<OwnedFd>, Option<OwnedFd>),
}

impl Meeting {
    /// A new place of this row that nobody else uses. `piped`: over a pipe, where there is a choice.
    pub(crate) fn new(row: &'static Transport, piped: bool) -> Self {
        let scratch = Scratch::new();
        let path = scratch.join("a").to_str().expect("a path").to_owned();
        let place = match row.scheme {
            "fd" if piped => {
                let (reader, writer) = pipe::pipe().expect("a pipe");
                Place::Descriptors(Some(writer), Some(reader))
            }
            "fd" => {
                let (one, other) = unix::pair(Kind::Stream).expect("a pair of sockets");
                Place::Descriptors(Some(one), Some(other))
            }
            "mq" => Place::Address(format!("mq:/{}", unique("mq"))),
            // More than that takes a while to compute.
            "shm" => Place::Address(format!("shm:conformance/{}?max-message=16MiB", unique("shm"))),
            "sysv" => Place::Address(format!("sysv:{}", scratch.path().display())),
            "tcp" | "udp" => Place::Address(format!("{}:{}:7000", row.scheme, own_host())),
            scheme => Place::Address(format!("{scheme}:{path}")),
        };
        let name = if piped { "fd, a pipe".to_owned() } else { row.scheme.to_owned() };
        Self { row, name, scratch, place }
    }

    /// The row of this scheme.
    pub(crate) fn of(scheme: &str) -> Self {
        let row = TABLE.iter().find(|row| row.scheme == scheme).expect("a row");
        Self::new(row, false)
    }

    /// Whether both ends share a descriptor that nobody else can get.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.place, Place::Descriptors(..))
    }

    /// Whether the two ends acknowledge: a link that goes both ways.
    pub(crate) fn acknowledges(&self) -> bool {
        self.is_link() && self.name != "fd, a pipe"
    }

    /// Whether a link tells an end from a death.
    pub(crate) fn is_link(&self) -> bool {
        self.row.framing == Some(Framing::Link) || self.row.scheme == "shm"
    }

    /// Whether a rejected message comes again.
    pub(crate) fn takes_back(&self) -> bool {
        self.acknowledges() || self.row.scheme == "file"
    }

    /// Options that make a queue small enough to be filled.
    pub(crate) fn small(&self) -> &'static str {
        if self.row.scheme == "file" { "?segment=256KiB&capacity=2MiB" } else { "" }
    }

    /// What has the mode of the address: the path, or what is in it.
    pub(crate) fn owned(&self) -> Option<PathBuf> {
        let path = self.path()?;
        Some(if self.row.scheme == "file" { path.join("lock") } else { path })
    }

    /// Whether a receiver learns that its senders ended.
    pub(crate) fn tells_the_end(&self) -> bool {
        self.row.framing.is_some() || matches!(self.row.scheme, "udp" | "shm")
    }

    pub(crate) fn lines(&self) -> bool {
        self.row.framing == Some(Framing::Lines)
    }

    /// The address, where there is one to write down.
    pub(crate) fn address(&self) -> &str {
        match &self.place {
            Place::Address(address) => address,
            Place::Descriptors(..) => panic!("{} has no address", self.name),
        }
    }

    /// The path of the address, if it is one that appears in the file system.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let path = self.scratch.join("a");
        (!self.is_given()
            && !matches!(self.row.scheme, "sysv" | "shm")
            && self.address().contains("/a"))
        .then_some(path)
    }

    /// The largest message that this object takes on this machine, in bytes.
    pub(crate) fn largest(&self) -> usize {
        let row = self.row.capabilities.largest_message_bytes;
        let system = match self.row.scheme {
            "mq" => switchboard_kernel::posix_mq::limits().max_message_size_bytes,
            "sysv" => {
                let limits = switchboard_kernel::sysv_msg::limits();
                limits.max_message_bytes.min(limits.default_queue_bytes)
            }
            "shm" => 16 << 20,
            _ => row,
        };
        row.min(system) as usize
    }

    /// A receiver process that is open; options as in [`ends`].
    pub(crate) fn receiver(&mut self, options: &str) -> End {
        self.receiver_at("", options)
    }

    /// As [`receiver`](Self::receiver), with options of the address.
    pub(crate) fn receiver_at(&mut self, query: &str, options: &str) -> End {
        let mut end = self.start("receiver", query, options);
        end.expect("open");
        end
    }

    /// A sender process that is open.
    pub(crate) fn sender(&mut self, options: &str) -> End {
        self.sender_at("", options)
    }

    /// As [`sender`](Self::sender), with options of the address.
    pub(crate) fn sender_at(&mut self, query: &str, options: &str) -> End {
        let mut end = self.start("sender", query, options);
        end.expect("open");
        end
    }

    /// A subscriber process that is open, from the oldest message.
    pub(crate) fn subscriber(&mut self, query: &str, options: &str) -> End {
        let mut end = self.start("subscriber", query, options);
        end.expect("open");
        end
    }

    /// A publisher process that is open.
    pub(crate) fn publisher(&mut self, query: &str, options: &str) -> End {
        let mut end = self.start("publisher", query, options);
        end.expect("open");
        end
    }

    /// Closes a sender whose messages were all received. Where the row tells the end, the receiver
    /// learns it; elsewhere it finds nothing more.
    pub(crate) fn finish(&self, sender: &mut End, receiver: &mut End) {
        sender.tell("close");
        if self.tells_the_end() {
            receiver.must("timeout 15000", "error Ended");
        } else {
            receiver.must("timeout 50", "empty");
        }
        sender.expect("closed");
    }

    /// Starts an end, which says `open` or an error.
    pub(crate) fn start(&mut self, role: &str, query: &str, options: &str) -> End {
        let kind = if self.lines() { "lines" } else { "bytes" };
        let child = match &mut self.place {
            Place::Address(address) => {
                let address = match address.split_once('?') {
                    // What the test says instead of what the row's meeting does.
                    Some((address, _)) if query.contains("max-message") => {
                        format!("{address}{query}")
                    }
                    Some(_) => format!("{address}{}", query.replacen('?', "&", 1)),
                    None => format!("{address}{query}"),
                };
                Child::role(role, &[address.as_str(), options, kind])
            }
            Place::Descriptors(sender, receiver) => {
                let fd = if role == "sender" { sender.take() } else { receiver.take() };
                hand_over(role, fd.expect("a descriptor that was not given yet"), options, kind)
            }
        };
        End { child, lines: self.lines(), name: format!("{} {role}", self.name) }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if let Place::Address(address) = &self.place
            && let Ok(address) = address.parse()
        {
            let _ = switchboard::object::unlink(&address);
        }
    }
}

/// A loopback address that nobody else uses: all of 127.0.0.0/8 is this machine.
pub(crate) fn own_host() -> String {
    let name = unique("host");
    let mut random = contents::Random::new(digest(name.as_bytes()));
    format!("127.{}.{}.{}", 1 + random.below(250), random.below(256), 1 + random.below(250))
}

/// Starts an end and gives it a descriptor.
fn hand_over(role: &str, fd: OwnedFd, options: &str, kind: &str) -> Child {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let address = Address::Path(path.clone());
    let permissions = Permissions::new();
    let listener = unix::listen_at(Kind::Seqpacket, &address, permissions, 1, false);
    let listener = listener.expect("a listener");
    let place = format!("{HANDED}{}", path.display());
    let child = Child::role(role, &[place.as_str(), options, kind]);
    let ready = |fd: &OwnedFd| {
        let deadline = Deadline::after(DEADLINE);
        assert!(wait_for(fd, Interest::Readable, deadline).expect("a poll"), "nothing in time");
    };
    ready(&listener);
    let connection = unix::accept(&listener, false).expect("the child's connection");
    unix::send_with_fds(&connection, b"descriptor", &[fd.as_fd()]).expect("handed over");
    drop(fd);
    ready(&connection);
    child
}

/// A child that plays an end.
pub(crate) struct End {
    pub(crate) child: Child,
    lines: bool,
    name: String,
}

/// A message that a receiver said it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) tag: Option<(u64, u64)>,
    pub(crate) len: usize,
    pub(crate) digest: u64,
    pub(crate) redelivered: bool,
    pub(crate) deliveries: u16,
    pub(crate) lost_before: u64,
    pub(crate) priority: u32,
}

impl Got {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("got ")?.split(' ');
        let tag = words.next()?.split_once(':');
        Some(Self {
            tag: tag.map(|(s, n)| (s.parse().expect("a number"), n.parse().expect("a number"))),
            len: words.next()?.parse().ok()?,
            digest: u64::from_str_radix(words.next()?, 16).ok()?,
            redelivered: words.next()? == "1",
            deliveries: words.next()?.parse().ok()?,
            lost_before: words.next()?.parse().ok()?,
            priority: words.next()?.parse().ok()?,
        })
    }

    /// The sender and number; and whether every byte is what that sender sends.
    pub(crate) fn checked(&self, lines: bool) -> (u64, u64) {
        let (sender, n) = self.tag.unwrap_or_else(|| panic!("a message without a tag: {self:?}"));
        let sent = contents(sender, n, self.len, lines);
        assert_eq!(self.digest, digest(&sent), "message {sender}:{n} of {} bytes", self.len);
        (sender, n)
    }
}

/// What a receiver said until it was done: the messages, and what else.
#[derive(Debug, Default)]
pub(crate) struct Haul {
    pub(crate) got: Vec<Got>,
    pub(crate) errors: Vec<String>,
}

impl Haul {
    /// The numbers of one sender's messages, in the order they came.
    pub(crate) fn of(&self, sender: u64) -> Vec<u64> {
        let tags = self.got.iter().filter_map(|got| got.tag);
        tags.filter(|(s, _)| *s == sender).map(|(_, n)| n).collect()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.got.iter().map(|got| got.lost_before).sum()
    }
}

impl End {
    pub(crate) fn tell(&mut self, line: &str) {
        self.child.tell(line);
    }

    /// Tells it a line, and gives its answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.line()
    }

    pub(crate) fn line(&mut self) -> String {
        self.child.line().unwrap_or_else(|| panic!("{}: it ended", self.name))
    }

    pub(crate) fn expect(&mut self, expected: &str) {
        let line = self.line();
        assert_eq!(line, expected, "{}", self.name);
    }

    /// What it answers has to start so.
    pub(crate) fn must(&mut self, line: &str, start: &str) -> String {
        let answer = self.ask(line);
        assert!(answer.starts_with(start), "{}: {line:?}: {answer}", self.name);
        answer
    }

    /// Receives `count` messages, each within the deadline of the tests.
    pub(crate) fn recv(&mut self, count: u64) -> Haul {
        self.tell(&format!("recv {count} {}", DEADLINE.as_millis() / 2));
        self.haul()
    }

    /// Receives until nothing comes for `idle`, or all ended.
    pub(crate) fn recv_all(&mut self, idle: Duration) -> Haul {
        self.tell(&format!("recv {} {}", u64::MAX, idle.as_millis()));
        self.haul()
    }

    /// What a receiver says until it is done. Every message is checked to its last byte.
    pub(crate) fn haul(&mut self) -> Haul {
        let mut haul = Haul::default();
        loop {
            let line = self.line();
            if line == "done" {
                return haul;
            }
            haul.take(&line, self.lines);
        }
    }

    /// One number of its `count`.
    pub(crate) fn count(&mut self, name: &str) -> u64 {
        let counts = self.ask("count");
        let found = counts.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name} in {counts}")).parse().expect("a number")
    }

    /// Its resident memory in KiB. None where AddressSanitizer is what takes most of it.
    pub(crate) fn resident_kib(&mut self) -> u64 {
        let kib = self.ask("rss").parse().expect("a number");
        if std::env::var_os("ASAN_OPTIONS").is_some() { 0 } else { kib }
    }

    pub(crate) fn close(&mut self) {
        self.must("close", "closed");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill();
    }
}

impl Haul {
    fn take(&mut self, line: &str, lines: bool) {
        match Got::parse(line) {
            Some(got) => {
                if got.tag.is_some() {
                    let _ = got.checked(lines);
                }
                self.got.push(got);
            }
            None => self.errors.push(line.to_owned()),
        }
    }
}

/// Runs a check for every row that carries queues, in every way that two processes can meet over it, each
/// in a thread of that name.
pub(crate) fn each_row(check: fn(&mut Meeting)) {
    let queues = TABLE.iter().filter(|row| row.patterns().contains(&"queue"));
    each_way(
        queues.flat_map(|row| {
            let piped = (row.scheme == "fd").then_some((row, true));
            [Some((row, false)), piped].into_iter().flatten()
        }),
        check,
    );
}

/// Runs a check for every row that carries topics.
pub(crate) fn each_topic(check: fn(&mut Meeting)) {
    let topics = TABLE.iter().filter(|row| row.patterns().contains(&"topic"));
    each_way(topics.map(|row| (row, false)), check);
}

/// Runs a check for every row that carries services.
pub(crate) fn each_service(check: fn(&mut Meeting)) {
    let services = TABLE.iter().filter(|row| row.patterns().contains(&"service"));
    each_way(services.map(|row| (row, false)), check);
}

fn each_way(ways: impl Iterator<Item = (&'static Transport, bool)>, check: fn(&mut Meeting)) {
    std::thread::scope(|scope| {
        let running: Vec<_> = ways
            .map(|(row, piped)| {
                let mut meeting = Meeting::new(row, piped);
                let name = meeting.name.clone();
                let thread = std::thread::Builder::new().name(name.clone());
                (name, thread.spawn_scoped(scope, move || check(&mut meeting)).expect("a thread"))
            })
            .collect();
        let failed: Vec<String> = running
            .into_iter()
            .filter_map(|(name, thread)| thread.join().is_err().then_some(name))
            .collect();
        assert!(failed.is_empty(), "it does not hold over: {}", failed.join("; "));
    });
}
