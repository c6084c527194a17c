//! Files of Unix sockets and FIFOs: names that hold nothing.
//!
//! Source: `unix(7)`, `connect(2)`, `fifo(7)`; docs/design/clean.md. A FIFO is never opened, and nobody is ever connected to.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use switchboard_inspect::Kind;

use super::hidden::Named;
use super::{Facts, Object, Options, in_use};
use crate::error::{Error, Result};
use crate::holders;
use crate::journal::{Run, Size};
use crate::target::Target;

pub(super) struct Name {
    kind: Kind,
    path: PathBuf,
    file: Named,
    partial: bool,
}

impl Name {
    pub(super) fn look(target: &Target, options: Options) -> Result<Self> {
        let expected = if target.kind == Kind::Fifo { FileType::Fifo } else { FileType::Socket };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (file, open) = Named::look(target, options, expected, |folder, name| {
            rustix::fs::openat(folder, name, flags, Mode::empty())
                .map_err(|errno| Error::errno("looking at it", "openat", errno))
        })?;
        // This descriptor would be found, too.
        drop(open);
        let path = target.place.path()?;
        let found = Self { kind: target.kind, path, file, partial: options.partial };
        found.nobody(&found.file.name)?;
        Ok(found)
    }

    fn nobody(&self, name: &OsStr) -> Result<()> {
        if self.kind == Kind::Unix {
            return no_socket(&self.file.folder, name);
        }
        let seen = holders::of_fifo(self.file.identity(), &self.path, name);
        seen.nobody("whether somebody has it open", self.partial)
    }
}

/// Whether no socket has this file. One that is bound there answers a datagram socket that it is of another type, or takes the
/// address for its messages: neither is seen by who has it.
fn no_socket(folder: &OwnedFd, name: &OsStr) -> Result<()> {
    let failed = |call, errno| Error::errno("asking whether a socket has it", call, errno);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
    let probe = probe.map_err(|errno| failed("socket", errno))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    // Longer names than an address holds were never bound by it.
    let address = SocketAddrUnix::new(&path).map_err(|errno| failed("connect", errno))?;
    match rustix::net::connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => Ok(()),
        Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => Err(in_use("a socket is bound to it")),
        Err(errno) => Err(failed("connect", errno)),
    }
}

impl Object for Name {
    fn facts(&self) -> Facts {
        self.file.facts(Size::Nothing)
    }

    fn close(&mut self, hidden: &str) -> Result<()> {
        self.file.hide(hidden)?;
        self.nobody(hidden.as_ref())
    }

    fn save(&mut self, _: &mut Run, _: u32) -> Result<(Option<std::fs::File>, u32)> {
        Ok((None, 0))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.file.unlink().map(|()| None)
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        self.file.back()
    }
}
