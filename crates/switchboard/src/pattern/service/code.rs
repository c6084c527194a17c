//! What a server says instead of a reply. The codes are those of gRPC
//! (<https://grpc.io/docs/guides/status-codes/>), so that they mean the same across transports.

use std::fmt;

/// What kind of failure a server reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Code {
    /// The call was cancelled, usually by its client.
    Cancelled = 1,
    /// None of the others, or one that this side does not know.
    Unknown = 2,
    /// The request itself is wrong, whatever the state of the server.
    InvalidArgument = 3,
    /// The call's time was over before it could be done.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// What was to be made is there already.
    AlreadyExists = 6,
    /// This client may not do that.
    PermissionDenied = 7,
    /// A quota, or something else that there is only so much of, is used up.
    ResourceExhausted = 8,
    /// The server is not in the state that this needs; trying again does not help.
    FailedPrecondition = 9,
    /// It met with another call; begin again from the start.
    Aborted = 10,
    /// It goes beyond the end of something.
    OutOfRange = 11,
    /// The server does not do this.
    Unimplemented = 12,
    /// Something is broken in the server.
    Internal = 13,
    /// Not now; try again.
    Unavailable = 14,
    /// Data is lost for good.
    DataLoss = 15,
    /// It is not known who calls.
    Unauthenticated = 16,
}

const CODES: [(Code, &str); 16] = [
    (Code::Cancelled, "cancelled"),
    (Code::Unknown, "unknown"),
    (Code::InvalidArgument, "invalid-argument"),
    (Code::DeadlineExceeded, "deadline-exceeded"),
    (Code::NotFound, "not-found"),
    (Code::AlreadyExists, "already-exists"),
    (Code::PermissionDenied, "permission-denied"),
    (Code::ResourceExhausted, "resource-exhausted"),
    (Code::FailedPrecondition, "failed-precondition"),
    (Code::Aborted, "aborted"),
    (Code::OutOfRange, "out-of-range"),
    (Code::Unimplemented, "unimplemented"),
    (Code::Internal, "internal"),
    (Code::Unavailable, "unavailable"),
    (Code::DataLoss, "data-loss"),
    (Code::Unauthenticated, "unauthenticated"),
];

impl Code {
    /// Its name, as `not-found`.
    #[must_use]
    pub fn name(self) -> &'static str {
        CODES.iter().find(|(code, _)| *code == self).map_or("unknown", |(_, name)| name)
    }

    /// The code of this number; `Unknown` for one that has no meaning here.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        let found = CODES.iter().find(|(code, _)| *code as u16 == number);
        found.map_or(Self::Unknown, |(code, _)| *code)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a server gives no reply: a code, words for a person, and bytes for a program.
///
/// The words are cut after 1,024 bytes and the details after 4,096; control characters in the words are
/// replaced before a client sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What kind of failure.
    pub code: Code,
    /// For a person.
    pub message: String,
    /// For a program: whatever client and server agreed on.
    pub details: Vec<u8>,
}

impl Status {
    /// A status with these words.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// With bytes for a program.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Vec<u8>>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return self.code.fmt(f);
        }
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}
