//! Errors of the library: what failed, on which address, why, and what to do.
//!
//! A variant exists only where a caller would act differently on it.

use std::fmt;

use switchboard_kernel as kernel;

use crate::address::{Address, AddressError};
use crate::message::EncodingError;

/// Why an endpoint could not be opened, or cannot go on.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    address: String,
    problem: String,
    hint: Option<String>,
    source: Option<kernel::Error>,
}

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not an address, or its options do not fit.
    BadAddress,
    /// Nothing is there, and waiting was not wanted or would not help.
    NotFound,
    /// Not allowed by owner and mode, or by policy (plaintext beyond this machine).
    PermissionDenied,
    /// Somebody else holds the name.
    AddressInUse,
    /// A limit of the system, the user or the process was reached; the message names it.
    LimitReached,
    /// The transport or the object cannot do this: without a [`source`](std::error::Error::source) no address
    /// of this kind can, with one this system cannot.
    NotSupported,
    /// The two sides do not fit: roles, message types, versions.
    Mismatch,
    /// A peer broke the protocol. Its link is closed; others go on.
    PeerMisbehaved,
    /// Anything else the system said.
    System,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, address: &Address, problem: impl Into<String>) -> Self {
        let address = address.as_str().to_owned();
        Self { kind, address, problem: problem.into(), hint: None, source: None }
    }

    /// What a child of `fork` is told that calls an end of its parent's.
    pub(crate) fn of_parent(address: &Address) -> Self {
        let problem = "this end was opened before a fork, and belongs to the parent";
        Self::new(ErrorKind::NotSupported, address, problem).hint("open it after the fork")
    }

    /// From a system call made for `address`: `doing` says for what, as in "cannot bind".
    pub(crate) fn system(address: &Address, doing: &str, error: kernel::Error) -> Self {
        use kernel::ErrorKind as K;
        let (kind, hint) = match error.kind() {
            K::NotFound => (ErrorKind::NotFound, None),
            K::PermissionDenied => (
                ErrorKind::PermissionDenied,
                Some(
                    "its owner and mode decide; see ls -l, or create it with ?mode= and ?group="
                        .into(),
                ),
            ),
            K::AlreadyExists | K::AddressInUse => (ErrorKind::AddressInUse, None),
            K::NotSupported => (ErrorKind::NotSupported, None),
            K::TooManyFiles | K::TooManyFilesInSystem => {
                (ErrorKind::LimitReached, error.advice().map(str::to_owned))
            }
            K::NoSpace if error.name() == "EFBIG" => (
                ErrorKind::LimitReached,
                Some(
                    "files of this process may be no longer (RLIMIT_FSIZE): raise it with ulimit -f or \
                     LimitFSIZE="
                        .into(),
                ),
            ),
            K::NoSpace => (
                ErrorKind::LimitReached,
                Some("the file system or a quota is full: see df and df -i".into()),
            ),
            K::OutOfMemory => (ErrorKind::LimitReached, error.advice().map(str::to_owned)),
            _ => (ErrorKind::System, None),
        };
        let problem = format!("{doing}: {error}");
        Self { kind, address: address.as_str().to_owned(), problem, hint, source: Some(error) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what came before it, as in "after 3 of 10".
    pub(crate) fn after(mut self, what: &str) -> Self {
        self.problem = format!("{what}: {}", self.problem);
        self
    }

    pub(crate) fn kinded(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The name of the system's error behind it, where there is one.
    pub(crate) fn system_name(&self) -> Option<&'static str> {
        self.source.map(kernel::Error::name)
    }

    /// What a caller can act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The address it happened on.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ErrorKind::BadAddress && self.address.is_empty() {
            return f.write_str(&self.problem);
        }
        write!(f, "{}: {}", self.address, self.problem)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        Self {
            kind: ErrorKind::BadAddress,
            address: String::new(),
            problem: error.to_string(),
            hint: None,
            source: None,
        }
    }
}

/// Why a message was not sent. The message is still the caller's, except as
/// [`send`](crate::Sender::send) says.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The deadline passed, or a non-blocking send would have to wait: nobody is there, the
    /// receiver is slow, or the queue is full.
    Full,
    /// As `Full`, of a topic: this subscriber is too slow, and what waits for it is as much as may
    /// ([`Overflow`](crate::Overflow)). Nobody got the message.
    Slow {
        /// What is known of it: its process id and name.
        peer: String,
    },
    /// The [`cancel`](crate::Options#structfield.cancel) descriptor became readable.
    Interrupted,
    /// Larger than somebody on the way takes.
    TooLarge {
        /// Bytes of the message.
        len_bytes: usize,
        /// The limit, in bytes.
        limit_bytes: usize,
        /// Whose limit it is, and how to change it.
        limit: String,
    },
    /// The framing cannot hold this message.
    Unframable(String),
    /// The value has no encoding.
    Encoding(EncodingError),
    /// The receiver is gone and this sender does not reconnect: the connection and how many
    /// messages were not acknowledged.
    PeerDied {
        /// Messages sent and not acknowledged.
        unacknowledged: u64,
    },
    /// The receiver broke the protocol, and there is no other.
    PeerMisbehaved(String),
    /// The endpoint cannot go on.
    Failed(Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("not sent in time: no receiver, or it takes no more now"),
            Self::Slow { peer } => write!(f, "not taken: {peer} is too slow"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::TooLarge { len_bytes, limit_bytes, limit } => {
                let (len, fit) = (Counted(*len_bytes as u64, "byte"), limit_bytes);
                write!(f, "a message of {len}; at most {fit} fit: {limit}")
            }
            Self::Unframable(problem) => f.write_str(problem),
            Self::Encoding(error) => error.fmt(f),
            Self::PeerDied { unacknowledged } => {
                write!(f, "the receiver is gone; {}", not_acknowledged(*unacknowledged))
            }
            Self::PeerMisbehaved(problem) => write!(f, "the receiver misbehaved: {problem}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Encoding(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Why no message was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// The deadline passed, or a non-blocking receive found nothing.
    Empty,
    /// Every sender that joined has ended: there is nothing more to come.
    Ended,
    /// The [`cancel`](crate::Options#structfield.cancel) descriptor became readable.
    Interrupted,
    /// A sender died without saying its end. What arrived was handed out; others go on, and
    /// receiving again continues with them.
    PeerDied {
        /// What is known of it: its process id and name.
        peer: String,
        /// Messages that arrived from it.
        received: u64,
    },
    /// A peer broke the protocol; its connection is closed. Others go on.
    PeerMisbehaved {
        /// What is known of it.
        peer: String,
        /// What it did.
        problem: String,
    },
    /// Messages of a topic are missing, because this subscriber was too slow for its publisher, which
    /// dropped them ([`Overflow::DropOldest`](crate::Overflow::DropOldest)), or because they were
    /// larger than it takes. Told once; receiving again goes on after them.
    Gap {
        /// What is known of the publisher.
        peer: String,
        /// How many.
        missing: u64,
    },
    /// A part of what is kept cannot be read (a log on disk). What follows goes on.
    Damaged {
        /// Where, and what is wrong.
        problem: String,
        /// How many messages are missing, as far as that is known.
        missing: u64,
    },
    /// A peer that does not fit was turned away. Others go on.
    PeerRefused {
        /// What is known of it.
        peer: String,
        /// Why.
        problem: String,
    },
    /// The message is not of the expected type; receiving again goes on with the next one.
    ///
    /// It was given back at once. Over a link it goes to its sender, which gives it out again, to this
    /// or another receiver, as often as its
    /// [`max_deliveries`](crate::Options#structfield.max_deliveries) says, and counts it as rejected
    /// then. In a log it waits for another receiver, and that counts as no delivery. Elsewhere nobody
    /// else has it: its bytes are here.
    Encoding {
        /// Why.
        problem: EncodingError,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The endpoint cannot go on.
    Failed(Error),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing arrived in time"),
            Self::Ended => f.write_str("every sender has ended"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::PeerDied { peer, received } => {
                let messages = Counted(*received, "message");
                write!(f, "{peer} died before it said its end; {messages} arrived from it")
            }
            Self::PeerMisbehaved { peer, problem } => write!(f, "{peer} misbehaved: {problem}"),
            Self::Gap { peer, missing } => {
                let are = if *missing == 1 { "is" } else { "are" };
                write!(f, "{} of {peer} {are} missing", Counted(*missing, "message"))
            }
            Self::Damaged { problem, missing: 0 } => f.write_str(problem),
            Self::Damaged { problem, missing } => {
                let are = if *missing == 1 { "is" } else { "are" };
                write!(f, "{problem}; {} {are} missing", Counted(*missing, "message"))
            }
            Self::PeerRefused { peer, problem } => write!(f, "{peer} was turned away: {problem}"),
            Self::Encoding { problem, bytes } => {
                let bytes = Counted(bytes.len() as u64, "byte");
                write!(f, "a message of {bytes} is not what was expected: {problem}")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Encoding { problem, .. } => Some(problem),
            _ => None,
        }
    }
}

impl From<Error> for RecvError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Why waiting for an event, or for a change of a state, gave nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    TimedOut,
    /// The [`cancel`](crate::Options#structfield.cancel) descriptor became readable.
    Interrupted,
    /// The endpoint cannot go on.
    Failed(Error),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("nothing happened in time"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WaitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for WaitError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Why a sender closed with messages that nobody acknowledged.
#[derive(Debug)]
pub struct CloseError {
    /// Messages that were not acknowledged in time.
    pub unacknowledged: u64,
    /// Messages that receivers gave back as often as the limit on deliveries allows.
    pub rejected: u64,
    /// What ended the wait.
    pub reason: SendError,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rejected > 0 {
            let were = if self.rejected == 1 { "was" } else { "were" };
            let rejected = Counted(self.rejected, "message");
            write!(f, "{rejected} {were} rejected by every receiver")?;
            if self.unacknowledged == 0 && !matches!(self.reason, SendError::Failed(_)) {
                return Ok(());
            }
            f.write_str("; ")?;
        }
        f.write_str(&not_acknowledged(self.unacknowledged))?;
        match &self.reason {
            // It would say the number again.
            SendError::PeerDied { .. } => f.write_str(": the receiver is gone"),
            SendError::Failed(error) => write!(f, ": {error}"),
            reason if self.unacknowledged > 0 => write!(f, ": {reason}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for CloseError {}

/// So many of something: `1 message`, `2 messages`.
struct Counted(u64, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

fn not_acknowledged(messages: u64) -> String {
    let are = if messages == 1 { "is" } else { "are" };
    format!("{} {are} not acknowledged", Counted(messages, "message"))
}
