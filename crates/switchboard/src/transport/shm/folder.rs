//! The folder of a channel: the sockets of its endpoints, by which they find each other.
//!
//! Source: `docs/design/shm.md`, "Meeting"; `unix(7)`, `connect(2)` (`ECONNREFUSED`, `EPROTOTYPE`).
//!
//! *Which names are dead.* A datagram socket that connects to the name is refused
//! (`ECONNREFUSED`) when no process has the name's socket, and told that the types differ
//! (`EPROTOTYPE`) when one has, whether that listens yet or not; the other side sees nothing of it.
//! Dead stays dead: no process can bind to an inode that exists. And a name is never used again, since
//! it is random; so what was found dead can be unlinked by its name.
//!
//! *Who removes the folder* is the last endpoint that goes. Somebody who has just opened the folder
//! cannot bind in it then (`ENOENT`), and makes it anew. Once a socket is bound in it, it cannot be
//! removed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use switchboard_kernel as kernel;
use switchboard_kernel::ErrorKind as K;
use switchboard_kernel::Permissions;
use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::private_folder;
use switchboard_kernel::unix_socket::{self, Kind};

use super::base::{self, Base, OpenFolder, Surroundings};
use super::key_locks::{PREFIX, is_same, take_all};
use super::name::{ChannelName, Entry, Found};
use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// `O_NOFOLLOW`, which is another number on aarch64.
const NO_FOLLOW: i32 = if cfg!(target_arch = "aarch64") { 0o100_000 } else { 0o400_000 };

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;
/// How often the folder is made anew because somebody else removed it meanwhile.
const MOST_TRIES: u32 = 1000;

/// The folder of a channel, open.
#[derive(Debug)]
pub(crate) struct Folder {
    address: Address,
    name: ChannelName,
    channels: OpenFolder,
    this: OpenFolder,
    is_shared: bool,
}

/// How a connection to another endpoint went.
#[derive(Debug)]
pub(crate) enum Dialled {
    Connected(OwnedFd),
    /// It takes no connections just now, or this process has no descriptor for one: why.
    NotNow(kernel::Error),
    /// It is dead or has left.
    Gone,
    /// Something else forbids it.
    Failed(kernel::Error),
}

impl Folder {
    /// Opens the folder of a channel, and makes what is not there of it.
    ///
    /// # Errors
    /// As [`base::open`].
    pub(crate) fn open(
        address: &Address,
        scope: Option<&Path>,
        surroundings: &Surroundings,
        name: &ChannelName,
    ) -> Result<Self, Error> {
        let Base { folder: channels, is_shared } = base::open(address, scope, surroundings)?;
        let this = make(address, &channels, name, is_shared)?;
        Ok(Self { address: address.clone(), name: name.clone(), channels, this, is_shared })
    }

    /// Whether ends of several users meet in it.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Listens under a name. Whoever sees the name can connect.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen(&mut self, entry: Entry) -> Result<OwnedFd, Error> {
        let name = entry.to_string();
        // In a shared folder its mode and this end's rules say who comes.
        let mode = if self.is_shared { 0o666 } else { 0o600 };
        let permissions = Permissions::new().mode(mode);
        for _ in 0..MOST_TRIES {
            let (folder, name) = (self.this.folder.as_fd(), OsStr::new(&name));
            match unix_socket::listen_in(Kind::Seqpacket, folder, name, permissions, BACKLOG, true)
            {
                Ok(listener) => return Ok(listener),
                // The last of the others removed the folder since it was opened here.
                Err(error) if error.kind() == K::NotFound && has_proc() => {
                    self.this = make(&self.address, &self.channels, &self.name, self.is_shared)?;
                }
                Err(error) => return Err(self.system("cannot listen", error)),
            }
        }
        let shown = self.this.path.display();
        let problem = format!("the folder {shown} is removed each time that it is made");
        Err(Error::new(ErrorKind::System, &self.address, problem))
    }

    /// The endpoints that are there. Names of the dead are removed; what is none of ours is left alone.
    ///
    /// # Errors
    /// `LimitReached`: there are more names than can be looked at; what the system says.
    pub(crate) fn scan(&self) -> Result<Vec<Entry>, Error> {
        let names = private_folder::names(&self.this.folder).map_err(|error| {
            if error.name() != "EOVERFLOW" {
                return self.system("cannot list the names", error);
            }
            let (shown, most) = (self.this.path.display(), private_folder::MOST_NAMES);
            let problem = format!("{shown} has more than {most} names");
            Error::new(ErrorKind::LimitReached, &self.address, problem)
                .hint("remove what is none of Switchboard's there")
        })?;
        let mut entries = Vec::new();
        for name in &names {
            match (name.to_str().and_then(Entry::parse), self.life(name)) {
                (Some(_), Life::Dead) => {
                    let _ = unix_socket::unlink_in(&self.this.folder, name);
                }
                (Some(Found::Visible(entry)), Life::Alive) => entries.push(entry),
                _ => {}
            }
        }
        Ok(entries)
    }

    fn life(&self, name: &OsStr) -> Life {
        match unix_socket::connect_in(Kind::Datagram, &self.this.folder, name, true) {
            Err(error) if error.kind() == K::ConnectionRefused => Life::Dead,
            Err(error) if ["ENOENT", "ENOTSOCK", "ELOOP"].contains(&error.name()) => Life::None,
            // It is a datagram socket.
            Ok(_) => Life::None,
            // Another type of socket; or not to be found out, and connecting will say why.
            Err(_) => Life::Alive,
        }
    }

    /// Connects to another endpoint, without blocking.
    pub(crate) fn dial(&self, entry: Entry) -> Dialled {
        let name = entry.to_string();
        let name = OsStr::new(&name);
        match unix_socket::connect_in(Kind::Seqpacket, &self.this.folder, name, true) {
            Ok(socket) => Dialled::Connected(socket),
            Err(error) => match error.kind() {
                K::WouldBlock | K::TooManyFiles | K::TooManyFilesInSystem | K::OutOfMemory => {
                    Dialled::NotNow(error)
                }
                // Whoever may make names here can make some that nobody can connect to.
                K::PermissionDenied if self.is_shared => Dialled::Gone,
                K::ConnectionRefused => {
                    if self.life(name) == Life::Dead {
                        self.remove(entry);
                    }
                    Dialled::Gone
                }
                _ if self.life(name) == Life::Alive => Dialled::Failed(error),
                _ => Dialled::Gone,
            },
        }
    }

    /// Removes the name of an endpoint that is dead, or is this one.
    pub(crate) fn remove(&self, entry: Entry) {
        let _ = unix_socket::unlink_in(&self.this.folder, OsStr::new(&entry.to_string()));
    }

    /// Removes the folder, if nobody has a name in it.
    pub(crate) fn remove_if_empty(&self) {
        let remove =
            || private_folder::remove_at(&self.channels.folder, OsStr::new(self.name.folder()));
        if remove().is_ok_and(|removed| !removed) && self.remove_unused_locks() {
            let _ = remove();
        }
    }

    /// Removes files of locks that nobody holds. Whether nothing else is there.
    fn remove_unused_locks(&self) -> bool {
        let Ok(names) = private_folder::names(&self.this.folder) else { return false };
        let lock =
            |name: &OsStr| name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned);
        let locks: Vec<String> = names.iter().filter_map(|name| lock(name)).collect();
        if locks.is_empty() || locks.len() < names.len() {
            return false;
        }
        for name in locks {
            if let Ok(file) = self.lock_file(&name) {
                self.remove_lock_file(&name, &file);
            }
        }
        true
    }

    /// Opens a file of locks, and makes it if it is not there.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, Error> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // Without following links: the folder is this user's, and so is what is in it.
        options.custom_flags(NO_FOLLOW).open(self.path_of(name)).map_err(|error| {
            let error = kernel::Error::from_raw("open", error.raw_os_error().unwrap_or_default());
            self.system("cannot open a file of locks", error)
        })
    }

    /// Whether this file has this name still.
    pub(super) fn has(&self, name: &str, file: &File) -> bool {
        let named = std::fs::symlink_metadata(self.path_of(name));
        let (Ok(named), Ok(own)) = (named, file.metadata()) else { return false };
        is_same(&named, &own)
    }

    /// Removes a file of locks, if nobody else has one in it. Who opened it before notices that it has no name.
    pub(super) fn remove_lock_file(&self, name: &str, file: &File) {
        if take_all(file) && self.has(name, file) {
            let _ = std::fs::remove_file(self.path_of(name));
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        let fd = self.this.folder.as_raw_fd();
        match has_proc() {
            true => PathBuf::from(format!("/proc/self/fd/{fd}/{name}")),
            false => self.this.path.join(name),
        }
    }

    fn system(&self, doing: &str, error: kernel::Error) -> Error {
        let doing = format!("{doing} in {}", self.this.path.display());
        Error::system(&self.address, &doing, error)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.remove_if_empty();
    }
}

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// A process has this socket.
    Alive,
    /// None has, and none will.
    Dead,
    /// It is no such socket.
    None,
}

/// The channel's folder, made if it is not there.
fn make(
    address: &Address,
    channels: &OpenFolder,
    name: &ChannelName,
    is_shared: bool,
) -> Result<OpenFolder, Error> {
    if is_shared {
        let folder = base::make_shared(address, channels, name.folder())?;
        keep(&folder.folder);
        return Ok(folder);
    }
    let path = channels.path.join(name.folder());
    let mut tries = 0;
    loop {
        match private_folder::make_at(&channels.folder, OsStr::new(name.folder())) {
            Ok(folder) => {
                keep(&folder);
                return Ok(OpenFolder { folder, path });
            }
            // Somebody removed it between its being made and being opened.
            Err(error) if error.kind() == K::NotFound && tries < MOST_TRIES => tries += 1,
            Err(error) => return Err(base::refused(address, &path, error)),
        }
    }
}

/// Says that the folder is in use, to what removes old files from the temporary directory: systemd-tmpfiles
/// skips folders that it cannot lock (`tmpfiles.d(5)`, "Age"). The lock goes with the descriptor.
fn keep(folder: &OwnedFd) {
    if let Ok(Some(guard)) = Lock::flock(Mode::Shared).try_lock(folder) {
        guard.keep();
    }
}

/// Whether `/proc` is mounted, which paths of descriptors need.
fn has_proc() -> bool {
    Path::new("/proc/self/fd").exists()
}
