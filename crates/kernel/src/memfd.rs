//! Memory without a name, in a descriptor that is passed to other processes, and seals that say what
//! nobody can do to it any more.
//!
//! Source: `memfd_create(2)`, `fcntl(2)` ("File sealing"), `hugetlbpage` in the kernel's
//! administration guide.
//!
//! It reaches another process by inheritance or over a Unix socket, and is freed when no process
//! has it open or mapped. The death of a process changes nothing in it and nobody is told.
//!
//! Seals are what makes it fit for a peer that is not trusted. Whoever receives one checks them
//! ([`Memfd::received`]): with [`Seals::SHRINK`] no read can meet a missing page, and with
//! [`Seals::WRITE`] what was checked once stays so.

mod seals;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::hidden_name::descriptor_path;
use crate::io::retry;
use crate::mmap::{Mapping, Mode, check_file_limit, reserve};

pub use seals::Seals;

/// An open memory file. Closing it (dropping) leaves its mappings in place.
///
/// ```
/// use switchboard_kernel::memfd::{Memfd, Seals};
/// use switchboard_kernel::mmap::Mode;
///
/// let memory = Memfd::create("picture", 1 << 20)?;
/// memory.add_seals(Seals::SHRINK | Seals::GROW)?;
/// let mapping = memory.map(Mode::ReadWrite)?;
/// mapping.write_at(0, b"pixels")?;
///
/// // What a receiver does with the descriptor that it got.
/// let received = Memfd::received(memory.reopen_read_only()?, Seals::SHRINK)?;
/// let mut found = [0; 6];
/// received.map(Mode::ReadOnly)?.read_at(0, &mut found)?;
/// assert_eq!(&found, b"pixels");
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// Bytes: memory and swap, and the memory limit of the control group, which does not refuse but
/// kills. Huge pages: those that `/proc/sys/vm/nr_hugepages` (or `hugepages-*kB/nr_hugepages` in
/// `/sys/kernel/mm/hugepages`) has set aside.
#[derive(Debug)]
pub struct Memfd(OwnedFd);

impl Memfd {
    /// `memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)`, `fchmod(0600)`,
    /// `fallocate(2)`: memory of this size, all zeroes, reserved.
    ///
    /// The name shows in `/proc/PID/fd` and `/proc/PID/maps`, and finds nothing. Before Linux 6.3
    /// there is no `MFD_NOEXEC_SEAL`, and it is left out. By its mode no other user can open it anew
    /// through `/proc/PID/fd`.
    ///
    /// # Errors
    /// `EINVAL`: a size of 0, or a name that is too long or has a NUL byte; `EFBIG`: over
    /// `RLIMIT_FSIZE`; `ENOMEM`, `ENOSPC`: no memory; `EMFILE`, `ENFILE`; `EACCES`: forbidden by
    /// `/proc/sys/vm/memfd_noexec`.
    ///
    /// # Limits
    /// A name has at most 249 bytes.
    pub fn create(name: &str, len_bytes: u64) -> Result<Self> {
        let memfd = create(name, MemfdFlags::empty())?;
        reserve(&memfd.0, len_bytes)?;
        Ok(memfd)
    }

    /// `memfd_create(MFD_HUGETLB)`, `ftruncate(2)`, `mmap(2)`: as [`Memfd::create`], of huge pages of
    /// this size, which [`huge_page_sizes`] lists. The length is a multiple of it.
    ///
    /// Huge pages are set aside by the administrator, and there are none by default. Mapping them
    /// once reserves them all, or none.
    ///
    /// # Errors
    /// `ENOMEM`: not so many huge pages are free; `EINVAL`: a crooked length, or no page size;
    /// `ENODEV`: this machine has no pages of that size; `ENOSYS`: the kernel has no huge pages;
    /// else as [`Memfd::create`].
    pub fn create_huge(name: &str, len_bytes: u64, page_bytes: u64) -> Result<Self> {
        let whole = page_bytes.is_power_of_two() && len_bytes.is_multiple_of(page_bytes);
        if !whole || len_bytes == 0 {
            return Err(Error::new("memfd_create", Errno::INVAL));
        }
        let size = MemfdFlags::from_bits_retain(page_bytes.trailing_zeros() << HUGE_SHIFT);
        let memfd = create(name, MemfdFlags::HUGETLB | size)?;
        check_file_limit("ftruncate", len_bytes)?;
        retry("ftruncate", || rustix::fs::ftruncate(&memfd.0, len_bytes))?;
        memfd.map(Mode::ReadWrite)?;
        Ok(memfd)
    }

    /// `fcntl(F_GET_SEALS)`: takes over a descriptor that was inherited or received, if it is a
    /// memory file with at least these seals. Without [`Seals::SHRINK`], check the size again
    /// whenever it matters.
    ///
    /// # Errors
    /// `EPERM`: a seal is missing; `EINVAL`: not a memory file.
    pub fn received(fd: OwnedFd, required: Seals) -> Result<Self> {
        let memfd = Self(fd);
        if !memfd.seals()?.contains(required) {
            return Err(Error::new("fcntl F_GET_SEALS", Errno::PERM));
        }
        Ok(memfd)
    }

    /// `fstat()`: its size, in bytes.
    ///
    /// # Errors
    /// None on Linux.
    pub fn len_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::fstat(&self.0).of("fstat")?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// `mmap()`: all of it, as long as it is now.
    ///
    /// # Errors
    /// `EPERM`: [`Mode::ReadWrite`] of one sealed against writing, and before Linux 6.7
    /// [`Mode::ReadOnly`] too unless it is [reopened](Memfd::reopen_read_only); else as
    /// [`Mapping::of_file`].
    pub fn map(&self, mode: Mode) -> Result<Mapping> {
        Mapping::of_whole(&self.0, mode)
    }

    /// `fallocate()`: makes it at least this long, with the memory reserved. Mappings stay as they
    /// are: [`Mapping::grow`] them.
    ///
    /// # Errors
    /// `EPERM`: sealed against growing; else as [`reserve`].
    pub fn grow(&self, len_bytes: u64) -> Result<()> {
        reserve(&self.0, len_bytes)
    }

    /// `fcntl(F_ADD_SEALS)`: from now on nobody can do this, through whichever descriptor. Seals
    /// cannot be taken back.
    ///
    /// # Errors
    /// `EPERM`: opened read-only, or [`Seals::SEAL`] is there; `EBUSY`: [`Seals::WRITE`] while it
    /// is mapped shared and writable by anybody; `EINVAL`: not a memory file, or a seal that this
    /// kernel does not know.
    pub fn add_seals(&self, seals: Seals) -> Result<()> {
        rustix::fs::fcntl_add_seals(&self.0, seals.flags()).of("fcntl F_ADD_SEALS")
    }

    /// `fcntl(F_GET_SEALS)`: the seals that are there.
    ///
    /// # Errors
    /// `EINVAL`: not a memory file.
    pub fn seals(&self) -> Result<Seals> {
        rustix::fs::fcntl_get_seals(&self.0).of("fcntl F_GET_SEALS").map(Seals::from_flags)
    }

    /// `open("/proc/self/fd/N", O_RDONLY)`: another descriptor, for a receiver that is only to
    /// read.
    ///
    /// A process of the same user, or root, can open it for writing again in the same way. Against
    /// those seal it: [`Seals::FUTURE_WRITE`].
    ///
    /// # Errors
    /// `ENOENT`: `/proc` is not mounted; `EACCES`: received from another user; `EMFILE`, `ENFILE`.
    pub fn reopen_read_only(&self) -> Result<OwnedFd> {
        let path = descriptor_path(self.0.as_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        retry("open", || rustix::fs::open(&path, flags, rustix::fs::Mode::empty()))
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Memfd> for OwnedFd {
    fn from(memfd: Memfd) -> Self {
        memfd.0
    }
}

/// The sizes of huge pages that this machine has, in bytes, the smallest first, from
/// `/sys/kernel/mm/hugepages`; none if that cannot be read. Whether any are free is another question.
#[must_use]
pub fn huge_page_sizes() -> Vec<u64> {
    let folder = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = folder
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            kib.checked_mul(1024)
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

/// `MFD_HUGE_SHIFT`, from `linux/memfd.h`.
const HUGE_SHIFT: u32 = 26;

fn create(name: &str, kind: MemfdFlags) -> Result<Memfd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | kind;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        done => done,
    }
    .of("memfd_create")?;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::fchmod(&fd, mode).of("fchmod")?;
    Ok(Memfd(fd))
}
