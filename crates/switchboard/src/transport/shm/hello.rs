//! What an endpoint of `shm:` says about itself, and whether two endpoints fit.
//!
//! ```text
//! 0   SWBDSHM1                         28  u64  schema fingerprint, 0 for plain bytes
//! 8   u16  version                     36  u32  largest message taken, in bytes
//! 10  u8   pattern (1 queue, 2 topic)  40  u32  window: messages unacknowledged at most
//! 11  u8   role (1 writes, 2 reads)    44  u16  length of the program's name, then the name
//! 12  ID, 16 bytes                         u16  length of the schema's name, then the name
//! ```
//! What follows is ignored: a later version may add fields. `docs/design/shm.md` has the datagram that
//! carries it.

use std::fmt;

use switchboard_kernel::{self as kernel, random};

use super::datagram::{Fault, Fields};
use crate::link::{cut, name_or_bytes, printable};

pub(crate) use crate::link::Pattern;

/// The version of the control path that this code speaks.
pub(crate) const VERSION: u16 = 2;
/// The largest window of a queue's receiver, in messages.
pub(crate) const LARGEST_WINDOW: u32 = 256;

const MAGIC: &[u8; 8] = b"SWBDSHM1";
const LONGEST_PROGRAM: usize = 64;
const LONGEST_SCHEMA: usize = 256;

/// Which end of a pattern an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Publisher or sender: has the rings.
    Writer = 1,
    /// Subscriber or receiver: has the cursors.
    Reader = 2,
}

impl Role {
    /// Whom this one meets.
    pub(crate) fn complement(self) -> Self {
        match self {
            Self::Writer => Self::Reader,
            Self::Reader => Self::Writer,
        }
    }
}

/// What an end of a pattern is called.
pub(crate) fn end_name(pattern: Pattern, role: Role) -> &'static str {
    match (pattern, role) {
        (Pattern::Queue, Role::Writer) => "a sender",
        (Pattern::Queue, Role::Reader) => "a receiver",
        (Pattern::Topic, Role::Writer) => "a publisher",
        (Pattern::Topic, Role::Reader) => "a subscriber",
        (Pattern::Service, Role::Writer) | (Pattern::Answers, Role::Reader) => "a client",
        (Pattern::Service, Role::Reader) | (Pattern::Answers, Role::Writer) => "a server",
        (Pattern::Event, Role::Writer) => "a notifier",
        (Pattern::Event, Role::Reader) => "a listener",
        (Pattern::State, Role::Writer) => "a writer",
        (Pattern::State, Role::Reader) => "a reader",
    }
}

/// The identity of an endpoint: 128 random bits, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(pub(crate) [u8; 16]);

impl Id {
    /// A new one.
    ///
    /// # Errors
    /// As [`random::fill`].
    pub(crate) fn random() -> kernel::Result<Self> {
        let mut bytes = [0; 16];
        random::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// What one side says about itself. Of a peer's hello nothing is believed beyond its own limits:
/// which process it is comes from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) pattern: Pattern,
    pub(crate) role: Role,
    pub(crate) id: Id,
    /// Fingerprint of the messages' layout; 0 for bytes.
    pub(crate) fingerprint: u64,
    pub(crate) max_message_bytes: u32,
    /// Messages unacknowledged at most: 1 to 256 of a queue's receiver, else it means nothing.
    pub(crate) window_messages: u32,
    /// The program's own name, unverified.
    pub(crate) program: String,
    /// The messages' type, for error messages.
    pub(crate) schema: String,
}

impl Hello {
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(self.pattern as u8);
        bytes.push(self.role as u8);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&self.max_message_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.window_messages.to_le_bytes());
        for (name, longest) in [(&self.program, LONGEST_PROGRAM), (&self.schema, LONGEST_SCHEMA)] {
            let name = cut(name, longest);
            // At most 256 bytes.
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
    }

    /// Reads a peer's hello.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let magic = fields.take()?;
        if magic != *MAGIC {
            let begin = printable(&magic, 8);
            return Err(Fault::misbehaved(format!("a hello that begins with {begin:?}")));
        }
        // Where the rest is depends on the version.
        let version = fields.u16()?;
        if version != VERSION {
            let problem = format!("version {version} of shm: meets version {VERSION}");
            return Err(Fault::Mismatch(problem));
        }
        let pattern = match fields.u8()? {
            1 => Pattern::Queue,
            2 => Pattern::Topic,
            3 => Pattern::Service,
            6 => Pattern::Answers,
            4 => Pattern::Event,
            5 => Pattern::State,
            other => return Err(Fault::Mismatch(format!("an unknown pattern, {other}"))),
        };
        let role = match fields.u8()? {
            1 => Role::Writer,
            2 => Role::Reader,
            other => return Err(Fault::misbehaved(format!("a hello with unknown role {other}"))),
        };
        let hello = Self {
            pattern,
            role,
            id: Id(fields.take()?),
            fingerprint: fields.u64()?,
            max_message_bytes: fields.u32()?,
            window_messages: fields.u32()?,
            program: printable(fields.text()?, LONGEST_PROGRAM),
            schema: printable(fields.text()?, LONGEST_SCHEMA),
        };
        let receives = pattern != Pattern::Topic && role == Role::Reader;
        if receives && !(1..=LARGEST_WINDOW).contains(&hello.window_messages) {
            let window = hello.window_messages;
            let problem =
                format!("a window of {window} messages; 1 to {LARGEST_WINDOW} are allowed");
            return Err(Fault::misbehaved(problem));
        }
        Ok(hello)
    }

    /// How many descriptors go with it: a writer's doorbell and a topic's ring, or a reader's page.
    pub(crate) fn descriptors(&self) -> usize {
        match (self.pattern, self.role) {
            (Pattern::Topic | Pattern::Event | Pattern::State, Role::Writer) => 2,
            (_, Role::Writer | Role::Reader) => 1,
        }
    }

    /// What an endpoint of this kind is called.
    pub(crate) fn end(&self) -> &'static str {
        end_name(self.pattern, self.role)
    }

    /// Whether two endpoints can talk.
    ///
    /// # Errors
    /// Why they cannot, naming both, in words that either side can be told.
    pub(crate) fn fits(&self, peer: &Self) -> Result<(), String> {
        if peer.pattern != self.pattern {
            let (this, other) = (self.pattern.name(), peer.pattern.name());
            let (end, peer_end) = (self.end(), peer.end());
            return Err(format!("{end} (a {this}) and {peer_end} (a {other}) do not meet"));
        }
        if peer.role == self.role {
            return Err(format!("both sides are {}; one has to be the other", self.end()));
        }
        if peer.fingerprint != self.fingerprint {
            return Err(format!(
                "messages do not fit: {} uses {}, {} uses {}",
                self.end(),
                name_or_bytes(&self.schema),
                peer.end(),
                name_or_bytes(&peer.schema)
            ));
        }
        Ok(())
    }
}
