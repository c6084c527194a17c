//! The hello: what each side of a link says about itself before anything else.
//!
//! ```text
//! 0   u16  version                    16  u64  schema fingerprint, 0 for plain bytes
//! 2   u8   pattern (see `Pattern`)    24  u32  largest message taken, in bytes
//! 3   u8   role (1 from it, 2 to it)  28  u32  window: messages unacknowledged at most
//! 4   u32  reserved, 0                32  u32  window: bytes unacknowledged at most
//! 8   u64  instance: random, new for each endpoint
//! 36  u8   length of the program's name, at most 64, then the name
//!     u16  length of the schema's name, at most 256, then the name
//! ```
//! Unknown bytes after these are ignored: a later version may add fields.

/// The version of the link's protocol that this code speaks.
pub(crate) const VERSION: u16 = 1;

const FIXED_BYTES: usize = 36;
const LONGEST_NAME: usize = 64;
const LONGEST_SCHEMA: usize = 256;

/// What the messages of a link mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// Each message goes to one receiver.
    Queue = 1,
    /// Each message goes to every subscriber.
    Topic = 2,
    /// Each request gets a reply.
    Service = 3,
    /// That something happened, counted.
    Event = 4,
    /// The newest value of each key.
    State = 5,
    /// The replies of a service, where they have links of their own (`shm:`).
    Answers = 6,
}

impl Pattern {
    /// Whether ends of both may have one name: of the same, or of a service.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        let of_service = |pattern| matches!(pattern, Self::Service | Self::Answers);
        self == other || (of_service(self) && of_service(other))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
            Self::Service | Self::Answers => "service",
            Self::Event => "event",
            Self::State => "state",
        }
    }
}

/// Which end of a pattern a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Messages come from it: the sender of a queue, the publisher of a topic, the client of a service,
    /// the notifier of an event, the writer of a state.
    Sender = 1,
    /// Messages go to it: the receiver of a queue, the subscriber of a topic, the server of a service,
    /// the listener of an event, the reader of a state.
    Receiver = 2,
}

impl Role {
    /// What it is called in a pattern.
    #[must_use]
    pub fn name_in(self, pattern: Pattern) -> &'static str {
        match (pattern, self) {
            (Pattern::Queue, Self::Sender) => "a sender",
            (Pattern::Queue, Self::Receiver) => "a receiver",
            (Pattern::Topic, Self::Sender) => "a publisher",
            (Pattern::Topic, Self::Receiver) => "a subscriber",
            (Pattern::Service, Self::Sender) | (Pattern::Answers, Self::Receiver) => "a client",
            (Pattern::Service, Self::Receiver) | (Pattern::Answers, Self::Sender) => "a server",
            (Pattern::Event, Self::Sender) => "a notifier",
            (Pattern::Event, Self::Receiver) => "a listener",
            (Pattern::State, Self::Sender) => "a writer",
            (Pattern::State, Self::Receiver) => "a reader",
        }
    }
}

/// What one side says about itself. Of a peer's hello nothing is believed beyond its own limits:
/// who it is comes from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the messages mean.
    pub pattern: Pattern,
    /// Which end of the pattern.
    pub role: Role,
    /// Fingerprint of the messages' layout; 0 for bytes, which fit anything.
    pub schema: u64,
    /// The messages' type, for error messages.
    pub schema_name: String,
    /// The largest message it takes, in bytes.
    pub max_message_bytes: u32,
    /// How many messages may be unacknowledged at a time.
    pub window_messages: u32,
    /// How many bytes of messages may be unacknowledged at a time.
    pub window_bytes: u32,
    /// A random number, new for each endpoint.
    pub instance: u64,
    /// The program's own name, unverified.
    pub name: String,
}

impl Hello {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[self.pattern as u8, self.role as u8]);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.instance.to_le_bytes());
        bytes.extend_from_slice(&self.schema.to_le_bytes());
        bytes.extend_from_slice(&self.max_message_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.window_messages.to_le_bytes());
        bytes.extend_from_slice(&self.window_bytes.to_le_bytes());
        let name = cut(&self.name, LONGEST_NAME);
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        let schema = cut(&self.schema_name, LONGEST_SCHEMA);
        bytes.extend_from_slice(&(schema.len() as u16).to_le_bytes());
        bytes.extend_from_slice(schema.as_bytes());
        bytes
    }

    /// Reads a peer's hello.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let short = || "a hello that is too short".to_owned();
        let fixed = bytes.first_chunk::<FIXED_BYTES>().ok_or_else(short)?;
        let u32_at = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let version = u16::from_le_bytes([fixed[0], fixed[1]]);
        if version != VERSION {
            return Err(format!("it speaks version {version} of the link, this side {VERSION}"));
        }
        let pattern = match fixed[2] {
            1 => Pattern::Queue,
            2 => Pattern::Topic,
            3 => Pattern::Service,
            4 => Pattern::Event,
            5 => Pattern::State,
            other => return Err(format!("a hello with unknown pattern {other}")),
        };
        let role = match fixed[3] {
            1 => Role::Sender,
            2 => Role::Receiver,
            other => return Err(format!("a hello with unknown role {other}")),
        };
        let rest = &bytes[FIXED_BYTES..];
        let (&len, rest) = rest.split_first().ok_or_else(short)?;
        let (name, rest) = rest.split_at_checked(len.into()).ok_or_else(short)?;
        let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let len = usize::from(u16::from_le_bytes(*len));
        let (schema_name, _later) = rest.split_at_checked(len).ok_or_else(short)?;
        let hello = Self {
            pattern,
            role,
            instance: u64_at(8),
            schema: u64_at(16),
            max_message_bytes: u32_at(24),
            window_messages: u32_at(28),
            window_bytes: u32_at(32),
            name: printable(name, LONGEST_NAME),
            schema_name: printable(schema_name, LONGEST_SCHEMA),
        };
        let no_window = hello.window_messages == 0 || hello.window_bytes == 0;
        let needs_window =
            pattern == Pattern::Service || (pattern, role) == (Pattern::Queue, Role::Receiver);
        if needs_window && no_window {
            let who = role.name_in(pattern);
            return Err(format!("{who} that takes nothing (its window is 0)"));
        }
        Ok(hello)
    }

    /// Whether a peer that says this can be talked to.
    ///
    /// # Errors
    /// Why not, naming both.
    pub(crate) fn check(&self, peer: &Self) -> Result<(), String> {
        if peer.pattern != self.pattern {
            return Err(format!(
                "it is {} of a {}, this side is {} of a {}: both have to use the same pattern",
                peer.who(),
                peer.pattern.name(),
                self.who(),
                self.pattern.name()
            ));
        }
        if peer.role == self.role {
            return Err(format!("both sides are {}; one has to be the other", peer.who()));
        }
        if peer.schema != self.schema {
            return Err(format!(
                "messages do not fit: {} uses {}, {} uses {}",
                self.who(),
                name_or_bytes(&self.schema_name),
                peer.who(),
                name_or_bytes(&peer.schema_name)
            ));
        }
        Ok(())
    }

    fn who(&self) -> &'static str {
        self.role.name_in(self.pattern)
    }
}

/// What a schema is called in messages; that of bytes has no name.
pub(crate) fn name_or_bytes(name: &str) -> &str {
    if name.is_empty() { "bytes" } else { name }
}

/// The longest prefix of at most `most` bytes that ends between characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text from a peer, made safe to show.
pub(crate) fn printable(bytes: &[u8], most_chars: usize) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .take(most_chars)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
