//! Whether a descriptor that another process gave is memory that cannot be taken away or changed
//! behind one's back.
//!
//! Source: `fcntl(2)` (`F_GETFL`, "File sealing"), `fstat(2)`, `statfs(2)`.

use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::PAGE_BYTES;
use crate::error::{Error, OfCall, Result};
use crate::memfd::Seals;

/// As [`check_sealed`], of a descriptor that is not open for writing. Returns the size, in bytes.
pub(super) fn check_memory(
    fd: &OwnedFd,
    seals: Seals,
    sizes: RangeInclusive<usize>,
) -> Result<usize> {
    let flags = rustix::fs::fcntl_getfl(fd).of("fcntl F_GETFL")?;
    if flags & OFlags::ACCMODE != OFlags::RDONLY {
        return Err(Error::new("fcntl F_GETFL", Errno::ACCESS));
    }
    check_sealed(fd, seals, sizes)
}

/// That it has exactly these seals, a size within these, and memory for all of it. Returns the size.
///
/// The order matters: what is found after the seals were seen stays so. (A doorbell's memory may be
/// given back by whoever writes it; a touch brings it back, zero.)
pub(super) fn check_sealed(
    fd: &OwnedFd,
    seals: Seals,
    sizes: RangeInclusive<usize>,
) -> Result<usize> {
    let found = Seals::from_flags(rustix::fs::fcntl_get_seals(fd).of("fcntl F_GET_SEALS")?);
    if found | Seals::EXEC != seals | Seals::EXEC {
        return Err(Error::new("fcntl F_GET_SEALS", Errno::PERM));
    }
    let stat = rustix::fs::fstat(fd).of("fstat")?;
    let len_bytes = usize::try_from(stat.st_size).ok();
    let len_bytes = len_bytes
        .filter(|len| sizes.contains(len) && *len > 0 && len.is_multiple_of(PAGE_BYTES))
        .ok_or(Error::new("fstat st_size", Errno::INVAL))?;
    // Huge pages would have to be mapped whole. (Transparent ones are not meant.)
    if rustix::fs::fstatfs(fd.as_fd()).of("fstatfs")?.f_type != TMPFS_MAGIC {
        return Err(Error::new("fstatfs", Errno::INVAL));
    }
    // Blocks are 512 bytes. There may be more of them than bytes: pages beyond the end, or huge ones.
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    if blocks.saturating_mul(512) < len_bytes as u64 {
        return Err(Error::new("fstat st_blocks", Errno::NODATA));
    }
    Ok(len_bytes)
}

/// From `linux/magic.h`: what memory files are made in.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
