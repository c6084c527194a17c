//! Pipes: a one-way stream of bytes between processes that share its descriptors.
//!
//! Source: `pipe(7)`, `pipe(2)`, `fcntl(2)` ("Changing the capacity of a pipe").
//!
//! Bytes are read and written with [`crate::io`], and moved without a copy with [`crate::splice`]. *Who died:* a reader finds end of file when the
//! last writer's descriptor is gone, a writer finds `EPIPE` when the last reader's is; the kernel
//! closes both when a process is killed. A descriptor that a forked child still holds keeps the
//! pipe open.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::pipe::PipeFlags;

use crate::error::{OfCall, Result};

/// The largest write that is never mixed with another process's (`PIPE_BUF`), in bytes.
pub const PIPE_BUF: usize = 4096;

/// No pipe can be larger than this, whatever `pipe-max-size` says.
const LARGEST_CAPACITY: usize = 1 << 30;

/// `pipe2(O_CLOEXEC)`: a new pipe, as (reader, writer).
///
/// A write of up to [`PIPE_BUF`] bytes goes in whole, or waits; a longer one may be mixed with
/// others. Writing blocks while the pipe is full, reading while it is empty.
///
/// # Errors
/// `EMFILE`, `ENFILE`: out of descriptors.
///
/// # Limits
/// 64 KiB of room, see [`capacity`]; one page once the user holds more than
/// `/proc/sys/fs/pipe-user-pages-soft`.
///
/// ```
/// use switchboard_kernel::{io, pipe};
///
/// let (reader, writer) = pipe::pipe()?;
/// io::write_all(&writer, b"hello")?;
/// drop(writer);
/// let mut buffer = [0; 16];
/// assert_eq!(io::read_full(&reader, &mut buffer)?, 5);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).of("pipe2")
}

/// `pipe2(O_CLOEXEC | O_NONBLOCK)`: as [`pipe()`], and neither end ever blocks.
///
/// A write of up to [`PIPE_BUF`] bytes that does not fit gives `EAGAIN` and writes nothing; a
/// longer one writes what fits.
///
/// # Errors
/// As [`pipe()`].
pub fn pipe_nonblocking() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).of("pipe2")
}

/// `fcntl(F_GETPIPE_SZ)`: how many bytes the pipe or FIFO has room for.
///
/// The room is counted in pages: many small writes that the kernel cannot join use it up sooner.
///
/// # Errors
/// `EBADF`: not a pipe.
pub fn capacity(fd: impl AsFd) -> Result<usize> {
    rustix::pipe::fcntl_getpipe_size(fd).of("fcntl F_GETPIPE_SZ")
}

/// `fcntl(F_SETPIPE_SZ)`: makes the pipe at least this large, or smaller, and returns its real size
/// in bytes: the next power of two of pages.
///
/// # Errors
/// `EPERM`: over the limit; `EBUSY`: what is in the pipe now would not fit; `EBADF`: not a pipe;
/// `ENOMEM`.
///
/// # Limits
/// `/proc/sys/fs/pipe-max-size` (1 MiB unless changed) per pipe, and
/// `/proc/sys/fs/pipe-user-pages-soft` over all of a user's pipes. `CAP_SYS_RESOURCE` lifts both.
pub fn set_capacity(fd: impl AsFd, bytes: usize) -> Result<usize> {
    rustix::pipe::fcntl_setpipe_size(fd, bytes).of("fcntl F_SETPIPE_SZ")
}

/// Makes the pipe as large as it may be, up to `wanted` bytes, and returns its size.
///
/// It never shrinks and never fails: what is no pipe has the size 0.
///
/// # Limits
/// As [`set_capacity`]; where those stand in the way, half of `wanted` is tried, then a quarter,
/// and so on.
pub fn grow(fd: impl AsFd, wanted: usize) -> usize {
    let fd = fd.as_fd();
    let Ok(mut size) = capacity(fd) else { return 0 };
    let mut attempt = wanted.min(LARGEST_CAPACITY);
    while attempt > size {
        match set_capacity(fd, attempt) {
            Ok(reached) => {
                size = reached;
                break;
            }
            Err(_) => attempt = attempt.next_power_of_two() / 2,
        }
    }
    size
}

/// `fstat(fd)`: whether this is a pipe or a FIFO.
pub fn is_pipe(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
