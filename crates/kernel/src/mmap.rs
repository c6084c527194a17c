//! Memory-mapped files and anonymous memory, shared between processes or private to one.
//!
//! Source: `mmap(2)`, `munmap(2)`, `mremap(2)`, `msync(2)`, `madvise(2)`, `mprotect(2)`, `mlock(2)`,
//! `fallocate(2)`, `ftruncate(2)`, `sync_file_range(2)`.
//!
//! Whoever has a file mapped shared sees the others' writes at once, and nobody is told of them:
//! add an eventfd, a futex or a semaphore. The death of a process changes nothing: what it wrote
//! stays, and a write that it was in the middle of is there in part.
//!
//! Other processes may write at any time, so there is no `&[u8]` of such memory: [`Memory`] copies
//! it in and out, and gives atomic words.
//!
//! # A file cut short behind one's back
//! Touching a mapped page beyond the end of its file raises `SIGBUS`, which kills. Here it is an
//! error instead, `EIO`. The first mapping of a file that others could cut installs a handler for
//! `SIGBUS`, the only signal handler that these libraries install unasked: for a fault inside such a
//! [`Mapping`] it puts a page of zeroes in place and marks the mapping as truncated; any other
//! `SIGBUS` goes to the handler that was there before, or kills as it would have. The mark stays:
//! make the mapping anew.
//!
//! * A page that cannot be had for another reason (a disk that fails, a full tmpfs) is treated
//!   alike; [`Mapping::missing`] tells which it was. [`reserve`] space first, and a full file system is an error there.
//! * It works by pages: the rest of the new last page reads as zeroes, and is no error. A file that
//!   was cut and grew again before anybody looked reads as zeroes too.
//! * A child made by `fork` has the mappings and the handler, and finds out for itself.
//! * A thread that blocks `SIGBUS` is killed nevertheless: the kernel cannot deliver it. Leave it
//!   out of the set when blocking all signals.
//! * A program that installs its own handler later replaces this one. Let it pass on what it does
//!   not know, as this one does.
//! * A memfd sealed against shrinking needs none of this, nor does anonymous memory.

#![allow(unsafe_code)]

pub(crate) mod copy;
mod file;
mod guard;
mod limits;
mod memory;

use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, MsyncFlags, ProtFlags};

use crate::error::{Error, OfCall, Result};
use crate::io::retry;
use file::{cannot_shrink, check_part, is_cut, is_hole};
use guard::Watch;

pub(crate) use file::check_file_limit;
pub use file::{
    create_file, free_bytes, give_back, next_data, reserve, set_len, start_write_back,
    wait_for_write_back,
};
pub(crate) use limits::advice;
pub use memory::Memory;

/// How a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `PROT_READ`, `MAP_SHARED`: sees what others write; writing is an error.
    ReadOnly,
    /// `PROT_READ | PROT_WRITE`, `MAP_SHARED`: writes reach the file and everybody who maps it.
    ReadWrite,
    /// `PROT_READ | PROT_WRITE`, `MAP_PRIVATE`: copy on write. The first write to a page copies it;
    /// nobody else sees the copy, and the file stays as it is. Others' later writes show in pages
    /// that are not copied yet, and in no others.
    Private,
}

/// Whether [`Mapping::sync`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// `MS_SYNC`: until the disk has it.
    Wait,
    /// `MS_ASYNC`: not at all. Linux writes changed pages back of its own accord (after 30 s, see
    /// `/proc/sys/vm/dirty_expire_centisecs`) and takes this for a reminder that it ignores.
    Start,
}

/// Why a page of a mapped file was found missing ([`Mapping::missing`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// The file ends before it: somebody cut it short.
    Cut,
    /// The file has a hole there, and the file system, or a quota, no room to fill it.
    NoSpace,
    /// It is there, and could not be read.
    Unreadable,
}

impl Missing {
    /// The error that `write(2)` or `read(2)` would have been: `ENOSPC` or `EIO`.
    #[must_use]
    pub fn error(self) -> Error {
        let errno = if self == Self::NoSpace { Errno::NOSPC } else { Errno::IO };
        Error::new("mmap", errno)
    }
}

/// What [`Mapping::advise`] tells the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// `MADV_NORMAL`: takes the next two back.
    Normal,
    /// `MADV_SEQUENTIAL`: read far ahead.
    Sequential,
    /// `MADV_RANDOM`: do not read ahead.
    Random,
    /// `MADV_WILLNEED`: start reading now.
    WillNeed,
    /// `MADV_DONTNEED`: give the pages back. A shared mapping reads them again from the file; a
    /// private one loses what was written to it.
    DontNeed,
    /// `MADV_DONTFORK`: not in children. A child that `fork`s without `execve` must then neither
    /// touch nor drop the mapping: something else may be there.
    DontFork,
    /// `MADV_DOFORK`: takes [`Advice::DontFork`] back.
    DoFork,
    /// `MADV_DONTDUMP`: not in core dumps.
    DontDump,
    /// `MADV_HUGEPAGE`: use transparent huge pages.
    Huge,
    /// `MADV_NOHUGEPAGE`: do not.
    NoHuge,
    /// `MADV_POPULATE_READ`: fault all pages in, for reading. Blocks until they are there.
    PopulateRead,
    /// `MADV_POPULATE_WRITE`: the same for writing. A page that cannot be had is an error here.
    PopulateWrite,
}

/// An owned mapping, unmapped on drop. Reading, writing and atomics are those of [`Memory`].
///
/// It does not need the descriptor it was made from any more.
///
/// ```
/// use switchboard_kernel::Permissions;
/// use switchboard_kernel::mmap::{Mapping, Mode, Sync, create_file};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("counters");
/// let file = create_file(&path, 4096, Permissions::new().mode(0o640))?;
/// let shared = Mapping::of_file(&file, Mode::ReadWrite, 0, 4096)?;
/// shared.write_at(100, b"for everybody")?;
/// shared.sync(0..4096, Sync::Wait)?;
///
/// let private = Mapping::of_file(&file, Mode::Private, 0, 4096)?;
/// private.write_at(100, b"for me")?;
/// let mut found = [0; 13];
/// shared.read_at(100, &mut found)?;
/// assert_eq!(&found, b"for everybody");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Limits
/// | what | set by | beyond it |
/// |---|---|---|
/// | mappings of a process | `/proc/sys/vm/max_map_count` | `ENOMEM` |
/// | mappings of files that can be cut short | 1024 in a process, here | `ENOMEM` |
/// | address space | `RLIMIT_AS` | `ENOMEM` |
/// | locked bytes | `RLIMIT_MEMLOCK`; not with `CAP_IPC_LOCK` | `ENOMEM`, `EPERM` |
#[derive(Debug)]
pub struct Mapping {
    memory: Memory,
    /// Where in the file it begins.
    offset: u64,
    /// Its own page size, which is larger than the system's for huge pages.
    page_bytes: usize,
    growable: bool,
}

impl Mapping {
    /// `mmap(len, mode, fd, offset)`: maps this part of a file. The offset is a multiple of
    /// [`page_bytes`], and of the page size of a huge-page file.
    ///
    /// # Errors
    /// `EINVAL`: a length of 0, a crooked offset, or a part that the file does not have; `EACCES`:
    /// the descriptor is not open for reading, or for [`Mode::ReadWrite`] not for both; `EPERM`:
    /// sealed against writing; `ENODEV`: cannot be mapped (a pipe, a socket); `ENOMEM`: over a
    /// limit, or no huge page is free; `EAGAIN`, `ENFILE`.
    pub fn of_file(fd: impl AsFd, mode: Mode, offset: u64, len: usize) -> Result<Self> {
        Self::of_part(fd.as_fd(), mode, offset, Some(len))
    }

    /// All of a file, as long as it is now.
    pub(crate) fn of_whole(fd: impl AsFd, mode: Mode) -> Result<Self> {
        Self::of_part(fd.as_fd(), mode, 0, None)
    }

    fn of_part(fd: BorrowedFd<'_>, mode: Mode, offset: u64, len: Option<usize>) -> Result<Self> {
        let (len, page_bytes) = check_part(fd, offset, len)?;
        let (protection, flags) = match mode {
            Mode::ReadOnly => (ProtFlags::READ, MapFlags::SHARED),
            Mode::ReadWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Mode::Private => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
        };
        // SAFETY: no address is asked for, so the mapping replaces nothing.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        let memory = memory(start, len, mode != Mode::ReadOnly)?;
        let mut mapping = Self { memory, offset, page_bytes, growable: true };
        if !cannot_shrink(fd) {
            mapping.watch()?;
        }
        Ok(mapping)
    }

    /// `mmap(len, MAP_SHARED | MAP_ANONYMOUS)`: zeroes, shared with the children that `fork` makes
    /// from now on. `execve` drops it: give a program a [memfd](crate::memfd) instead.
    ///
    /// # Errors
    /// `EINVAL`: a length of 0; `ENOMEM`.
    pub fn anonymous(len: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so the mapping replaces nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::SHARED)
        };
        let memory = memory(start, len, true)?;
        Ok(Self { memory, offset: 0, page_bytes: page_bytes(), growable: false })
    }

    /// `fstat(fd)`, `lseek(fd, SEEK_DATA)`: why a page was found [missing](Memory::is_truncated), by the file that is
    /// mapped; `None` while none was. Says how it is now: a file may have grown again meanwhile.
    ///
    /// The position of the descriptor is moved and put back.
    #[must_use]
    pub fn missing(&self, fd: impl AsFd) -> Option<Missing> {
        let page = self.offset + self.memory.watch.as_ref()?.missing()? as u64;
        let fd = fd.as_fd();
        Some(if is_cut(fd, page) {
            Missing::Cut
        } else if is_hole(fd, page, self.page_bytes as u64) {
            Missing::NoSpace
        } else {
            Missing::Unreadable
        })
    }

    /// `msync(range)`: writes changed pages of a shared file mapping to the disk, whole pages.
    ///
    /// With [`Sync::Wait`] it blocks until they are there, the file's size included. Other processes
    /// see writes without it. Private and anonymous mappings have nothing to write.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`, `EDQUOT`: writing failed, now or since the last time: pages are lost;
    /// `EINVAL`: not within the mapping.
    pub fn sync(&self, range: Range<usize>, how: Sync) -> Result<()> {
        let (start, len) = self.pages(range, "msync")?;
        let flags = match how {
            Sync::Wait => MsyncFlags::SYNC,
            Sync::Start => MsyncFlags::ASYNC,
        };
        // SAFETY: the pages are mapped, and msync changes nothing in them.
        retry("msync", || unsafe { rustix::mm::msync(start, len, flags) })
    }

    /// `madvise(advice)`: for the whole mapping.
    ///
    /// # Errors
    /// `EINVAL`: not for this kind of mapping, or a kernel without it; `ENOMEM`, and `EFAULT` for
    /// the two that populate: a page cannot be had; `EIO`.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.advise_range(0..self.len(), advice)
    }

    /// `madvise(range, advice)`: for the pages that the range touches.
    ///
    /// # Errors
    /// As [`Mapping::advise`]; `EINVAL`: not within the mapping.
    pub fn advise_range(&self, range: Range<usize>, advice: Advice) -> Result<()> {
        let (start, len) = self.pages(range, "madvise")?;
        // SAFETY: the pages are this mapping's. Some advice changes what is in them, which they
        // allow at any time: all access is atomic, and nobody holds a plain reference.
        retry("madvise", || unsafe { rustix::mm::madvise(start, len, advice.into()) })
    }

    /// `mremap(new_len, MREMAP_MAYMOVE)`: maps more of the same file, which must have grown before.
    /// It may move, so nobody can hold one of its words meanwhile.
    ///
    /// # Errors
    /// `EINVAL`: shorter than now, or an anonymous mapping, which cannot grow; `EIO`: it is
    /// truncated; `ENOMEM`; `EAGAIN`: over `RLIMIT_MEMLOCK`; `EFAULT`: advice was given for a part
    /// that cuts it in two. It stays as it is then.
    pub fn grow(&mut self, new_len: usize) -> Result<()> {
        if !self.growable || new_len < self.len() {
            return Err(Error::new("mremap", Errno::INVAL));
        }
        self.memory.check_truncated()?;
        let new_bytes = new_len.checked_next_multiple_of(self.page_bytes);
        let new_bytes = new_bytes.ok_or(Error::new("mremap", Errno::NOMEM))?;
        self.watch()?;
        // Its addresses may be given to another mapping before this call returns.
        self.watch_range(0);
        let (start, len) = (self.as_ptr().cast(), self.mapped_bytes());
        // SAFETY: this is the whole mapping, and `&mut self` says that nobody borrows from it.
        let moved =
            unsafe { rustix::mm::mremap(start, len, new_bytes, MremapFlags::MAYMOVE) }.of("mremap");
        if let Ok(Some(start)) = moved.as_ref().map(|start| NonNull::new(start.cast())) {
            self.memory.moved(start, new_len);
        }
        self.watch_range(self.mapped_bytes());
        moved.map(drop)
    }

    /// `mprotect(PROT_READ)`: from now on, writing is an error.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn make_read_only(&mut self) -> Result<()> {
        let (start, len) = (self.as_ptr().cast(), self.mapped_bytes());
        // SAFETY: the pages are this mapping's, and `&mut self` says that nobody holds one of its
        // words to write to.
        unsafe { rustix::mm::mprotect(start, len, MprotectFlags::READ) }.of("mprotect")?;
        self.memory.now_read_only();
        Ok(())
    }

    /// `mlock()`: keeps it in memory, and blocks until it is there. Undone on drop.
    ///
    /// # Errors
    /// `ENOMEM`, `EPERM`: over `RLIMIT_MEMLOCK`; `ENOMEM`: a page cannot be had; `EAGAIN`.
    pub fn lock(&self) -> Result<()> {
        // SAFETY: the pages are mapped, and locking changes nothing in them.
        unsafe { rustix::mm::mlock(self.as_ptr().cast(), self.mapped_bytes()) }.of("mlock")
    }

    fn mapped_bytes(&self) -> usize {
        self.len().next_multiple_of(self.page_bytes)
    }

    /// The whole pages around a part of it.
    fn pages(&self, range: Range<usize>, call: &'static str) -> Result<(*mut libc::c_void, usize)> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::new(call, Errno::INVAL));
        }
        // A page's size is a power of two; dividing by it would take longer than some calls.
        let within = self.page_bytes - 1;
        let first = range.start & !within;
        let end = range.end.saturating_add(within) & !within;
        Ok((self.as_ptr().wrapping_add(first).cast(), end.saturating_sub(first)))
    }

    fn watch(&mut self) -> Result<()> {
        if self.memory.watch.is_none() {
            self.memory.watch = Some(Watch::new()?);
            self.watch_range(self.mapped_bytes());
        }
        Ok(())
    }

    fn watch_range(&self, bytes: usize) {
        if let Some(watch) = &self.memory.watch {
            watch.set(self.as_ptr().addr(), bytes, self.page_bytes, self.is_writable());
        }
    }
}

impl Deref for Mapping {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let len = self.mapped_bytes();
        // First, for as soon as it is unmapped, its addresses may be somebody else's.
        self.memory.watch = None;
        // SAFETY: this is the whole mapping, and nobody borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.as_ptr().cast(), len) };
    }
}

/// `sysconf(_SC_PAGESIZE)`: the size of a page, in bytes.
#[must_use]
pub fn page_bytes() -> usize {
    rustix::param::page_size()
}

impl From<Advice> for rustix::mm::Advice {
    fn from(advice: Advice) -> Self {
        match advice {
            Advice::Normal => Self::Normal,
            Advice::Sequential => Self::Sequential,
            Advice::Random => Self::Random,
            Advice::WillNeed => Self::WillNeed,
            Advice::DontNeed => Self::LinuxDontNeed,
            Advice::DontFork => Self::LinuxDontFork,
            Advice::DoFork => Self::LinuxDoFork,
            Advice::DontDump => Self::LinuxDontDump,
            Advice::Huge => Self::LinuxHugepage,
            Advice::NoHuge => Self::LinuxNoHugepage,
            Advice::PopulateRead => Self::LinuxPopulateRead,
            Advice::PopulateWrite => Self::LinuxPopulateWrite,
        }
    }
}

fn memory(
    start: core::result::Result<*mut libc::c_void, Errno>,
    len: usize,
    writable: bool,
) -> Result<Memory> {
    let start = NonNull::new(start.of("mmap")?.cast()).ok_or(Error::new("mmap", Errno::NOMEM))?;
    // SAFETY: the pages were mapped just now, and stay until the owner of this is dropped or
    // changed by `&mut self`.
    Ok(unsafe { Memory::new(start, len, writable) })
}
