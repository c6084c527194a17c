//! Files to be mapped: made with their space, and looked at before they are.
//!
//! Source: `fallocate(2)`, `fstat(2)`, `lseek(2)` (`SEEK_DATA`), `statfs(2)`, `statvfs(3)`, `fcntl(2)` ("File sealing"), `ftruncate(2)`,
//! `sync_file_range(2)`.

#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::Resource;

use super::page_bytes;
use crate::error::{Error, OfCall, Result, last_errno};
use crate::hidden_name::Place;
use crate::io::retry;
use crate::permissions::Permissions;

/// `open(path, O_CREAT | O_EXCL)`, with size, owner and mode as given before anybody can see the
/// name, and the space [reserved](reserve). Open for reading and writing, close-on-exec.
///
/// It is made under a random hidden name in the same folder, and renamed without replacing anything.
/// Nothing is left behind on failure. The umask does not apply.
///
/// # Errors
/// `EEXIST`: the name is taken; `ENOENT`: no such folder, or `/proc` is not mounted; `EACCES`,
/// `EROFS`: the folder cannot be written; `EPERM`: no right to give it that owner or group;
/// `EINVAL`: the path has no last part, or the file system cannot rename without replacing (NFS);
/// else as [`reserve`].
pub fn create_file(path: &Path, len: u64, permissions: Permissions) -> Result<OwnedFd> {
    let place = Place::of(path, OFlags::PATH)?;
    let mut hidden = place.hidden()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    let fd = retry("open", || rustix::fs::openat(place.folder(), hidden.name(), flags, private))?;
    hidden.made();
    reserve(&fd, len)?;
    hidden.set_permissions(FileType::RegularFile, permissions)?;
    hidden.show()?;
    Ok(fd)
}

/// `fallocate(fd, 0, len)`, as `posix_fallocate(3)` does: makes the file at least this long, with
/// its space reserved, so that no write to a mapping of it meets a full file system.
///
/// Blocks until that is done: it writes no zeroes where the file system can do without.
///
/// # Errors
/// `ENOSPC`, `EDQUOT`: no room, and nothing changed; `EFBIG`: over `RLIMIT_FSIZE` (no `SIGXFSZ` is
/// sent), or more than the file system can; `EINVAL`: a length of 0; `EBADF`: not open for writing;
/// `EPERM`: sealed; `ENODEV`, `ESPIPE`: not a file; `EOPNOTSUPP`: a file system that cannot.
pub fn reserve(fd: impl AsFd, len: u64) -> Result<()> {
    check_file_limit("fallocate", len)?;
    let fd = fd.as_fd();
    retry("fallocate", || rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len))
}

/// `fallocate(fd, FALLOC_FL_PUNCH_HOLE, offset, len)`: gives the space of a part of a file back, which reads as zeroes. The
/// length stays. Some file systems keep what a [reservation](reserve) got that then failed.
///
/// # Errors
/// `EOPNOTSUPP`: a file system that cannot; `EBADF`: not open for writing; `EPERM`: sealed.
pub fn give_back(fd: impl AsFd, offset: u64, len: u64) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let fd = fd.as_fd();
    retry("fallocate", || rustix::fs::fallocate(fd, flags, offset, len))
}

/// `fstatvfs(fd)`: bytes that the file system of a file has left, for whoever is not privileged.
///
/// # Errors
/// `ENOSYS`: a file system that does not say; `EIO`.
pub fn free_bytes(fd: impl AsFd) -> Result<u64> {
    let found = rustix::fs::fstatvfs(fd).of("fstatvfs")?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// `ftruncate(fd, len)`: sets the length of a file. What is added reads as zeroes and has no space
/// reserved; see [`reserve`].
///
/// # Errors
/// `EFBIG`: over `RLIMIT_FSIZE` (no `SIGXFSZ` is sent), or more than the file system can; `EINVAL`: not
/// a file, or not open for writing; `EPERM`: sealed.
pub fn set_len(fd: impl AsFd, len: u64) -> Result<()> {
    check_file_limit("ftruncate", len)?;
    let fd = fd.as_fd();
    retry("ftruncate", || rustix::fs::ftruncate(fd, len))
}

/// `sync_file_range(fd, offset, len, SYNC_FILE_RANGE_WRITE)`: starts writing changed pages to the disk
/// and does not wait for them. It promises nothing about a power cut.
///
/// # Errors
/// `EIO`, `ENOSPC`: writing failed; `ESPIPE`: not a file.
pub fn start_write_back(fd: impl AsFd, offset: u64, len: u64) -> Result<()> {
    sync_file_range(fd.as_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
}

/// `sync_file_range(fd, offset, len, SYNC_FILE_RANGE_WAIT_BEFORE)`: waits until what is being written was. It promises
/// nothing about a power cut.
///
/// # Errors
/// `EIO`, `ENOSPC`: writing failed; `ESPIPE`: not a file.
pub fn wait_for_write_back(fd: impl AsFd, offset: u64, len: u64) -> Result<()> {
    sync_file_range(fd.as_fd(), offset, len, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

fn sync_file_range(fd: BorrowedFd<'_>, offset: u64, len: u64, what: libc::c_uint) -> Result<()> {
    let fd = fd.as_raw_fd();
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
        return Err(Error::new("sync_file_range", Errno::INVAL));
    };
    retry("sync_file_range", || {
        // SAFETY: the descriptor is borrowed for the call, which touches no memory of this process.
        match unsafe { libc::sync_file_range(fd, offset, len, what) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    })
}

/// Whether a file ends before a page.
pub(super) fn is_cut(fd: BorrowedFd<'_>, page: u64) -> bool {
    let len = rustix::fs::fstat(fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
    len <= page
}

/// Whether a file has nothing in a page.
pub(super) fn is_hole(fd: BorrowedFd<'_>, page: u64, bytes: u64) -> bool {
    let Ok(position) = rustix::fs::tell(fd) else { return false };
    let data = rustix::fs::seek(fd, SeekFrom::Data(page));
    let _ = rustix::fs::seek(fd, SeekFrom::Start(position));
    match data {
        Ok(data) => data >= page + bytes,
        Err(errno) => errno == Errno::NXIO,
    }
}

/// `lseek(fd, SEEK_DATA)`, `lseek(fd, SEEK_HOLE)`: the next part of a file, from a place on, that is no hole; `None` where
/// there is none. To look at a hole through a mapping takes room, on a tmpfs.
///
/// Moves the position of the descriptor. A file system that knows no holes says that there are none.
///
/// # Errors
/// `EINVAL`: a place beyond what a file can have; `ESPIPE`: not a file.
pub fn next_data(fd: impl AsFd, from: u64) -> Result<Option<Range<u64>>> {
    let fd = fd.as_fd();
    let start = match rustix::fs::seek(fd, SeekFrom::Data(from)) {
        Err(Errno::NXIO) => return Ok(None),
        start => start.of("lseek")?,
    };
    let end = rustix::fs::seek(fd, SeekFrom::Hole(start)).of("lseek")?;
    Ok(Some(start..end.max(start + 1)))
}

/// Refuses a length over `RLIMIT_FSIZE`, for which the kernel would send `SIGXFSZ`.
pub(crate) fn check_file_limit(call: &'static str, len: u64) -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| len > limit) { Err(Error::new(call, Errno::FBIG)) } else { Ok(()) }
}

/// A part of a file, or without a length the whole: how long it is, and the size of its pages.
/// Refuses a part that the file does not have.
pub(super) fn check_part(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: Option<usize>,
) -> Result<(usize, usize)> {
    let stat = rustix::fs::fstat(fd).of("fstat")?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let whole = || usize::try_from(size).map_err(|_| Error::new("mmap", Errno::NOMEM));
    let len = len.map_or_else(whole, Ok)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok((len, page_bytes()));
    }
    let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
    if end.is_none_or(|end| end > size) {
        return Err(Error::new("mmap", Errno::INVAL));
    }
    // Of a huge-page file, the block is the page; other files may have large blocks too.
    let block = usize::try_from(stat.st_blksize).unwrap_or(0);
    if block > page_bytes() && rustix::fs::fstatfs(fd).of("fstatfs")?.f_type == HUGETLBFS_MAGIC {
        return Ok((len, block));
    }
    Ok((len, page_bytes()))
}

/// From `linux/magic.h`.
const HUGETLBFS_MAGIC: rustix::fs::FsWord = 0x9584_58f6;

/// Whether no page of it can ever be missing, because it is sealed.
pub(super) fn cannot_shrink(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}
