//! Exit codes: what a script can tell from how the command ended.
//!
//! 4 is kept for commands that look for problems and find one.

use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, completely.
    Done = 0,
    /// Failed, or interrupted: standard error says what was done and what was not.
    Failed = 1,
    /// The command line or the address is wrong.
    Usage = 2,
    /// Nothing is there, or the time was over.
    Nothing = 3,
    /// Refused: by owner and mode, or by policy.
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The codes as `--help` shows them.
pub(crate) const HELP: &str = "  0  done
  1  failed or interrupted; standard error says what was done and what was not
  2  the command line or an address is wrong
  3  nothing there, or the time was over
  4  a problem was found
  5  refused: by owner and mode, or by policy";
