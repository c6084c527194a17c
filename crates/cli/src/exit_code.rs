//! Exit codes: what a script can tell from how the command ended.

use std::error::Error as _;
use std::process::ExitCode;

use switchboard::{Error, ErrorKind};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, completely.
    Done,
    /// Failed, or interrupted: standard error says what was done and what was not.
    Failed,
    /// The command line or the address is wrong, or they do not fit each other.
    Usage,
    /// Nothing is there, or the time was over.
    Nothing,
    /// A problem was found, by a command that looks for problems.
    Found,
    /// Refused: by owner and mode, or by policy.
    Refused,
    /// The code of a program that was run, or one that the command line asked for.
    Given(u8),
}

impl Exit {
    /// How a command ends that this kept from going on.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::BadAddress => Self::Usage,
            // No address of that kind can do it, here or anywhere. What this system cannot do, it said itself.
            ErrorKind::NotSupported if error.source().is_none() => Self::Usage,
            ErrorKind::NotFound => Self::Nothing,
            ErrorKind::PermissionDenied => Self::Refused,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Nothing => 3,
            Exit::Found => 4,
            Exit::Refused => 5,
            Exit::Given(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::from(exit))
    }
}

/// The codes as `--help` shows them.
pub(crate) const HELP: &str = "  0  done
  1  failed or interrupted; standard error says what was done and what was not
  2  the command line or an address is wrong, or cannot do this
  3  nothing there, or the time was over
  4  a problem was found
  5  refused: by owner and mode, or by policy";
