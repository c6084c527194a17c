//! `fifo:PATH`: named pipes, framed by lines unless said otherwise, so that `echo` and `cat` fit.
//!
//! Source: `fifo(7)`, `pipe(7)`. Whoever comes first makes the FIFO if it is not there, with its final
//! owner and mode, and removes it again when it closes; one made with `create` stays. Neither side hangs
//! in `open`. Several writers may write at a time: a message and its framing are one write of at most
//! `PIPE_BUF` bytes (4096), which the kernel keeps whole. `?framing=raw` is for one writer's stream.
//! A link (`?framing=link`) is refused: its hello is each writer's own, and its frames would be mixed.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use switchboard_kernel as kernel;
use switchboard_kernel::{fifo, pipe};

use super::connection::{Channel, Wire};
use super::hub::{Dial, Hub, Meet, Met};
use super::unix::{identity, missing_folder};
use super::{ReceiverFlavor, SenderFlavor, Setup, StreamReceiver, StreamSender};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;
use crate::link::{Pattern, Role};
use crate::object::{cannot_unlink, no_name};

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let hub = open(setup, Role::Sender)?;
    Ok(SenderFlavor::Stream(Box::new(StreamSender::new(hub))))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let hub = open(setup, Role::Receiver)?;
    Ok(ReceiverFlavor::Stream(Box::new(StreamReceiver::new(hub))))
}

/// Makes the FIFO, to stay until it is unlinked.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    let Target::Path(path) = &address.target else { return Err(no_name(address)) };
    fifo::create(path, address.query.permissions())
        .map_err(|error| missing_folder(address, "cannot make the FIFO", error))
}

/// Removes its name.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::Path(path) = &address.target else { return Err(no_name(address)) };
    if fifo::is_fifo(path).is_ok_and(|is_fifo| !is_fifo) {
        return Err(Error::new(ErrorKind::Mismatch, address, NO_FIFO));
    }
    fifo::unlink(path).map_err(|error| cannot_unlink(address, error))
}

fn open(setup: &Setup, role: Role) -> Result<Hub, Error> {
    let Target::Path(path) = &setup.address.target else {
        return Err(Error::new(ErrorKind::BadAddress, &setup.address, "no path"));
    };
    if setup.framing() == Framing::Link {
        let problem = "a link's frames are one writer's, and a FIFO may have several: their frames \
                       would be mixed";
        return Err(Error::new(ErrorKind::BadAddress, &setup.address, problem)
            .hint("use lines or ?framing=length here, or unix: for a link"));
    }
    let mut setup = setup.again();
    // Both ends connect to the FIFO; nobody binds it.
    setup.address.query.bind = Some(false);
    let meet = FifoMeet {
        address: setup.address.clone(),
        path: path.clone(),
        role,
        made: std::sync::OnceLock::new(),
        capacity: setup.address.query.capacity_bytes,
        framing: setup.framing(),
    };
    meet.make()?;
    Hub::meet(setup, Pattern::Queue, role, Box::new(meet))
}

#[derive(Debug)]
struct FifoMeet {
    address: Address,
    path: PathBuf,
    role: Role,
    /// Device and inode, if this endpoint made the FIFO.
    made: std::sync::OnceLock<(u64, u64)>,
    capacity: Option<u32>,
    framing: Framing,
}

const NO_FIFO: &str = "something that is not a FIFO has this name";

/// The capacity asked for where bytes stream: what an ordinary user gets (pipe-max-size).
const RAW_CAPACITY_BYTES: usize = 1 << 20;

impl FifoMeet {
    /// Makes the FIFO if nothing has its name. One that is there need not be in a folder that this
    /// user may write, so looking comes first.
    fn make(&self) -> Result<(), Error> {
        if let Some(result) = self.is_there() {
            return result;
        }
        match fifo::create(&self.path, self.address.query.permissions()) {
            Ok(()) => {
                if let Some(identity) = identity(&self.path) {
                    let _ = self.made.set(identity);
                }
                Ok(())
            }
            Err(error) => self.is_there().unwrap_or_else(|| {
                let failed = missing_folder(&self.address, "cannot make the FIFO", error);
                Err(match error.kind() {
                    kernel::ErrorKind::PermissionDenied => failed.hint(
                        "it is not there, and its folder's owner and mode decide who may make it; \
                         have it made by somebody who may: switchboard create",
                    ),
                    _ => failed,
                })
            }),
        }
    }

    /// What there is under the name: a FIFO, something else, or nothing that could be seen.
    fn is_there(&self) -> Option<Result<(), Error>> {
        match fifo::is_fifo(&self.path) {
            Ok(true) => Some(Ok(())),
            Ok(false) => Some(Err(Error::new(ErrorKind::AddressInUse, &self.address, NO_FIFO))),
            Err(_) => None,
        }
    }

    fn met(&self, fd: OwnedFd) -> Result<Dial, Error> {
        if let Some(bytes) = self.capacity {
            pipe::set_capacity(&fd, bytes as usize).map_err(|error| {
                Error::system(&self.address, "cannot set the pipe's capacity", error)
                    .hint("an ordinary user gets up to /proc/sys/fs/pipe-max-size bytes")
            })?;
        } else if self.framing == Framing::Raw {
            pipe::grow(&fd, RAW_CAPACITY_BYTES);
        }
        let peer = match self.role {
            Role::Sender => "the reader of the FIFO",
            Role::Receiver => "the writer of the FIFO",
        };
        Ok(Dial::Connected(Met { fd, channel: Channel::Pipe, peer: peer.to_owned() }))
    }
}

impl Meet for FifoMeet {
    fn listen(&self) -> Result<OwnedFd, Error> {
        Err(Error::new(ErrorKind::NotSupported, &self.address, "a FIFO is not bound"))
    }

    fn accept(&self, _: BorrowedFd<'_>) -> kernel::Result<Met> {
        Err(kernel::Error::from_raw("accept", 95))
    }

    fn dial(&self) -> Result<Dial, Error> {
        use kernel::ErrorKind as K;
        let result = match self.role {
            Role::Sender => fifo::open_writer(&self.path),
            Role::Receiver => fifo::open_reader(&self.path),
        };
        match result {
            Ok(fd) => self.met(fd),
            // ENXIO: nobody reads it yet. ENOENT: whoever made it removed it; make it again.
            Err(error) if error.kind() == K::NotFound => {
                if identity(&self.path).is_none() {
                    self.make()?;
                }
                Ok(Dial::NotYet)
            }
            Err(error) => Err(missing_folder(&self.address, "cannot open the FIFO", error)),
        }
    }

    fn dialled(&self, fd: OwnedFd) -> Result<Dial, Error> {
        self.met(fd)
    }

    fn local_address(&self, _: BorrowedFd<'_>) -> Option<String> {
        None
    }

    fn adjust(&self, wire: &mut Wire) {
        if let Wire::Foreign(foreign) = wire
            && self.framing != Framing::Raw
        {
            foreign.keep_whole(pipe::PIPE_BUF);
        }
    }

    fn unlisten(&self) {
        if self.made.get().is_some() && identity(&self.path).as_ref() == self.made.get() {
            let _ = fifo::unlink(&self.path);
        }
    }
}
