//! Owner, group and mode of an object, applied before its name can be seen by anybody else.
//!
//! Source: `chmod(2)`, `chown(2)`, `umask(2)`, `renameat2(2)`.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Mode, Uid};

use crate::error::{OfCall, Result};
use crate::hidden_name::known_id;

/// Who owns a new object and who may open it.
///
/// The default is mode `0600` and the caller's own user and group: nobody else may open it. The
/// process's umask is never consulted: the mode given is the mode set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permissions {
    /// Permission bits, `0o600` unless said otherwise.
    pub mode: u32,
    /// Owner's numeric id; the caller's unless set. Setting another needs `CAP_CHOWN`.
    pub owner: Option<u32>,
    /// Group's numeric id; the caller's unless set. A group the caller is in needs no privilege.
    pub group: Option<u32>,
}

impl Default for Permissions {
    fn default() -> Self {
        Self { mode: 0o600, owner: None, group: None }
    }
}

impl Permissions {
    /// Mode `0600`, the caller's own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the permission bits (`0o640`). Bits above `0o777` are dropped.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Sets the owner.
    #[must_use]
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Sets the group.
    #[must_use]
    pub fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// `fchown()`, `fchmod()`: of a file that nobody else can find yet.
    pub(crate) fn apply(self, fd: impl AsFd) -> Result<()> {
        if self.owner.is_some() || self.group.is_some() {
            let owner = self.owner.map(known_id).transpose()?.map(Uid::from_raw);
            let group = self.group.map(known_id).transpose()?.map(Gid::from_raw);
            rustix::fs::fchown(&fd, owner, group).of("fchown")?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(self.mode)).of("fchmod")
    }

    /// The mode to create an object with whose owner and group are set afterwards: never more than
    /// what the final owner, group and mode allow, whoever looks in between.
    pub(crate) fn initial_mode(self) -> u32 {
        match (self.owner, self.group) {
            (None, None) => self.mode,
            (None, Some(_)) => self.mode & 0o700,
            (Some(_), _) => 0,
        }
    }
}
