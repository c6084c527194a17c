//! Folders in which several users put names: who has them, and making one with its group and mode from the
//! first moment.
//!
//! Source: `openat2(2)` (`RESOLVE_NO_SYMLINKS`), `mkdir(2)`, `renameat2(2)` (`RENAME_NOREPLACE`), `chmod(2)`
//! (the sticky bit), `inode(7)`.
//!
//! In a folder that others may write to, everybody can make names, and, unless it is *sticky*, remove those of
//! others. Here a folder is a descriptor: whatever happens to its name later, it stays the one that was looked at.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::hidden_name::{Place, known_id};
use crate::io::retry;
use crate::private_folder::check_name;

/// Whose a folder is, and who may do what in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission bits, with the sticky bit (`0o1000`).
    pub mode: u32,
}

impl Status {
    /// Whether nobody but its owner can take the names of others away: others do not write there, or it is
    /// sticky.
    #[must_use]
    pub fn keeps_names(self) -> bool {
        self.mode & 0o022 == 0 || self.mode & 0o1000 != 0
    }

    /// Whether its mode gives group or others anything.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.mode & 0o077 != 0
    }
}

/// `fstat()`: whose a folder is.
///
/// # Errors
/// None on Linux.
pub fn status(folder: impl AsFd) -> Result<Status> {
    let stat = rustix::fs::fstat(folder).of("fstat")?;
    Ok(Status { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 })
}

/// `openat2(parent, name, O_RDONLY | O_DIRECTORY, RESOLVE_NO_SYMLINKS)`: a folder, whosesoever it is.
/// Close-on-exec.
///
/// # Errors
/// `ENOENT`; `ENOTDIR`: no folder; `ELOOP`: a symbolic link; `EACCES`: no right to open it; `EINVAL`: not one
/// name; `EMFILE`, `ENFILE`.
pub fn open_at(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    check_name("openat2", name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    retry("openat2", || rustix::fs::openat2(&parent, name, flags, Mode::empty(), resolve))
}

/// `mkdirat()` under a hidden name, `fchown()`, `fchmod()`, `renameat2(RENAME_NOREPLACE)`: a folder that has
/// its group and mode when its name is there; as [`open_at`] if somebody made it before.
///
/// # Errors
/// As [`open_at`]; `EPERM`: this user is not in the group; `EACCES`, `EROFS`: the parent cannot be written;
/// `ENOENT`: it was removed; `ENOSPC`, `EDQUOT`; `ENAMETOOLONG`.
///
/// ```
/// use std::ffi::OsStr;
/// use switchboard_kernel::shared_folder;
///
/// # let scratch = tempfile::tempdir()?;
/// # let path = scratch.path();
/// let parent = std::fs::File::open(path)?;
/// let folder = shared_folder::make_at(&parent, OsStr::new("ours"), 0o1777, None)?;
/// assert!(shared_folder::status(&folder)?.keeps_names());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn make_at(parent: impl AsFd, name: &OsStr, mode: u32, group: Option<u32>) -> Result<OwnedFd> {
    check_name("mkdirat", name)?;
    match open_at(&parent, name) {
        Err(error) if error.name() == "ENOENT" => {}
        found => return found,
    }
    let place = Place::within(parent.as_fd(), name)?;
    let hidden = place.hidden()?;
    rustix::fs::mkdirat(place.folder(), hidden.name(), Mode::RWXU).of("mkdirat")?;
    let remove = || {
        let flags = rustix::fs::AtFlags::REMOVEDIR;
        let _ = rustix::fs::unlinkat(place.folder(), hidden.name(), flags);
    };
    let made = open_at(place.folder(), hidden.name()).and_then(|folder| {
        set(&folder, mode, group)?;
        Ok(folder)
    });
    let folder = made.inspect_err(|_| remove())?;
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(place.folder(), hidden.name(), place.folder(), name, flags) {
        Ok(()) => Ok(folder),
        Err(errno) => {
            remove();
            if errno == Errno::EXIST {
                open_at(parent, name)
            } else {
                Err(Error::new("renameat2", errno))
            }
        }
    }
}

/// `fchown()`, `fchmod()`: group and mode of a folder of this user's.
///
/// # Errors
/// `EPERM`: it is another user's, or this one is not in the group.
pub fn set(folder: impl AsFd, mode: u32, group: Option<u32>) -> Result<()> {
    if let Some(group) = group {
        let group = Some(Gid::from_raw(known_id(group)?));
        rustix::fs::fchown(&folder, None, group).of("fchown")?;
    }
    rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode & 0o1777)).of("fchmod")
}
