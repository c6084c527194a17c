//! Errors of the ends of a service.

use std::fmt;

use super::Status;
use crate::error::{Error, SendError};
use crate::message::EncodingError;

/// What is known of a call that ended without its server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// No server's program has seen the request, and none will: calling again is safe.
    NotStarted,
    /// A server may have begun, and even finished: only what can be done twice should be called again.
    Unknown,
}

impl Progress {
    pub(crate) fn of(started: bool) -> Self {
        if started { Self::Unknown } else { Self::NotStarted }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "the call was not started",
            Self::Unknown => "whether the call was done is not known",
        })
    }
}

/// Why a call gave no reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// Without waiting nothing can be done now: no server is there, or none takes another call, or no
    /// reply is there yet.
    Full,
    /// The time is over. The server is told that nobody waits any more.
    TimedOut {
        /// What is known of the call.
        progress: Progress,
    },
    /// The [`cancel`](crate::Options#structfield.cancel) descriptor became readable. The call may have
    /// been made.
    Interrupted,
    /// The request is larger than somebody on the way takes. It was not sent.
    TooLarge {
        /// Bytes of the request.
        len_bytes: usize,
        /// The limit, in bytes.
        limit_bytes: usize,
        /// Whose limit it is, and how to change it.
        limit: String,
    },
    /// The request has no encoding.
    Encoding(EncodingError),
    /// The server says that it failed, and how.
    Status(Status),
    /// The server died or went, and no other was there to call.
    ServerGone {
        /// What is known of it: its process id and name.
        peer: String,
        /// What is known of the call.
        progress: Progress,
    },
    /// The server broke the protocol; its connection is closed.
    PeerMisbehaved {
        /// What is known of it.
        peer: String,
        /// What it did.
        problem: String,
        /// What is known of the call.
        progress: Progress,
    },
    /// The reply is not of the expected type, or comes in parts where one was expected.
    BadReply {
        /// Why.
        problem: EncodingError,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The endpoint cannot go on.
    Failed(Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("not now: no server takes a call, or no reply is there"),
            Self::TimedOut { progress } => write!(f, "no reply in time; {progress}"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::TooLarge { len_bytes, limit_bytes, limit } => {
                write!(f, "a request of {len_bytes} bytes; at most {limit_bytes} fit: {limit}")
            }
            Self::Encoding(error) => error.fmt(f),
            Self::Status(status) => write!(f, "the server failed: {status}"),
            Self::ServerGone { peer, progress } => write!(f, "{peer} is gone; {progress}"),
            Self::PeerMisbehaved { peer, problem, progress } => {
                write!(f, "{peer} misbehaved: {problem}; {progress}")
            }
            Self::BadReply { problem, bytes } => {
                write!(f, "a reply of {} bytes is not what was expected: {problem}", bytes.len())
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Encoding(error) | Self::BadReply { problem: error, .. } => Some(error),
            Self::Status(status) => Some(status),
            _ => None,
        }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Interrupted => Self::Interrupted,
            SendError::TooLarge { len_bytes, limit_bytes, limit } => {
                Self::TooLarge { len_bytes, limit_bytes, limit }
            }
            SendError::Encoding(error) => Self::Encoding(error),
            SendError::Failed(error) => Self::Failed(error),
            SendError::PeerMisbehaved(problem) => Self::PeerMisbehaved {
                peer: "the server".to_owned(),
                problem,
                progress: Progress::Unknown,
            },
            SendError::PeerDied { .. } => {
                Self::ServerGone { peer: "the server".to_owned(), progress: Progress::Unknown }
            }
            _ => Self::Full,
        }
    }
}

/// How a call stands, as its server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallState {
    /// Its client waits for the reply.
    Wanted,
    /// Its client waits no more.
    Cancelled,
    /// Its client's time is over.
    DeadlinePassed,
    /// Its client died, or left.
    ClientGone,
}

/// Why a reply, or a part of one, went nowhere. The call is over, but after `Full`, `TooLarge` and `Encoding`
/// of a part.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplyError {
    /// The client takes no further part now: it has not taken those that were sent.
    Full,
    /// The client waits for this call no more.
    Cancelled,
    /// The client died, or left.
    ClientGone,
    /// Larger than somebody on the way takes. The client is told that the call failed.
    TooLarge {
        /// Bytes of the reply.
        len_bytes: usize,
        /// The limit, in bytes.
        limit_bytes: usize,
        /// Whose limit it is, and how to change it.
        limit: String,
    },
    /// The reply has no encoding. The client is told that the call failed.
    Encoding(EncodingError),
    /// The [`cancel`](crate::Options#structfield.cancel) descriptor became readable.
    Interrupted,
    /// The endpoint cannot go on.
    Failed(Error),
}

impl ReplyError {
    pub(crate) fn too_large(error: SendError) -> Self {
        match error {
            SendError::TooLarge { len_bytes, limit_bytes, limit } => {
                Self::TooLarge { len_bytes, limit_bytes, limit }
            }
            _ => Self::Full,
        }
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("not sent in time: the client takes no more now"),
            Self::Cancelled => f.write_str("the client waits for this call no more"),
            Self::ClientGone => f.write_str("the client is gone"),
            Self::TooLarge { len_bytes, limit_bytes, limit } => {
                write!(f, "a reply of {len_bytes} bytes; at most {limit_bytes} fit: {limit}")
            }
            Self::Encoding(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Encoding(error) => Some(error),
            _ => None,
        }
    }
}
