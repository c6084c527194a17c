//! Removing the name that a dead process's socket left behind, and never a live one's.
//!
//! Source: `unix(7)`, `connect(2)` (`ECONNREFUSED`), `flock(2)`, `renameat2(2)`.
//!
//! That a socket is dead is a fact about an inode, and it stays true: no process can bind to an
//! inode that exists. But it is a *name* that gets removed, and between looking and removing, the
//! name may come to mean a new, live socket. So the inode is held open, the name is moved aside, and
//! what was moved is removed only if it is that inode. Removers in one folder take turns (`flock` on
//! the folder, which the kernel releases when they die), so that among them nothing live is ever
//! moved aside, not even for a moment.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Kind, address, socket};
use crate::error::{Error, OfCall, Result};
use crate::hidden_name::{Hidden, Place, descriptor_path};
use crate::io::{Deadline, retry};

/// How long to wait for another process that is removing a name in the same folder.
const TURN: Duration = Duration::from_secs(2);

/// Removes `path` if it is a socket of this kind that nobody has open any more. `true`: the name is
/// free now, or was before; `false`: somebody is there.
///
/// A listener that is alive sees a connection that closes at once; a datagram socket sees nothing. A
/// stream or seqpacket that is bound and does not listen yet counts as dead: see
/// [`super::listen_at`]. A dead socket's name is free after this; binding to it may still find that
/// somebody else was quicker.
///
/// Blocks up to two seconds while other processes remove names in the same folder.
///
/// # Errors
/// `EEXIST`: the name is not a socket's; `EACCES`: no right to connect to it, so nothing was found
/// out; `EACCES`, `EPERM`, `EROFS`: no right to remove it; `EAGAIN`: somebody else keeps the folder
/// locked; `ENOENT`: no such folder, or `/proc` is not mounted.
pub fn remove_stale(path: &Path, kind: Kind) -> Result<bool> {
    let place = open_place(path)?;
    let _turn = Turn::take(place.folder())?;
    let Some(object) = open_object(&place)? else { return Ok(true) };
    let stat = rustix::fs::fstat(&object).of("fstat")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::new("connect", Errno::EXIST));
    }
    if is_alive(&object, kind)? {
        return Ok(false);
    }
    remove_object(place.hidden()?, &stat)
}

/// The folder, in the way that can be locked if it may be read.
fn open_place(path: &Path) -> Result<Place> {
    match Place::of(path, OFlags::RDONLY) {
        Err(error) if error.errno() == libc::EACCES => Place::of(path, OFlags::PATH),
        result => result,
    }
}

/// What has the name, whatever it is; none if nothing has.
fn open_object(place: &Place) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(place.folder(), place.name(), flags, Mode::empty()) {
        Ok(object) => Ok(Some(object)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::new("openat", errno)),
    }
}

/// Whether any process has the socket of this inode. In doubt, yes.
fn is_alive(object: &OwnedFd, kind: Kind) -> Result<bool> {
    let name = address::of_path(&descriptor_path(object.as_fd()))?;
    let probe = socket(kind, true)?;
    match retry("connect", || rustix::net::connect(&probe, &name)) {
        Ok(()) => Ok(true),
        Err(error) => match error.errno() {
            libc::ECONNREFUSED => Ok(false),
            // The backlog is full; it is another kind of socket, or one that has its peer already.
            libc::EAGAIN | libc::EPROTOTYPE | libc::EPERM => Ok(true),
            _ => Err(error),
        },
    }
}

/// Moves aside what has the name now, and removes it if it is the dead inode.
fn remove_object(mut hidden: Hidden<'_>, dead: &Stat) -> Result<bool> {
    match hidden.take_away() {
        Err(error) if error.errno() == libc::ENOENT => return Ok(true),
        result => result?,
    }
    let folder = hidden.place().folder();
    let moved = rustix::fs::statat(folder, hidden.name(), AtFlags::SYMLINK_NOFOLLOW);
    if moved.is_ok_and(|moved| (moved.st_dev, moved.st_ino) == (dead.st_dev, dead.st_ino)) {
        return Ok(true);
    }
    // Somebody who does not take turns was quicker: give the name back.
    match hidden.show_or_keep() {
        Err(error) if error.errno() == libc::ENOENT => Ok(true),
        result => result.map(|()| false),
    }
}

/// This process's turn at removing names in a folder. Folders that cannot be locked go without.
struct Turn<'a>(Option<BorrowedFd<'a>>);

impl<'a> Turn<'a> {
    fn take(folder: BorrowedFd<'a>) -> Result<Self> {
        let deadline = Deadline::after(TURN);
        loop {
            let lock = FlockOperation::NonBlockingLockExclusive;
            match retry("flock", || rustix::fs::flock(folder, lock)) {
                Ok(()) => return Ok(Self(Some(folder))),
                Err(error) if error.errno() != libc::EAGAIN => return Ok(Self(None)),
                Err(error) if deadline.passed() => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(folder) = self.0 {
            let _ = rustix::fs::flock(folder, FlockOperation::Unlock);
        }
    }
}
