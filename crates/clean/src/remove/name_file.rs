//! Files of Unix sockets and FIFOs: names that hold nothing.
//!
//! Source: `unix(7)`, `connect(2)`, `fifo(7)`; docs/design/clean.md. A FIFO is never opened, and nobody is ever connected to.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use switchboard_inspect::Kind;

use super::memory_file::{back, folder_of, is_what_it_was, stat};
use super::{Facts, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::holders;
use crate::journal::{Run, Size};
use crate::target::{Target, parts};

pub(super) struct Name {
    kind: Kind,
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    found: Stat,
    partial: bool,
    hidden: Option<OsString>,
}

impl Name {
    pub(super) fn look(target: &Target, options: Options) -> Result<Self> {
        let path = target.place.path()?;
        let (folder, name) = parts(&path);
        let folder = folder_of(folder)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::empty())
            .map_err(|errno| Error::errno("looking at it", "openat", errno))?;
        let found = stat(&file)?;
        // This descriptor would be found, too.
        drop(file);
        let expected = if target.kind == Kind::Fifo { FileType::Fifo } else { FileType::Socket };
        if FileType::from_raw_mode(found.st_mode) != expected {
            return Err(changed("it is of another type now"));
        }
        is_what_it_was(&found, target)?;
        if found.st_nlink != 1 {
            let why = format!("it has {} names: somebody may have it by another", found.st_nlink);
            return Err(in_use(why));
        }
        check_owner(&[found.st_uid])?;
        check_age(found.st_ctime.max(found.st_mtime), options.min_age)?;
        let (kind, name, partial) = (target.kind, name.to_owned(), options.partial);
        let found = Self { kind, path, folder, name, found, partial, hidden: None };
        found.nobody(&found.name)?;
        Ok(found)
    }

    fn nobody(&self, name: &std::ffi::OsStr) -> Result<()> {
        if self.kind == Kind::Unix {
            return no_socket(&self.folder, name);
        }
        let seen = holders::of_fifo((self.found.st_dev, self.found.st_ino), &self.path, name);
        let unseen = |what: String| Err(Error::new(Reason::Unseen, what));
        match seen.by {
            Some(by) => Err(in_use(by)),
            None if seen.in_flight > 0 => unseen(format!(
                "{} descriptors are in flight in sockets: one may be of it",
                seen.in_flight
            )),
            None if seen.rings > 0 => unseen(format!(
                "{} io_urings hold what they do not show: it may be in one",
                seen.rings
            )),
            None if seen.unreadable > 0 && !self.partial => unseen(format!(
                "whether somebody has it open: {} processes cannot be read",
                seen.unreadable
            )),
            None => Ok(()),
        }
    }
}

/// Whether no socket has this file. One that is bound there answers a datagram socket that it is of another type, or takes the
/// address for its messages: neither is seen by who has it.
fn no_socket(folder: &OwnedFd, name: &std::ffi::OsStr) -> Result<()> {
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
        Facts {
            key: 0,
            identity: (self.found.st_dev, self.found.st_ino),
            owner: self.found.st_uid,
            group: self.found.st_gid,
            mode: self.found.st_mode & 0o7777,
            size: Size::Nothing,
            hides: true,
        }
    }

    fn close(&mut self, hidden: &str) -> Result<()> {
        let hidden = OsString::from(hidden);
        let now = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let now = now.map_err(|errno| Error::errno("looking at it", "fstatat", errno))?;
        let same =
            |stat: &Stat| (stat.st_dev, stat.st_ino) == (self.found.st_dev, self.found.st_ino);
        if !same(&now) {
            return Err(changed("something else has its name now"));
        }
        let renamed = rustix::fs::renameat_with(
            &self.folder,
            &self.name,
            &self.folder,
            &hidden,
            RenameFlags::NOREPLACE,
        );
        renamed.map_err(|errno| Error::errno("hiding it", "renameat2", errno))?;
        let moved = rustix::fs::statat(&self.folder, &hidden, AtFlags::SYMLINK_NOFOLLOW);
        let is_same = moved.as_ref().is_ok_and(same);
        self.hidden = Some(hidden.clone());
        if !is_same {
            return Err(changed("something else has its name now"));
        }
        self.nobody(&hidden)
    }

    fn save(&mut self, _: &mut Run, _: u32) -> Result<(Option<std::fs::File>, u32)> {
        Ok((None, 0))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        let hidden = self.hidden.clone().unwrap_or_default();
        rustix::fs::unlinkat(&self.folder, &hidden, AtFlags::empty())
            .map_err(|errno| Error::errno("removing it", "unlinkat", errno))?;
        self.hidden = None;
        Ok(None)
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        match self.hidden.take() {
            Some(hidden) => back(&self.folder, &hidden, &self.name),
            None => Ok(()),
        }
    }
}
