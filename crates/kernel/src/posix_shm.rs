//! POSIX shared memory: files in memory with a name, in `/dev/shm`.
//!
//! Source: `shm_overview(7)`, `shm_open(3)`, `tmpfs(5)`, `open(2)` (`O_TMPFILE`), `linkat(2)`.
//!
//! A segment outlives the processes that use it, until [`unlink`] or a reboot. The death of a
//! process changes nothing in it and nobody is told: what it wrote stays.
//!
//! Any user may make a name in `/dev/shm`, so whoever comes first has it: look at
//! [`Status::owner`] before trusting what was opened. Names that begin with `/sem.` are those of
//! POSIX semaphores.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, OFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::hidden_name::descriptor_path;
use crate::io::retry;
use crate::mmap::{Mapping, Mode, reserve};
use crate::permissions::Permissions;
use crate::posix_mq;

/// What a descriptor of a segment may do, and with it the mappings made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `O_RDONLY`.
    ReadOnly,
    /// `O_RDWR`.
    ReadWrite,
}

/// An open segment. Closing it (dropping) leaves its mappings, its name and its content in place.
///
/// ```
/// use switchboard_kernel::Permissions;
/// use switchboard_kernel::mmap::Mode;
/// use switchboard_kernel::posix_shm::{Access, Segment, unlink};
///
/// let name = format!("/example-{}", std::process::id());
/// let made = Segment::create(&name, 4096, Permissions::new().mode(0o640))?;
/// made.map(Mode::ReadWrite)?.write_at(0, b"hello")?;
///
/// let mut found = [0; 5];
/// Segment::open(&name, Access::ReadOnly)?.map(Mode::ReadOnly)?.read_at(0, &mut found)?;
/// assert_eq!(&found, b"hello");
/// unlink(&name)?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// | what | set by | beyond it |
/// |---|---|---|
/// | bytes of all segments | the `size` of the tmpfs at `/dev/shm`: half of the memory, unless mounted otherwise | `ENOSPC` |
/// | segments | its `nr_inodes` | `ENOSPC` |
/// | bytes of a segment | `RLIMIT_FSIZE` of who makes it | `EFBIG` |
/// | bytes of a name | 255 after the slash | `ENAMETOOLONG` |
#[derive(Debug)]
pub struct Segment(OwnedFd);

/// A segment's size and permissions, from `fstat(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Its size in bytes. 0 is possible: other programs give theirs a size after the name.
    pub len_bytes: u64,
    /// The owner's user id.
    pub owner: u32,
    /// The owning group's id.
    pub group: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Segment {
    /// `open(O_TMPFILE)`, `fallocate(2)`, `fchown(2)`, `fchmod(2)`, `linkat(2)`: a new segment of
    /// zeroes, which has its size, owner and mode before anybody can see the name. The umask does
    /// not apply. Open for reading and writing, close-on-exec.
    ///
    /// The memory is reserved: a full `/dev/shm` is an error here, and no `SIGBUS` later. If the
    /// process is killed in between, nothing is left behind.
    ///
    /// # Errors
    /// `EEXIST`: the name is taken; `EINVAL`: a bad name (as [`posix_mq::validate_name`] says), or
    /// a length of 0; `ENAMETOOLONG`; `ENOSPC`, `EFBIG`: over a limit; `EPERM`: no right to give it
    /// that owner or group; `ENOENT`: no `/dev/shm`, or `/proc` is not mounted; `EOPNOTSUPP`:
    /// `/dev/shm` is no tmpfs; `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn create(name: &str, len_bytes: u64, permissions: Permissions) -> Result<Self> {
        let name = file_name(name)?;
        let nobody = rustix::fs::Mode::empty();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(FOLDER, flags, nobody).of("open")?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = retry("shm_open", || rustix::fs::openat(&folder, c".", flags, nobody))?;
        reserve(&fd, len_bytes)?;
        permissions.apply(&fd)?;
        let unnamed = descriptor_path(fd.as_fd());
        rustix::fs::linkat(CWD, unnamed, folder, name, AtFlags::SYMLINK_FOLLOW).of("linkat")?;
        Ok(Self(fd))
    }

    /// `shm_open(name)`: opens an existing segment, close-on-exec.
    ///
    /// # Errors
    /// `ENOENT`: there is none; `EACCES`: its mode does not allow this access; `EINVAL`: a bad
    /// name, or what has it is no segment; `ELOOP`: a symbolic link; `ENAMETOOLONG`; `EMFILE`,
    /// `ENFILE`.
    pub fn open(name: &str, access: Access) -> Result<Self> {
        let path = path_of(name)?;
        let access = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = rustix::fs::Mode::empty();
        let fd = retry("shm_open", || rustix::fs::open(&path, flags, mode))?;
        let stat = rustix::fs::fstat(&fd).of("fstat")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new("shm_open", Errno::INVAL));
        }
        Ok(Self(fd))
    }

    /// `fstat()`: size and permissions.
    ///
    /// # Errors
    /// None on Linux.
    pub fn status(&self) -> Result<Status> {
        let stat = rustix::fs::fstat(&self.0).of("fstat")?;
        Ok(Status {
            len_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            owner: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o777,
        })
    }

    /// `mmap()`: all of it, as long as it is now.
    ///
    /// Whoever may write to the segment may also cut it short: see [`crate::mmap`] for how that
    /// is an error.
    ///
    /// # Errors
    /// `EINVAL`: its size is 0; `EACCES`: [`Mode::ReadWrite`] of one opened read-only; else as
    /// [`Mapping::of_file`].
    pub fn map(&self, mode: Mode) -> Result<Mapping> {
        Mapping::of_whole(&self.0, mode)
    }

    /// `fallocate()`: makes it at least this long, with the memory reserved. Mappings stay as they
    /// are: [`Mapping::grow`] them.
    ///
    /// # Errors
    /// As [`reserve`].
    pub fn grow(&self, len_bytes: u64) -> Result<()> {
        reserve(&self.0, len_bytes)
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes over a segment's descriptor that was inherited or received.
impl From<OwnedFd> for Segment {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Segment> for OwnedFd {
    fn from(segment: Segment) -> Self {
        segment.0
    }
}

/// `shm_unlink(name)`: removes the name. The segment stays for those who have it open or mapped.
///
/// # Errors
/// `ENOENT`: there is none; `EPERM`, `EACCES`: it is another user's; `EINVAL`, `ENAMETOOLONG`: a
/// bad name.
pub fn unlink(name: &str) -> Result<()> {
    rustix::fs::unlink(path_of(name)?).of("shm_unlink")
}

/// What `/dev/shm` holds, for all segments of all users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that are free now.
    pub free_bytes: u64,
    /// Segments that can still be made.
    pub free_segments: u64,
}

/// `statvfs("/dev/shm")`: the limits.
///
/// # Errors
/// `ENOENT`: there is no `/dev/shm`.
pub fn limits() -> Result<Limits> {
    let found = rustix::fs::statvfs(FOLDER).of("statvfs")?;
    Ok(Limits {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        free_segments: found.f_favail,
    })
}

/// Where the C library has them.
const FOLDER: &str = "/dev/shm";

fn path_of(name: &str) -> Result<String> {
    Ok([FOLDER, "/", file_name(name)?].concat())
}

/// What a name is called in the folder: a name has one slash, at its start.
fn file_name(name: &str) -> Result<&str> {
    posix_mq::validate_name(name).map_err(|error| Error::from_raw("shm_open", error.errno()))?;
    Ok(&name[1..])
}
