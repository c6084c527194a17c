//! The one error type of this crate: which system call failed, and with which error number.
//!
//! Source: `errno(3)`.

use core::fmt;

use rustix::io::Errno;

/// The result of a system call made through this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// A failed system call: the call's name as in its man page, and the error number.
///
/// Small and `Copy`, so that it can be returned from a hot path without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Error {
    call: &'static str,
    errno: Errno,
}

/// What a caller can act on. Every kind names one thing to do; all else is [`ErrorKind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `ENOENT`, `ENXIO` on a FIFO: nothing by that name, or nobody at the other end.
    NotFound,
    /// `EACCES`, `EPERM`: not allowed.
    PermissionDenied,
    /// `EEXIST`: the name is taken.
    AlreadyExists,
    /// `EAGAIN`, `ENOMSG`: would have to wait.
    WouldBlock,
    /// `ETIMEDOUT`: the deadline passed.
    TimedOut,
    /// `EINTR`: a signal arrived. Only calls that say so return it.
    Interrupted,
    /// `EPIPE`: nobody reads the other end any more.
    BrokenPipe,
    /// `ECONNREFUSED`: the name exists and nobody listens.
    ConnectionRefused,
    /// `ECONNRESET`, `ECONNABORTED`, `ENOTCONN`: the peer went away.
    ConnectionReset,
    /// `EADDRINUSE`: another socket has the address.
    AddressInUse,
    /// `EMSGSIZE`, `E2BIG`: larger than the object or the buffer holds.
    MessageTooLarge,
    /// `ENOSPC`, `EDQUOT`, `EFBIG`: a disk, a table or a quota is full.
    NoSpace,
    /// `EMFILE`: this process has as many descriptors as `RLIMIT_NOFILE` allows. `ETOOMANYREFS`: as many of this user's
    /// are on their way between processes.
    TooManyFiles,
    /// `ENFILE`: the system has as many open files as `fs.file-max` allows.
    TooManyFilesInSystem,
    /// `ENOMEM`, `ENOBUFS`: no memory.
    OutOfMemory,
    /// `EINVAL`, `EBADF`, `ENAMETOOLONG`, `ENOTSOCK` …: the call does not fit the object.
    InvalidInput,
    /// `ENOSYS`, `EOPNOTSUPP`, `EPROTONOSUPPORT`: this kernel or object cannot do it.
    NotSupported,
    /// `EIDRM`, `ESRCH`, `ESTALE`: the object or process is gone.
    Gone,
    /// Anything else; see [`Error::name`].
    Other,
}

impl Error {
    /// An error of `call`, named as in its man page.
    #[must_use]
    pub const fn new(call: &'static str, errno: Errno) -> Self {
        Self { call, errno }
    }

    /// An error of `call` from a raw error number. Numbers outside 1 to 4095 become `EIO`.
    #[cold]
    #[must_use]
    pub fn from_raw(call: &'static str, errno: i32) -> Self {
        let errno = if (1..4096).contains(&errno) { errno } else { libc::EIO };
        Self::new(call, Errno::from_raw_os_error(errno))
    }

    /// An error from the C library's `errno` of this thread.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Self::new(call, Errno::from_raw_os_error(raw))
    }

    /// The system call that failed, as in its man page: `"mq_timedsend"`.
    #[must_use]
    pub const fn call(self) -> &'static str {
        self.call
    }

    /// The error number, as `errno(3)` defines it.
    #[must_use]
    pub fn errno(self) -> i32 {
        self.errno.raw_os_error()
    }

    /// What a caller can do about it.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        use ErrorKind as K;
        match self.errno {
            Errno::NOENT | Errno::NXIO => K::NotFound,
            Errno::ACCESS | Errno::PERM => K::PermissionDenied,
            Errno::EXIST => K::AlreadyExists,
            Errno::AGAIN | Errno::NOMSG => K::WouldBlock,
            Errno::TIMEDOUT => K::TimedOut,
            Errno::INTR => K::Interrupted,
            Errno::PIPE => K::BrokenPipe,
            Errno::CONNREFUSED => K::ConnectionRefused,
            Errno::CONNRESET | Errno::CONNABORTED | Errno::NOTCONN => K::ConnectionReset,
            Errno::ADDRINUSE => K::AddressInUse,
            Errno::MSGSIZE | Errno::TOOBIG => K::MessageTooLarge,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => K::NoSpace,
            Errno::MFILE | Errno::TOOMANYREFS => K::TooManyFiles,
            Errno::NFILE => K::TooManyFilesInSystem,
            Errno::NOMEM | Errno::NOBUFS => K::OutOfMemory,
            Errno::INVAL
            | Errno::BADF
            | Errno::NAMETOOLONG
            | Errno::NOTSOCK
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::LOOP
            | Errno::DESTADDRREQ
            | Errno::ADDRNOTAVAIL
            | Errno::AFNOSUPPORT => K::InvalidInput,
            Errno::NOSYS
            | Errno::OPNOTSUPP
            | Errno::PROTONOSUPPORT
            | Errno::NOPROTOOPT
            | Errno::NOTTY => K::NotSupported,
            Errno::IDRM | Errno::SRCH | Errno::STALE => K::Gone,
            _ => K::Other,
        }
    }

    /// What to do about it, where that does not depend on what was wanted: a limit on descriptors or
    /// mappings was reached, and this raises it.
    #[must_use]
    pub fn advice(self) -> Option<&'static str> {
        match self.kind() {
            ErrorKind::TooManyFiles if self.errno == Errno::TOOMANYREFS => Some(
                "this user may have no more descriptors on their way between processes (RLIMIT_NOFILE): raise \
                 it with ulimit -n or LimitNOFILE=",
            ),
            ErrorKind::TooManyFiles => Some(
                "this process may have no more open descriptors (RLIMIT_NOFILE): raise it with \
                 ulimit -n or LimitNOFILE=",
            ),
            ErrorKind::TooManyFilesInSystem => {
                Some("the system has no more open files: raise it with sysctl fs.file-max")
            }
            ErrorKind::OutOfMemory
                if ["mmap", "mremap", "shmat", "madvise MADV_DONTFORK"].contains(&self.call) =>
            {
                Some(crate::mmap::advice())
            }
            _ => None,
        }
    }

    /// The error's symbolic name where this crate knows it (`"EMSGSIZE"`), else `"errno"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.errno()).map_or("errno", |(_, name)| name)
    }
}

/// Error numbers that IPC calls return, with their names.
const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::ESRCH, "ESRCH"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::EBADF, "EBADF"),
    (libc::ECHILD, "ECHILD"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EXDEV, "EXDEV"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENFILE, "ENFILE"),
    (libc::EMFILE, "EMFILE"),
    (libc::EMLINK, "EMLINK"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::EROFS, "EROFS"),
    (libc::ERANGE, "ERANGE"),
    (libc::EPIPE, "EPIPE"),
    (libc::EDEADLK, "EDEADLK"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOLCK, "ENOLCK"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENOMSG, "ENOMSG"),
    (libc::EIDRM, "EIDRM"),
    (libc::ENODATA, "ENODATA"),
    (libc::EPROTO, "EPROTO"),
    (libc::EBADMSG, "EBADMSG"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::ENOTSOCK, "ENOTSOCK"),
    (libc::EDESTADDRREQ, "EDESTADDRREQ"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::EPROTOTYPE, "EPROTOTYPE"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::EISCONN, "EISCONN"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ETOOMANYREFS, "ETOOMANYREFS"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EALREADY, "EALREADY"),
    (libc::EINPROGRESS, "EINPROGRESS"),
    (libc::ESTALE, "ESTALE"),
    (libc::EDQUOT, "EDQUOT"),
    (libc::EOWNERDEAD, "EOWNERDEAD"),
    (libc::ENOTRECOVERABLE, "ENOTRECOVERABLE"),
];

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.call, self.name(), self.errno())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // std's text ends in " (os error N)"; the name says more.
        let text = std::io::Error::from_raw_os_error(self.errno()).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        write!(f, "{}: {text} ({})", self.call, self.name())
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::from_raw_os_error(error.errno())
    }
}

/// Names the call of a `rustix` result.
pub(crate) trait OfCall<T> {
    /// Turns an error number into an [`Error`] of `call`.
    fn of(self, call: &'static str) -> Result<T>;
}

impl<T> OfCall<T> for core::result::Result<T, Errno> {
    #[inline]
    fn of(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| Error::new(call, errno))
    }
}

/// What a call of the C library returned, or this thread's `errno` if that is negative.
#[inline]
pub(crate) fn checked(result: libc::c_int) -> core::result::Result<libc::c_int, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// This thread's `errno`. Takes no lock and no memory: safe between fork and exec.
#[cold]
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
