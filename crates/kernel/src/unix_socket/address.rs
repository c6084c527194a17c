//! Names of Unix sockets, and how they fit into `struct sockaddr_un`.
//!
//! Source: `unix(7)` ("Address format", "Pathname sockets", "Abstract sockets"), `proc_pid_fd(5)`.

#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::error::{Error, OfCall, Result};
use crate::hidden_name::descriptor_path;

/// The longest name that `sun_path` holds, in bytes: one less than its size.
const LONGEST_NAME: usize = 107;

/// Where a Unix socket is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name in the file system, whose owner and mode say who may connect.
    Path(PathBuf),
    /// A name in the network namespace, of up to 107 bytes of any value: gone with its socket, open
    /// to every process. Compare [`super::peer_credentials`].
    Abstract(Vec<u8>),
}

/// An address as the kernel takes it, with what must stay open while it is used.
pub(super) struct Encoded {
    pub(super) name: SocketAddrUnix,
    _object: Option<OwnedFd>,
}

impl Address {
    /// For connecting; a path that does not fit is reached through a descriptor of the socket.
    pub(super) fn encode(&self) -> Result<Encoded> {
        let path = match self {
            Self::Abstract(name) => {
                let name = SocketAddrUnix::new_abstract_name(name).of("connect")?;
                return Ok(Encoded { name, _object: None });
            }
            Self::Path(path) => path,
        };
        if path.as_os_str().len() <= LONGEST_NAME {
            return Ok(Encoded { name: of_path(path)?, _object: None });
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let object = rustix::fs::open(path, flags, Mode::empty()).of("open")?;
        let name = of_path(&descriptor_path(object.as_fd()))?;
        Ok(Encoded { name, _object: Some(object) })
    }
}

/// A path as the kernel takes it, if it is short enough.
pub(super) fn of_path(path: &Path) -> Result<SocketAddrUnix> {
    match path.as_os_str().len() {
        // An empty one would be taken for an abstract name.
        0 => Err(Error::new("connect", Errno::NOENT)),
        1..=LONGEST_NAME => SocketAddrUnix::new(path).of("connect"),
        _ => Err(Error::new("connect", Errno::NAMETOOLONG)),
    }
}

/// `getsockname(fd)`: the name the socket was bound under; none if it has none.
///
/// For a socket bound by this library to a path it is the hidden name it was bound under, which is
/// no longer there. Accepted sockets have their listener's.
///
/// # Errors
/// `ENOTSOCK`; `EAFNOSUPPORT`: not a Unix socket.
pub fn local_address(fd: impl AsFd) -> Result<Option<Address>> {
    #[repr(C, align(8))]
    struct Buffer([u8; 128]);
    let mut buffer = Buffer([0; 128]);
    let mut len = 128;
    // SAFETY: the buffer is writable for the 128 bytes that `len` states, and aligned as any
    // sockaddr; both pointers are to locals that outlive the call.
    let result = unsafe {
        libc::getsockname(fd.as_fd().as_raw_fd(), (&raw mut buffer).cast(), &raw mut len)
    };
    if result != 0 {
        return Err(Error::last("getsockname"));
    }
    let bytes = &buffer.0[..buffer.0.len().min(len as usize)];
    let Some((family, name)) = bytes.split_at_checked(2) else { return Ok(None) };
    if family != u16::try_from(libc::AF_UNIX).unwrap_or_default().to_ne_bytes() {
        return Err(Error::new("getsockname", Errno::AFNOSUPPORT));
    }
    Ok(match name {
        [] => None,
        [0, name @ ..] => Some(Address::Abstract(name.to_vec())),
        // The kernel counts the final NUL, which need not fit in `sun_path`.
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            Some(Address::Path(PathBuf::from(OsStr::from_bytes(&path[..end]))))
        }
    })
}
