//! Moving bytes inside the kernel: between a pipe and another descriptor, between two pipes, and
//! from memory into a pipe, without copying them through this process.
//!
//! Source: `splice(2)`, `tee(2)`, `vmsplice(2)`, `mmap(2)`, `mprotect(2)`.
//!
//! *Short results are normal.* The kernel moves whole pieces of a pipe (at most a page each), and
//! returns as soon as something was moved and the next step would wait. Only 0 is the end.
//!
//! *Who died:* as for a pipe ([`crate::pipe`]).

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked, last_errno};
use crate::io::{Deadline, Interest, retry, wait_for};

pub use rustix::pipe::SpliceFlags;

/// `splice(from, NULL, to, NULL, len_bytes, flags)`: moves up to `len_bytes` bytes from one
/// descriptor to another. At least one of the two must be a pipe.
///
/// Blocks while nothing is there or there is no room, unless [`SpliceFlags::NONBLOCK`] is given
/// (for the pipe) and the other descriptor is non-blocking too. Returns 0 at end of file: every
/// writer of `from` closed or died. Files are read and written at their file offset, which moves.
///
/// # Errors
/// `EAGAIN`: would block; `EINVAL`: neither is a pipe, both are the same one, or the other one's
/// kind cannot be spliced (or was opened with `O_APPEND`); `EPIPE`: nobody reads `to`; `EBADF`: not
/// open for reading, or for writing; `ENOSPC`, `EFBIG` of a file.
///
/// ```
/// use switchboard_kernel::pipe::pipe;
/// use switchboard_kernel::splice::{SpliceFlags, splice};
///
/// let (from, source) = pipe()?;
/// let (_sink, to) = pipe()?;
/// switchboard_kernel::io::write_all(&source, b"hello")?;
/// assert_eq!(splice(&from, &to, 100, SpliceFlags::empty())?, 5);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[inline]
pub fn splice(
    from: impl AsFd,
    to: impl AsFd,
    len_bytes: usize,
    flags: SpliceFlags,
) -> Result<usize> {
    let (from, to) = (from.as_fd(), to.as_fd());
    retry("splice", || rustix::pipe::splice(from, None, to, None, len_bytes, flags))
}

/// `splice(file, &offset_bytes, to, NULL, len_bytes, flags)`: from a place of a file into a pipe;
/// the file offset stays where it is. Returns 0 at the end of the file.
///
/// Blocks while the pipe is full, unless [`SpliceFlags::NONBLOCK`] is given. The pipe refers to the
/// file's pages: what is written to the file before the reader reads may be what it reads.
///
/// # Errors
/// `ESPIPE`: `file` is a pipe or has no offset; else as [`splice()`].
pub fn splice_from_file(
    file: impl AsFd,
    offset_bytes: u64,
    to: impl AsFd,
    len_bytes: usize,
    flags: SpliceFlags,
) -> Result<usize> {
    let (file, to) = (file.as_fd(), to.as_fd());
    retry("splice", || {
        let mut offset_bytes = offset_bytes;
        rustix::pipe::splice(file, Some(&mut offset_bytes), to, None, len_bytes, flags)
    })
}

/// `splice(from, NULL, file, &offset_bytes, len_bytes, flags)`: from a pipe to a place of a file;
/// the file offset stays where it is. Returns 0 once the pipe is empty and every writer is gone.
///
/// Blocks while the pipe is empty, unless [`SpliceFlags::NONBLOCK`] is given.
///
/// # Errors
/// `ESPIPE`: `file` is a pipe or has no offset; else as [`splice()`].
pub fn splice_to_file(
    from: impl AsFd,
    file: impl AsFd,
    offset_bytes: u64,
    len_bytes: usize,
    flags: SpliceFlags,
) -> Result<usize> {
    let (from, file) = (from.as_fd(), file.as_fd());
    retry("splice", || {
        let mut offset_bytes = offset_bytes;
        rustix::pipe::splice(from, None, file, Some(&mut offset_bytes), len_bytes, flags)
    })
}

/// As [`splice()`], waiting for bytes and for room until the deadline passes.
///
/// A descriptor that is no pipe must be non-blocking: else the kernel may wait longer for it. While
/// this waits for bytes, it does not look whether `to` still has a reader.
///
/// # Errors
/// `ETIMEDOUT` when the deadline passed; else as [`splice()`], without `EAGAIN`.
pub fn splice_until(
    from: impl AsFd,
    to: impl AsFd,
    len_bytes: usize,
    deadline: Deadline,
) -> Result<usize> {
    let (from, to) = (from.as_fd(), to.as_fd());
    until("splice", from, to, deadline, || splice(from, to, len_bytes, SpliceFlags::NONBLOCK))
}

/// `tee(from, to, len_bytes, flags)`: doubles up to `len_bytes` bytes of one pipe into another; they
/// stay in the first, and the next `tee` gives the same ones again.
///
/// So it looks at what is in a pipe without taking it, or serves two readers: first `tee`, then
/// [`splice()`] or read as many bytes as that returned. Both pipes then refer to the same pages.
///
/// Blocks while `from` is empty or `to` is full, unless [`SpliceFlags::NONBLOCK`] is given. Returns
/// 0 when `from` is empty and every writer is gone.
///
/// # Errors
/// `EAGAIN`: would block; `EINVAL`: one is no pipe, or both are the same; `EPIPE`: nobody reads
/// `to`; `EBADF`: not open for reading, or for writing.
#[inline]
pub fn tee(from: impl AsFd, to: impl AsFd, len_bytes: usize, flags: SpliceFlags) -> Result<usize> {
    let (from, to) = (from.as_fd(), to.as_fd());
    retry("tee", || rustix::pipe::tee(from, to, len_bytes, flags))
}

/// As [`tee`], waiting for bytes and for room until the deadline passes.
///
/// # Errors
/// `ETIMEDOUT` when the deadline passed; else as [`tee`], without `EAGAIN`.
pub fn tee_until(
    from: impl AsFd,
    to: impl AsFd,
    len_bytes: usize,
    deadline: Deadline,
) -> Result<usize> {
    let (from, to) = (from.as_fd(), to.as_fd());
    until("tee", from, to, deadline, || tee(from, to, len_bytes, SpliceFlags::NONBLOCK))
}

fn until(
    call: &'static str,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    deadline: Deadline,
    transfer: impl Fn() -> Result<usize>,
) -> Result<usize> {
    loop {
        match transfer() {
            Err(error) if error.errno() == libc::EAGAIN => {}
            result => return result,
        }
        // After the attempt, so that what came at the last moment still counts.
        if deadline.passed() {
            return Err(Error::new(call, Errno::TIMEDOUT));
        }
        wait_for(from, Interest::Readable, deadline)?;
        wait_for(to, Interest::Writable, deadline)?;
    }
}

/// Memory of its own to be filled and then given to pipes: `mmap(MAP_PRIVATE | MAP_ANONYMOUS)`.
///
/// A pipe that was given memory by `vmsplice(2)` holds no copy of it: a reader sees what stands
/// there when it reads. So the memory must never change again, and nobody can say when the last
/// reader is done. That is why only memory of this type can be given: once [frozen](Self::freeze)
/// it cannot be written any more, and when it is dropped it is unmapped, not used again (as a
/// vector's would be). The kernel keeps the pages for as long as a pipe refers to them.
///
/// It is worth it from some tens of kilobytes on; below, [`crate::io::write`] is faster.
///
/// ```
/// use switchboard_kernel::splice::{Pages, SpliceFlags};
///
/// let (reader, writer) = switchboard_kernel::pipe::pipe()?;
/// let mut pages = Pages::new(6)?;
/// pages.bytes_mut().copy_from_slice(b"hello\n");
/// let mut frozen = pages.freeze()?;
/// while !frozen.remaining().is_empty() {
///     frozen.vmsplice(&writer, SpliceFlags::empty())?;
/// }
/// drop(frozen);
/// let mut text = [0; 6];
/// switchboard_kernel::io::read_full(&reader, &mut text)?;
/// assert_eq!(&text, b"hello\n");
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct Pages(Mapping);

impl Pages {
    /// `mmap(len_bytes)`: zeroes, to be filled.
    ///
    /// # Errors
    /// `EINVAL` for 0 bytes; `ENOMEM`: no memory, `RLIMIT_AS` or `vm.max_map_count`.
    pub fn new(len_bytes: usize) -> Result<Self> {
        Mapping::new(len_bytes).map(Self)
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this long, readable, writable, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len_bytes) }
    }

    /// `mprotect(PROT_READ)`: from now on the bytes cannot change.
    ///
    /// # Errors
    /// `ENOMEM` at `vm.max_map_count`.
    pub fn freeze(self) -> Result<FrozenPages> {
        self.0.protect()?;
        Ok(FrozenPages { mapping: self.0, given_bytes: 0 })
    }
}

/// Memory that cannot change any more and can be given to pipes. See [`Pages`].
#[derive(Debug)]
pub struct FrozenPages {
    mapping: Mapping,
    given_bytes: usize,
}

impl FrozenPages {
    /// What was not given yet.
    #[must_use]
    pub fn remaining(&self) -> &[u8] {
        // SAFETY: the mapping is this long, readable, and written by nobody since it was frozen.
        let all = unsafe {
            std::slice::from_raw_parts(self.mapping.start.as_ptr(), self.mapping.len_bytes)
        };
        &all[self.given_bytes..]
    }

    /// Starts over: all of it can be given again, to another pipe say.
    pub fn rewind(&mut self) {
        self.given_bytes = 0;
    }

    /// `vmsplice(to, remaining, flags)`: gives as much as the pipe has room for, and says how much
    /// that was. `to` is the writing end of a pipe.
    ///
    /// Blocks while the pipe is full, unless [`SpliceFlags::NONBLOCK`] is given; that the descriptor
    /// is non-blocking does not count. Returns 0 when nothing remains. Whoever reads the bytes
    /// copies them; [`splice()`] moves them on without a copy.
    ///
    /// [`SpliceFlags::GIFT`] is left out: it would let the kernel put the pages to another use.
    ///
    /// # Errors
    /// `EAGAIN`: the pipe is full; `EPIPE`: nobody reads it; `EBADF`: not a pipe; `EFAULT`: the
    /// reading end.
    ///
    /// # Limits
    /// A page of memory takes one of the pipe's places (16 in a pipe of 64 KiB, see
    /// [`crate::pipe::capacity`]), also when only a part of it is given.
    #[inline]
    pub fn vmsplice(&mut self, to: impl AsFd, flags: SpliceFlags) -> Result<usize> {
        let (to, flags) = (to.as_fd().as_raw_fd(), flags.difference(SpliceFlags::GIFT).bits());
        let remaining = self.remaining();
        let part = libc::iovec {
            iov_base: remaining.as_ptr().cast_mut().cast(),
            iov_len: remaining.len(),
        };
        let given = retry("vmsplice", || {
            // SAFETY: the vector has one part, which is mapped memory. Were `to` a reading end, the
            // kernel would write to that memory; it finds it read-only and refuses (EFAULT).
            let given = unsafe { libc::vmsplice(to, &raw const part, 1, flags) };
            usize::try_from(given).map_err(|_| last_errno())
        })?;
        self.given_bytes += given;
        Ok(given)
    }
}

/// Private memory that is unmapped on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the memory belongs to this value alone; `&Mapping` only reads it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len_bytes: usize) -> Result<Self> {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses a place where nothing is mapped.
        let start = unsafe { libc::mmap(ptr::null_mut(), len_bytes, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Error::new("mmap", last_errno()));
        }
        let start = NonNull::new(start.cast()).ok_or(Error::new("mmap", Errno::NOMEM))?;
        Ok(Self { start, len_bytes })
    }

    fn protect(&self) -> Result<()> {
        // SAFETY: exactly this mapping, which nobody has borrowed for writing.
        checked(unsafe {
            libc::mprotect(self.start.as_ptr().cast(), self.len_bytes, libc::PROT_READ)
        })
        .map(drop)
        .of("mprotect")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly this mapping; borrows of it ended with the value. Pages that a pipe
        // refers to stay with the pipe, and nobody can write to them any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}
