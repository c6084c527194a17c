//! Objects with a name: made and removed apart from their use.
//!
//! `create` makes an object that outlives the process that made it, with owner, mode and sizes from
//! the address. `unlink` removes a name; whoever has the object open keeps it.

use std::os::unix::fs::FileTypeExt;

use switchboard_kernel as kernel;
use switchboard_kernel::unix_socket::Kind;
use switchboard_kernel::{fifo, posix_mq, sysv_msg, unix_socket};

use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::transport::{mq, sysv, unix};

/// Makes the object of an address: a FIFO, a POSIX or a System V message queue.
///
/// # Errors
/// `AddressInUse` when it exists; `NotSupported` for addresses without such an object; limits by
/// name.
pub fn create(address: &Address) -> Result<(), Error> {
    let exists = |error: Error| {
        if error.kind() == ErrorKind::AddressInUse {
            return Error::new(ErrorKind::AddressInUse, address, "it exists already");
        }
        error
    };
    match (address.scheme(), &address.target) {
        ("fifo", Target::Path(path)) => fifo::create(path, address.query.permissions())
            .map_err(|error| unix::missing_folder(address, "cannot make the FIFO", error))
            .map_err(exists),
        ("mq", _) => mq::create(address, true).map(drop).map_err(exists),
        ("sysv", _) => sysv::create(address, true).map(drop).map_err(exists),
        (scheme, _) => Err(Error::new(
            ErrorKind::NotSupported,
            address,
            format!("{scheme}: has nothing to create; it exists while an endpoint is open"),
        )),
    }
}

/// Removes the object of an address, or the socket that a dead process left.
///
/// # Errors
/// `NotFound`; `AddressInUse` for a socket that somebody listens on; `NotSupported` for addresses
/// without a name to remove.
pub fn unlink(address: &Address) -> Result<(), Error> {
    let failed = |error: kernel::Error| match error.kind() {
        kernel::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, address, "there is nothing of this name")
        }
        _ => Error::system(address, "cannot remove it", error),
    };
    match (address.scheme(), &address.target) {
        ("fifo", Target::Path(path)) => fifo::unlink(path).map_err(failed),
        ("mq", Target::QueueName(name)) => posix_mq::unlink(name).map_err(failed),
        ("sysv", Target::SysvKey(key)) => {
            sysv_msg::MessageQueue::open(key).and_then(|queue| queue.remove()).map_err(failed)
        }
        (scheme, Target::Path(path)) => {
            let metadata = std::fs::symlink_metadata(path);
            match metadata {
                Ok(metadata) if metadata.file_type().is_socket() => {}
                Ok(_) => {
                    let problem = "something that is not a socket has this name";
                    return Err(Error::new(ErrorKind::NotSupported, address, problem));
                }
                Err(_) => {
                    let problem = "there is nothing of this name";
                    return Err(Error::new(ErrorKind::NotFound, address, problem));
                }
            }
            let kind = match scheme {
                "unix-seqpacket" => Kind::Seqpacket,
                "unix-dgram" => Kind::Datagram,
                _ => Kind::Stream,
            };
            match unix_socket::remove_stale(path, kind) {
                Ok(true) => Ok(()),
                Ok(false) => Err(unix::in_use(address, kind)),
                Err(error) => Err(failed(error)),
            }
        }
        (scheme, _) => Err(Error::new(
            ErrorKind::NotSupported,
            address,
            format!("{scheme}: has no name to remove"),
        )),
    }
}
