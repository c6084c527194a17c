//! `unix:PATH`, `unix:@NAME`: Unix-domain stream sockets.
//!
//! Source: `unix(7)`. One side binds the path and the other connects; the path is visible only once
//! its owner and mode are set and the socket listens. A path left by a dead process is replaced; one
//! that somebody listens on is an error that names the holder.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use switchboard_kernel as kernel;
use switchboard_kernel::unix_socket::{self, Kind};
use switchboard_kernel::{Permissions, process};

use super::connection::Channel;
use super::hub::{Dial, Hub, Meet, Met};
use super::setup::{check_for_links, starts_over_links};
use super::{
    ClientFlavor, ListenerFlavor, LiveReader, LiveWriter, NotifierFlavor, ReceiverFlavor,
    SenderFlavor, ServerFlavor, Setup, StreamClient, StreamPublisher, StreamReceiver, StreamSender,
    StreamServer, holder,
};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;
use crate::link::{Pattern, Role};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::topic::Start;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    sender(setup, Kind::Stream)
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    receiver(setup, Kind::Stream)
}

pub(crate) fn open_publisher(setup: &Setup) -> Result<SenderFlavor, Error> {
    publisher(setup, Kind::Stream)
}

pub(crate) fn open_subscriber(setup: &Setup, start: Start) -> Result<ReceiverFlavor, Error> {
    subscriber(setup, start, Kind::Stream)
}

pub(crate) fn open_client(setup: &Setup) -> Result<ClientFlavor, Error> {
    client(setup, Kind::Stream)
}

pub(crate) fn open_server(setup: &Setup) -> Result<ServerFlavor, Error> {
    server(setup, Kind::Stream)
}

pub(crate) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    notifier(setup, Kind::Stream)
}

pub(crate) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    listener(setup, Kind::Stream)
}

pub(crate) fn open_state_writer(setup: &Setup) -> Result<LiveWriter, Error> {
    state_writer(setup, Kind::Stream)
}

pub(crate) fn open_state_reader(setup: &Setup) -> Result<LiveReader, Error> {
    state_reader(setup, Kind::Stream)
}

/// A sender over a connected socket of either kind.
pub(super) fn sender(setup: &Setup, kind: Kind) -> Result<SenderFlavor, Error> {
    let hub = meet(setup, kind, Pattern::Queue, Role::Sender)?;
    Ok(SenderFlavor::Stream(Box::new(StreamSender::new(hub))))
}

/// A receiver over a connected socket of either kind.
pub(super) fn receiver(setup: &Setup, kind: Kind) -> Result<ReceiverFlavor, Error> {
    let hub = meet(setup, kind, Pattern::Queue, Role::Receiver)?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

/// A publisher over connected sockets of either kind.
pub(super) fn publisher(setup: &Setup, kind: Kind) -> Result<SenderFlavor, Error> {
    let hub = meet(setup, kind, Pattern::Topic, Role::Sender)?;
    Ok(SenderFlavor::Publisher(Box::new(StreamPublisher::new(hub))))
}

/// A subscriber over connected sockets of either kind.
pub(super) fn subscriber(setup: &Setup, start: Start, kind: Kind) -> Result<ReceiverFlavor, Error> {
    starts_over_links(setup, start)?;
    let hub = meet(setup, kind, Pattern::Topic, Role::Receiver)?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

/// A client over connected sockets of either kind.
pub(super) fn client(setup: &Setup, kind: Kind) -> Result<ClientFlavor, Error> {
    let hub = meet(setup, kind, Pattern::Service, Role::Sender)?;
    Ok(ClientFlavor::Stream(Box::new(StreamClient::new(hub))))
}

/// A server over connected sockets of either kind.
pub(super) fn server(setup: &Setup, kind: Kind) -> Result<ServerFlavor, Error> {
    let hub = meet(setup, kind, Pattern::Service, Role::Receiver)?;
    Ok(ServerFlavor::Stream(Box::new(StreamServer::new(hub))))
}

/// A notifier over connected sockets of either kind.
pub(super) fn notifier(setup: &Setup, kind: Kind) -> Result<NotifierFlavor, Error> {
    Ok(NotifierFlavor::over_links(meet(setup, kind, Pattern::Event, Role::Sender)?))
}

/// A listener over connected sockets of either kind.
pub(super) fn listener(setup: &Setup, kind: Kind) -> Result<ListenerFlavor, Error> {
    Ok(ListenerFlavor::over_links(meet(setup, kind, Pattern::Event, Role::Receiver)?))
}

/// The writer of a state over connected sockets of either kind.
pub(super) fn state_writer(setup: &Setup, kind: Kind) -> Result<LiveWriter, Error> {
    Ok(LiveWriter::over_links(meet(setup, kind, Pattern::State, Role::Sender)?))
}

/// A reader of a state over connected sockets of either kind.
pub(super) fn state_reader(setup: &Setup, kind: Kind) -> Result<LiveReader, Error> {
    LiveReader::over_links(meet(setup, kind, Pattern::State, Role::Receiver)?)
}

fn meet(setup: &Setup, kind: Kind, pattern: Pattern, role: Role) -> Result<Hub, Error> {
    check_for_links(setup, pattern)?;
    let meet = Box::new(UnixMeet::new(setup, kind));
    Hub::meet(within_packets(setup, kind), pattern, role, meet)
}

/// A packet that is a message of its own fits a socket's default buffer (net.core.wmem_default).
const LARGEST_PACKET_BYTES: u32 = 128 << 10;

/// The setup, with messages limited to one packet where each is one.
fn within_packets(setup: &Setup, kind: Kind) -> Setup {
    let mut setup = setup.again();
    if kind == Kind::Seqpacket && setup.framing() != Framing::Link {
        let largest = setup.largest_message_bytes().min(LARGEST_PACKET_BYTES);
        setup.options.max_message_bytes = Some(largest);
    }
    setup
}

/// The kernel's form of a Unix address.
pub(super) fn socket_address(address: &Address) -> unix_socket::Address {
    match &address.target {
        Target::Abstract(name) => unix_socket::Address::Abstract(name.clone()),
        Target::Path(path) => unix_socket::Address::Path(path.clone()),
        // The table gives these schemes a path or an abstract name, nothing else.
        _ => unix_socket::Address::Abstract(Vec::new()),
    }
}

/// Makes way at a path for a new socket: removes what a dead process left.
///
/// # Errors
/// When somebody listens there, or something else has the name.
pub(super) fn clear_path(address: &Address, kind: Kind) -> Result<(), Error> {
    let Target::Path(path) = &address.target else { return Ok(()) };
    match unix_socket::remove_stale(path, kind) {
        Ok(true) => Ok(()),
        Ok(false) => Err(in_use(address, kind)),
        Err(error) if error.kind() == kernel::ErrorKind::AlreadyExists => Err(no_socket(address)),
        Err(error) => Err(missing_folder(address, "cannot bind", error)),
    }
}

/// Whether something else than a socket has the name: connecting to it is refused as to a dead socket,
/// but it will never be one.
pub(super) fn is_no_socket(address: &Address) -> bool {
    let Target::Path(path) = &address.target else { return false };
    // connect(2) follows symbolic links.
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket())
}

/// The error of a name that something else than a socket has.
pub(super) fn no_socket(address: &Address) -> Error {
    let problem = "something that is not a socket has this name";
    Error::new(ErrorKind::AddressInUse, address, problem)
}

/// Removes a socket that a dead process left.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    remove_stale(address, Kind::Stream)
}

/// As [`unlink`], for a socket of any kind.
pub(super) fn remove_stale(address: &Address, kind: Kind) -> Result<(), Error> {
    let Target::Path(path) = &address.target else { return Err(no_name(address)) };
    let not_found = || Error::new(ErrorKind::NotFound, address, "there is nothing of this name");
    let metadata = std::fs::symlink_metadata(path).map_err(|_| not_found())?;
    if !metadata.file_type().is_socket() {
        return Err(no_socket(address).kinded(ErrorKind::Mismatch));
    }
    match unix_socket::remove_stale(path, kind) {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(held(address, kind).hint("its name goes when that process ends: stop it first"))
        }
        Err(error) => Err(cannot_unlink(address, error)),
    }
}

/// The error of a name that somebody else has bound, and who that is.
pub(super) fn in_use(address: &Address, kind: Kind) -> Error {
    let hint = if address.transport().options.contains(&"connect") {
        "only one side binds; give this side ?connect, or stop the other"
    } else {
        "only one receiver has it; choose another name, or stop the other"
    };
    held(address, kind).hint(hint)
}

fn held(address: &Address, kind: Kind) -> Error {
    let connected = unix_socket::connect_to(kind, &socket_address(address), true);
    let holder = connected.ok().and_then(|fd| match kind {
        Kind::Datagram => holder::of_peer(fd),
        _ => unix_socket::peer_credentials(&fd).ok().and_then(|credentials| credentials.pid),
    });
    let holder = holder.map_or(holder::SOMEBODY.to_owned(), name_of);
    let problem = format!("address in use: {holder} has bound it");
    Error::new(ErrorKind::AddressInUse, address, problem)
}

/// `process 1234 (name)`.
pub(super) fn name_of(pid: u32) -> String {
    match process::command_name(pid) {
        Some(name) => format!("process {pid} ({name})"),
        None => format!("process {pid}"),
    }
}

/// The peer of a connected socket, by the kernel's word.
pub(super) fn peer_of(fd: BorrowedFd<'_>) -> String {
    match unix_socket::peer_credentials(fd) {
        Ok(credentials) => {
            credentials.pid.map_or("a process of another PID namespace".into(), name_of)
        }
        Err(_) => "a peer".into(),
    }
}

#[derive(Debug)]
struct UnixMeet {
    address: Address,
    kind: Kind,
    permissions: Permissions,
    /// Device and inode of the socket that `listen` made.
    bound: std::sync::OnceLock<(u64, u64)>,
}

impl UnixMeet {
    fn new(setup: &Setup, kind: Kind) -> Self {
        Self {
            address: setup.address.clone(),
            kind,
            permissions: setup.address.query.permissions(),
            bound: std::sync::OnceLock::new(),
        }
    }

    fn met(&self, fd: OwnedFd) -> Met {
        let peer = peer_of(fd.as_fd());
        let channel = if self.kind == Kind::Seqpacket {
            // Without this an empty packet would look like the end of the stream.
            let _ = unix_socket::enable_packet_ends(&fd);
            Channel::Packets
        } else {
            Channel::Stream
        };
        Met { fd, channel, peer }
    }
}

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;

impl Meet for UnixMeet {
    fn listen(&self) -> Result<OwnedFd, Error> {
        clear_path(&self.address, self.kind)?;
        let address = socket_address(&self.address);
        match unix_socket::listen_at(self.kind, &address, self.permissions, BACKLOG, true) {
            Ok(fd) => {
                if let Target::Path(path) = &self.address.target
                    && let Some(identity) = identity(path)
                {
                    let _ = self.bound.set(identity);
                }
                Ok(fd)
            }
            Err(error) if error.kind() == kernel::ErrorKind::AddressInUse => {
                Err(in_use(&self.address, self.kind))
            }
            Err(error) => Err(missing_folder(&self.address, "cannot bind", error)),
        }
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> kernel::Result<Met> {
        unix_socket::accept(listener, true).map(|fd| self.met(fd))
    }

    fn dial(&self) -> Result<Dial, Error> {
        use kernel::ErrorKind as K;
        match unix_socket::connect_to(self.kind, &socket_address(&self.address), true) {
            Ok(fd) => Ok(Dial::Connected(self.met(fd))),
            Err(error) => match error.kind() {
                K::ConnectionRefused | K::PermissionDenied if is_no_socket(&self.address) => {
                    Err(no_socket(&self.address))
                }
                K::ConnectionRefused | K::WouldBlock => Ok(Dial::NotYet),
                K::NotFound if folder_exists(&self.address) => Ok(Dial::NotYet),
                _ => Err(missing_folder(&self.address, "cannot connect", error)),
            },
        }
    }

    fn dialled(&self, fd: OwnedFd) -> Result<Dial, Error> {
        Ok(Dial::Connected(self.met(fd)))
    }

    fn local_address(&self, _: BorrowedFd<'_>) -> Option<String> {
        Some(self.address.as_str().to_owned())
    }

    fn unlisten(&self) {
        if let Target::Path(path) = &self.address.target
            && self.bound.get().is_some()
            && identity(path).as_ref() == self.bound.get()
        {
            let _ = unix_socket::unlink(path);
        }
    }
}

/// Device and inode: whether a path still names the same file.
pub(super) fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Whether the folder of a path exists: then the name in it may still appear.
pub(super) fn folder_exists(address: &Address) -> bool {
    let Target::Path(path) = &address.target else { return true };
    match path.parent() {
        None => true,
        Some(folder) if folder.as_os_str().is_empty() => true,
        Some(folder) => folder.is_dir(),
    }
}

/// An error that says so when it is the folder that is missing.
pub(super) fn missing_folder(address: &Address, doing: &str, error: kernel::Error) -> Error {
    if error.kind() == kernel::ErrorKind::NotFound && !folder_exists(address) {
        let folder = address.path().and_then(|path| path.parent());
        let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
        let problem = format!("{doing}: there is no folder {folder}");
        let hint = format!("make it first: mkdir -p {}", as_word(&folder));
        return Error::new(ErrorKind::NotFound, address, problem).hint(hint);
    }
    Error::system(address, doing, error)
}

/// A path as a word of a shell's command.
fn as_word(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if path.bytes().all(is_plain) && !path.starts_with('-') {
        path.to_owned()
    } else {
        format!("-- '{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::as_word;

    #[test]
    fn a_path_is_one_word_of_a_command() {
        assert_eq!(as_word("/run/user/1000/a.b"), "/run/user/1000/a.b");
        assert_eq!(as_word("/tmp/two words"), "-- '/tmp/two words'");
        assert_eq!(as_word("/tmp/it's"), r"-- '/tmp/it'\''s'");
        assert_eq!(as_word("-x"), "-- '-x'");
        assert_eq!(as_word("/tmp/$(id)"), "-- '/tmp/$(id)'");
    }
}
