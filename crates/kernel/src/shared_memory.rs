//! Memory with one writer, which the kernel enforces: one process writes it, others map it read-only
//! and check what they were given.
//!
//! Source: `memfd_create(2)`, `fcntl(2)` ("File sealing"), `mmap(2)`, `madvise(2)`, `futex(2)`,
//! `proc_pid_fd(5)`. docs/design/shm.md says what lies in it.
//!
//! | who | has | may |
//! |---|---|---|
//! | its maker | [`OwnMemory`] | read and write |
//! | who was given [`OwnMemory::read_only_fd`] | [`PeerMemory`] | read |
//! | everybody who was given [`Doorbell::fd`] | [`Doorbell`] | read and write one page |
//!
//! Memory is made reserved, mapped, and only then sealed against shrinking, growing, punching holes,
//! writing through any new descriptor or mapping, and against more seals. So a reader that found the
//! seals there is never killed by a missing page (`SIGBUS`), and no third process, nor the reader,
//! ever gets to write it through its descriptor. (The same user's processes may attach to each other
//! with `ptrace(2)`: nothing keeps out those.)
//!
//! Nothing blocks, except for the time it takes to reserve memory.
//!
//! *Death.* A process that dies changes nothing in memory, and nobody is told. The kernel frees it when
//! no process has it mapped or its descriptor open.
//!
//! *Sizes* are bytes, in multiples of [`PAGE_BYTES`], on machines with larger pages too. Words are of
//! 64 bits and have the byte order of the machine. All is zero at first.
//!
//! *Children.* A child of `fork` has none of these mappings (`MADV_DONTFORK`), and no call here unmaps
//! anything there. In it `words()` means memory that is not there: touching it is a fault, or worse,
//! something else's. So whoever might run in a child asks `is_here()` or `check_here()` once per
//! operation: one load. A raw `clone` is not noticed ([`crate::fork`]).

#![allow(unsafe_code)]

mod place;
mod received;
mod region;

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::io::duplicate;
use crate::memfd::{Memfd, Seals};
pub use place::Place;
use received::{check_memory, check_sealed};
use region::{Access, Region, View};

/// What every size is a multiple of, in bytes. A number of the format, not of the machine.
pub const PAGE_BYTES: usize = 4096;

/// What is demanded of memory with one writer. That it cannot be executed ([`Seals::EXEC`]) is as may
/// be: older kernels do not know it.
fn one_writer() -> Seals {
    Seals::SHRINK | Seals::GROW | Seals::FUTURE_WRITE | Seals::SEAL
}

/// What is demanded of a doorbell.
fn all_write() -> Seals {
    Seals::SHRINK | Seals::GROW | Seals::SEAL
}

/// Memory of this process that no other can write.
///
/// A clone is the same mapping, which is there until the last clone is dropped. Peers that have mapped
/// it keep it.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use switchboard_kernel::shared_memory::{OwnMemory, PeerMemory};
///
/// let own = OwnMemory::create("ring", 8192)?;
/// own.words()[3].store(7, Ordering::Release);
///
/// // What a peer does with the descriptor that it was given.
/// let peer = PeerMemory::received(own.read_only_fd()?, 4096..=1 << 26)?;
/// assert_eq!(peer.words().len(), 1024);
/// assert_eq!(peer.words()[3].load(Ordering::Relaxed), 7);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// Bytes: memory and swap, and the memory limit of the control group. Neither refuses: the kernel kills
/// a process, this one as a rule. So bound what others can ask for. Mappings: `/proc/sys/vm/max_map_count`. One descriptor, until it is
/// [taken](OwnMemory::take_read_only_fd).
#[derive(Clone)]
pub struct OwnMemory {
    view: View,
    kept: Arc<Kept>,
}

/// What all clones have in common.
struct Kept {
    /// Unmapped on drop.
    _region: Region,
    /// Open for reading only, or none any more.
    fd: Mutex<Option<OwnedFd>>,
}

impl OwnMemory {
    /// `memfd_create()`, `fchmod(0600)`, `fallocate()`, `mmap(PROT_READ | PROT_WRITE, MAP_SHARED)`,
    /// `madvise(MADV_DONTFORK)`, `fcntl(F_ADD_SEALS)`, `open("/proc/self/fd/N", O_RDONLY)`: memory of
    /// this many bytes, all zero.
    ///
    /// The name shows in `/proc/PID/fd` and `/proc/PID/maps`, and finds nothing. The descriptor that
    /// was open for writing is closed again.
    ///
    /// # Errors
    /// `EINVAL`: a size of 0 or no multiple of [`PAGE_BYTES`], or a name of more than 249 bytes or
    /// with a NUL byte; `EFBIG`: over `RLIMIT_FSIZE`; `ENOMEM`: no address space
    /// (`RLIMIT_AS`), too many mappings, no memory; `EMFILE`, `ENFILE`; `ENOENT`: `/proc` is not mounted, without
    /// which there is no way to a descriptor that only reads; `EACCES`: forbidden by
    /// `/proc/sys/vm/memfd_noexec`.
    pub fn create(name: &str, len_bytes: usize) -> Result<Self> {
        let (memfd, region) = create(name, len_bytes, one_writer())?;
        let fd = Mutex::new(Some(memfd.reopen_read_only()?));
        Ok(Self { view: region.view(), kept: Arc::new(Kept { _region: region, fd }) })
    }

    /// All of it. Others read it at any time, and never write.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `kept` has the region of this view.
        unsafe { self.view.words() }
    }

    /// So many bytes from a word on, as they were filled; `None` where they are not all there.
    ///
    /// As for [`room`](Self::room): nobody else in this process writes these words while the slice is there.
    #[inline]
    #[must_use]
    pub fn bytes(&self, word: usize, len_bytes: usize) -> Option<&[u8]> {
        bytes(self.words(), word, len_bytes)
    }

    /// So many bytes from a word on, to be filled where they lie; `None` where they are not all there.
    ///
    /// Others that have the memory may read them meanwhile, and find part of what is written. In this process
    /// nobody else uses these words while the slice is there, by another clone either: whoever hands out
    /// places in the memory sees to that.
    #[inline]
    #[must_use]
    pub fn room(&mut self, word: usize, len_bytes: usize) -> Option<&mut [u8]> {
        let words = self.words().get(word..)?;
        if len_bytes > size_of_val(words) {
            return None;
        }
        let first = words.as_ptr().cast_mut().cast();
        // SAFETY: so many bytes are mapped for writing, by what `self` keeps, which is borrowed for as long
        // as the slice. That nobody else in this process uses them is said above; what other processes
        // read is theirs to check.
        Some(unsafe { std::slice::from_raw_parts_mut(first, len_bytes) })
    }

    /// `fcntl(F_DUPFD_CLOEXEC)`: a descriptor to give away. It only reads, and nobody can make a
    /// writable one from it.
    ///
    /// # Errors
    /// `EBADF`: it was taken; `ESTALE`: this is a child; `EMFILE` at `RLIMIT_NOFILE`.
    pub fn read_only_fd(&self) -> Result<OwnedFd> {
        // In a child the lock may be taken for ever.
        self.check_here()?;
        let fd = self.kept.fd.lock().unwrap_or_else(PoisonError::into_inner);
        duplicate(fd.as_ref().ok_or(Error::new("fcntl F_DUPFD_CLOEXEC", Errno::BADF))?)
    }

    /// The descriptor to give away, for the last time: none is kept, and the next call here or to
    /// [`OwnMemory::read_only_fd`] fails. For memory with one reader.
    ///
    /// # Errors
    /// `EBADF`: it was taken before, by this or another clone; `ESTALE`: this is a child.
    pub fn take_read_only_fd(&self) -> Result<OwnedFd> {
        self.check_here()?;
        let mut fd = self.kept.fd.lock().unwrap_or_else(PoisonError::into_inner);
        fd.take().ok_or(Error::new("fcntl F_DUPFD_CLOEXEC", Errno::BADF))
    }
}

/// So many bytes from a word on: whoever asks sees to it that nobody writes them meanwhile, as far as this
/// process can.
#[inline]
fn bytes(words: &[AtomicU64], word: usize, len_bytes: usize) -> Option<&[u8]> {
    let words = words.get(word..)?;
    if len_bytes > size_of_val(words) {
        return None;
    }
    // SAFETY: so many bytes are mapped for as long as the words are borrowed, and every value of them is bytes.
    // Of this process nobody writes them: through a reader's mapping nobody can, and the writer has given
    // them to the one who asks. An honest writer of another process stores nothing there until this side says
    // that it may; a lying one of this user changes what is read.
    Some(unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len_bytes) })
}

/// Another process's memory, mapped read-only.
///
/// A clone is the same mapping, which is there until the last clone is dropped. Its descriptor is
/// closed from the start.
///
/// The writer may change it at any time: read each number once, check it, and use the copy.
#[derive(Clone)]
pub struct PeerMemory {
    view: View,
    _region: Arc<Region>,
}

impl PeerMemory {
    /// `fcntl(F_GETFL)`, `fcntl(F_GET_SEALS)`, `fstat()`, `fstatfs()`, `mmap(PROT_READ, MAP_SHARED)`,
    /// `madvise(MADV_DONTFORK)`: maps what another process gave, if it is as [`OwnMemory`] makes it
    /// and its size is within `sizes`, in bytes. The descriptor is closed, also on failure.
    ///
    /// # Errors
    /// | errno | call | what is wrong |
    /// |---|---|---|
    /// | `EACCES` | `fcntl F_GETFL` | open for writing |
    /// | `EINVAL` | `fcntl F_GET_SEALS` | no memory file: nothing that can be sealed |
    /// | `EPERM` | `fcntl F_GET_SEALS` | a seal is missing, or there is one more |
    /// | `EINVAL` | `fstat st_size` | the size: not within `sizes`, 0, no multiple of [`PAGE_BYTES`] |
    /// | `EINVAL` | `fstatfs` | made of huge pages |
    /// | `ENODATA` | `fstat st_blocks` | sparse: not all of it is there |
    /// | `ENOMEM` | `mmap` | no address space (`RLIMIT_AS`), too many mappings (`/proc/sys/vm/max_map_count`) |
    pub fn received(fd: OwnedFd, sizes: RangeInclusive<usize>) -> Result<Self> {
        Self::map(&fd, sizes)
    }

    /// As [`PeerMemory::received`], and the descriptor stays the caller's: for one who tries again where this
    /// process has no room for it now (`ENOMEM`).
    ///
    /// # Errors
    /// As [`PeerMemory::received`].
    pub fn map(fd: &OwnedFd, sizes: RangeInclusive<usize>) -> Result<Self> {
        let len_bytes = check_memory(fd, one_writer(), sizes)?;
        let region = Region::of(fd, Access::Read, len_bytes)?;
        Ok(Self { view: region.view(), _region: Arc::new(region) })
    }

    /// All of it, to be *loaded* from. A store, or anything else that writes, also if it leaves the
    /// value as it is, kills this process with `SIGSEGV`.
    ///
    /// Loads of 64 bits write nothing on x86-64 and AArch64, whatever their order. (Elsewhere only
    /// relaxed ones are sure not to: follow them with a fence.)
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `_region` is that of this view.
        unsafe { self.view.words() }
    }

    /// So many bytes from a word on, where they lie; `None` where they are not all there.
    ///
    /// For writers of the same user, who could change this process's memory in other ways too. If such a one
    /// writes meanwhile, against the protocol, what is read is garbage, and may be another the next time: so
    /// whoever checks something here, and relies on it, copies it first.
    #[inline]
    #[must_use]
    pub fn bytes(&self, word: usize, len_bytes: usize) -> Option<&[u8]> {
        bytes(self.words(), word, len_bytes)
    }
}

/// One page that everybody writes who was given it: for processes of one user, and only for what may
/// be anything at any time.
///
/// It is sealed against changes of its size, and nothing else: whoever has it can read, write and
/// scribble over it, and give it to others.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use switchboard_kernel::io::duplicate;
/// use switchboard_kernel::shared_memory::Doorbell;
///
/// let own = Doorbell::create()?;
/// let theirs = Doorbell::received(duplicate(own.fd()?)?)?;
/// theirs.words()[0].fetch_or(1, Ordering::Relaxed);
/// assert_eq!(own.words()[0].load(Ordering::Relaxed), 1);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Clone)]
pub struct Doorbell {
    view: View,
    kept: Arc<Shared>,
}

struct Shared {
    /// Unmapped on drop.
    _region: Region,
    /// Its maker's.
    fd: Option<OwnedFd>,
}

impl Doorbell {
    /// `memfd_create()`, `fchmod(0600)`, `fallocate()`, `mmap(PROT_READ | PROT_WRITE, MAP_SHARED)`,
    /// `madvise(MADV_DONTFORK)`, `fcntl(F_ADD_SEALS)`: a page of [`PAGE_BYTES`] bytes, all zero.
    ///
    /// # Errors
    /// As [`OwnMemory::create`], but that it does without `/proc`.
    pub fn create() -> Result<Self> {
        let (memfd, region) = create("switchboard-doorbell", PAGE_BYTES, all_write())?;
        let view = region.view();
        Ok(Self { view, kept: Arc::new(Shared { _region: region, fd: Some(memfd.into()) }) })
    }

    /// `fcntl(F_GET_SEALS)`, `fstat()`, `fstatfs()`, `mmap(PROT_READ | PROT_WRITE, MAP_SHARED)`,
    /// `madvise(MADV_DONTFORK)`: maps another process's doorbell. The descriptor is closed, also on
    /// failure.
    ///
    /// # Errors
    /// As [`PeerMemory::received`], the size being [`PAGE_BYTES`]; `EACCES` of `mmap`: not open for
    /// reading and writing.
    pub fn received(fd: OwnedFd) -> Result<Self> {
        check_sealed(&fd, all_write(), PAGE_BYTES..=PAGE_BYTES)?;
        let region = Region::of(&fd, Access::ReadWrite, PAGE_BYTES)?;
        Ok(Self { view: region.view(), kept: Arc::new(Shared { _region: region, fd: None }) })
    }

    /// The whole page. Others write it at any time.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `kept` has the region of this view.
        unsafe { self.view.words() }
    }

    /// The descriptor to give away.
    ///
    /// # Errors
    /// `EBADF`: it was received, and none is kept.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        let fd = self.kept.fd.as_ref().ok_or(Error::new("fcntl F_DUPFD_CLOEXEC", Errno::BADF))?;
        Ok(fd.as_fd())
    }
}

/// The half of a word that a [futex](crate::futex) sleeps on: its low 32 bits.
///
/// For futex calls only. The kernel compares the half, and everybody else goes on to use the whole
/// word: atomics of two sizes on one place are not defined. Waiting, and waking whoever sleeps there,
/// write nothing, and work on memory that is mapped read-only.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use switchboard_kernel::futex::{Waited, wait};
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::shared_memory::{OwnMemory, low_half};
///
/// let memory = OwnMemory::create("example", 4096)?;
/// let word = &memory.words()[0];
/// word.store(0x1_0000_0007, Ordering::Release);
/// assert_eq!(wait(low_half(word), 8, Deadline::NEVER)?, Waited::ValueChanged);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[inline]
#[must_use]
pub fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let first = word.as_ptr().cast::<u32>();
    let low = if cfg!(target_endian = "little") { first } else { first.wrapping_add(1) };
    // SAFETY: it is one of the two halves of a word that lives as long, and aligned. The kernel does
    // the only access, as what is said above demands.
    unsafe { AtomicU32::from_ptr(low) }
}

/// New memory, mapped for writing and then sealed.
fn create(name: &str, len_bytes: usize, seals: Seals) -> Result<(Memfd, Region)> {
    let whole = len_bytes.is_multiple_of(PAGE_BYTES);
    let bytes = u64::try_from(len_bytes).ok().filter(|bytes| whole && *bytes <= i64::MAX as u64);
    let memfd = Memfd::create(name, bytes.ok_or(Error::new("memfd_create", Errno::INVAL))?)?;
    let region = Region::of(&memfd, Access::ReadWrite, len_bytes)?;
    memfd.add_seals(seals)?;
    Ok((memfd, region))
}

/// What all three say of their mapping.
macro_rules! mapped {
    ($($type:ident)*) => { $(
        impl $type {
            /// Its size, in bytes.
            #[inline]
            #[must_use]
            pub fn len_bytes(&self) -> usize {
                self.view.len_bytes()
            }

            /// Whether the memory is there: not in a child of `fork`.
            #[inline]
            #[must_use]
            pub fn is_here(&self) -> bool {
                self.view.is_here()
            }

            /// As [`is_here`](Self::is_here), as an error.
            ///
            /// # Errors
            /// `ESTALE`: this is a child of the process that has the memory.
            #[inline]
            pub fn check_here(&self) -> Result<()> {
                self.view.check_here()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let len_bytes = self.len_bytes();
                f.debug_struct(stringify!($type)).field("len_bytes", &len_bytes).finish_non_exhaustive()
            }
        }
    )* };
}

mapped!(OwnMemory PeerMemory Doorbell);
