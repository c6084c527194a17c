//! FIFOs: pipes with a name in the file system.
//!
//! Source: `fifo(7)`, `mkfifo(3)`, `open(2)`, `renameat2(2)`.
//!
//! Once open, a FIFO is a pipe: see [`crate::pipe`] for its capacity and for what happens when the
//! other side dies, and [`crate::io`] for reading and writing. The name outlives every process; the
//! content does not: it is gone when the last descriptor is closed.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::hidden_name::Place;
use crate::io::retry;
use crate::permissions::Permissions;

/// `mkfifo(path)`, with owner and mode as given before anybody can see the name.
///
/// It is made under a random hidden name in the same folder, and renamed without replacing anything.
/// Nothing is left behind on failure. In a set-group-ID folder the group is the folder's, unless
/// `permissions` names one.
///
/// # Errors
/// `EEXIST`: the name is taken; `ENOENT`: no such folder, or `/proc` is not mounted; `EACCES`,
/// `EROFS`: the folder cannot be written; `EPERM`: no right to give it that owner or group;
/// `EINVAL`: the path has no last part, or the file system cannot rename without replacing (NFS).
///
/// # Limits
/// A name has at most 255 bytes.
///
/// ```no_run
/// use std::path::Path;
/// use switchboard_kernel::{Permissions, fifo};
///
/// fifo::create(Path::new("/run/app/orders"), Permissions::new().mode(0o640))?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
pub fn create(path: &Path, permissions: Permissions) -> Result<()> {
    let place = Place::of(path, OFlags::PATH)?;
    let mut hidden = place.hidden()?;
    let private = Mode::RUSR | Mode::WUSR;
    rustix::fs::mkfifoat(place.folder(), hidden.name(), private).of("mkfifo")?;
    hidden.made();
    hidden.set_permissions(FileType::Fifo, permissions)?;
    hidden.show()
}

/// `open(path, O_RDONLY | O_NONBLOCK)`: the reading end, at once, whether or not there is a writer.
///
/// Stays non-blocking: while a writer is there an empty FIFO gives `EAGAIN`, and without one it
/// reads as at end of file (0 bytes), also before the first writer came. `poll` tells the two apart:
/// it reports a hang-up only after a writer has come and gone.
///
/// # Errors
/// `ENOENT`: no such name; `EACCES`; `ELOOP`: a symbolic link; `EINVAL`: not a FIFO.
pub fn open_reader(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK)
}

/// `open(path, O_WRONLY | O_NONBLOCK)`: the writing end, if somebody has the reading end open.
///
/// Stays non-blocking. Writing gives `EAGAIN` when it is full, `EPIPE` when the last reader is gone.
///
/// # Errors
/// `ENXIO`: nobody reads it now; else as [`open_reader`].
pub fn open_writer(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::WRONLY | OFlags::NONBLOCK)
}

/// `open(path, O_RDONLY)`: the reading end. Blocks until there is a writer, and so does reading.
///
/// # Errors
/// As [`open_reader`].
pub fn open_reader_blocking(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY)
}

/// `open(path, O_WRONLY)`: the writing end. Blocks until there is a reader; writing blocks while it
/// is full.
///
/// # Errors
/// As [`open_reader`].
pub fn open_writer_blocking(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::WRONLY)
}

/// `lstat(path)`: whether the name is that of a FIFO. A symbolic link to one is not.
///
/// # Errors
/// `ENOENT`, `EACCES`, `ENOTDIR`.
pub fn is_fifo(path: &Path) -> Result<bool> {
    let stat = rustix::fs::lstat(path).of("lstat")?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// `unlink(path)`, refused for what is not a FIFO. Whoever has it open keeps it.
///
/// The check comes first, so it guards against a wrong path, not against somebody else who may
/// write in the folder and swaps the name in between.
///
/// # Errors
/// `EINVAL`: not a FIFO; `ENOENT`; `EACCES`, `EPERM`: no right to remove it.
pub fn unlink(path: &Path) -> Result<()> {
    let place = Place::of(path, OFlags::PATH)?;
    if place.file_type()? != FileType::Fifo {
        return Err(Error::new("unlink", Errno::INVAL));
    }
    place.unlink()
}

fn open(path: &Path, access: OFlags) -> Result<OwnedFd> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let fd = retry("open", || rustix::fs::open(path, flags, Mode::empty()))?;
    if !crate::pipe::is_pipe(&fd) {
        return Err(Error::new("open", Errno::INVAL));
    }
    Ok(fd)
}
