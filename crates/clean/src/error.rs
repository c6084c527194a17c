//! Why something could not be done, in words, and what a caller can tell from it.
//!
//! Source: docs/design/clean.md.

use std::fmt;

/// The result of what this crate does.
pub type Result<T> = core::result::Result<T, Error>;

/// What kept an object where it is, or from coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody uses it.
    InUse,
    /// It was used or made a moment ago.
    Young,
    /// It is not what it was when it was looked at.
    Changed,
    /// It is gone.
    Gone,
    /// It is another user's, or the kernel refuses.
    Refused,
    /// It cannot be removed here: of another kind, or in another namespace.
    Elsewhere,
    /// It does not fit into the journal.
    TooLarge,
    /// Whether somebody uses it cannot be seen.
    Unseen,
    /// Something has its name already.
    Exists,
    /// The journal is damaged there.
    Damaged,
    /// A system call failed.
    Failed,
}

/// Why, and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    reason: Reason,
    text: String,
}

impl Error {
    /// One with its words.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// What a caller can tell from it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// A system call that failed while something was done.
    pub(crate) fn call(doing: &str, error: impl Into<switchboard_kernel::Error>) -> Self {
        let error = error.into();
        let reason = match error.name() {
            "EACCES" | "EPERM" => Reason::Refused,
            "ENOENT" | "EIDRM" => Reason::Gone,
            "EEXIST" => Reason::Exists,
            _ => Reason::Failed,
        };
        Self::new(reason, format!("{doing}: {error}"))
    }

    /// As [`Error::call`], of a bare error number.
    pub(crate) fn errno(doing: &str, call: &'static str, errno: rustix::io::Errno) -> Self {
        Self::call(doing, switchboard_kernel::Error::from_raw(call, errno.raw_os_error()))
    }

    /// As [`Error::call`], of the standard library's.
    pub(crate) fn io(doing: &str, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Reason::Refused,
            std::io::ErrorKind::NotFound => Reason::Gone,
            std::io::ErrorKind::AlreadyExists => Reason::Exists,
            _ => Reason::Failed,
        };
        Self::new(reason, format!("{doing}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
