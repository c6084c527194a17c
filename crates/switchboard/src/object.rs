//! Objects with a name: made and removed apart from their use.
//!
//! `create` makes an object that outlives the process that made it, with owner, mode and sizes from
//! the address. `unlink` removes a name; whoever has the object open keeps it. How is each transport's
//! own matter; see its row in [`TABLE`](crate::transport::TABLE).

use switchboard_kernel as kernel;

use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// Makes the object of an address: a FIFO, a message queue, a semaphore, the memory of a state, or a
/// log.
///
/// # Errors
/// `AddressInUse` when it exists; `NotSupported` for addresses without such an object; `BadAddress` for
/// a size or count that no such object can have; limits by name.
pub fn create(address: &Address) -> Result<(), Error> {
    let create = address.transport().object.as_ref().and_then(|object| object.create);
    let Some(create) = create else {
        let scheme = address.scheme();
        let problem =
            format!("{scheme}: has nothing to create; it exists while an endpoint is open");
        return Err(Error::new(ErrorKind::NotSupported, address, problem));
    };
    create(address).map_err(|error| match error.kind() {
        ErrorKind::AddressInUse => {
            Error::new(ErrorKind::AddressInUse, address, "it exists already")
        }
        _ => error,
    })
}

/// Removes the object of an address, or the socket that a dead process left.
///
/// # Errors
/// `NotFound`; `AddressInUse` for a socket that somebody listens on; `Mismatch` for a name that something
/// else has; `NotSupported` for addresses without a name to remove.
pub fn unlink(address: &Address) -> Result<(), Error> {
    match &address.transport().object {
        Some(object) => (object.unlink)(address),
        None => Err(no_name(address)),
    }
}

/// The error of an address that names nothing which could be removed.
pub(crate) fn no_name(address: &Address) -> Error {
    let problem = format!("{}: has no name to remove", address.scheme());
    Error::new(ErrorKind::NotSupported, address, problem)
}

/// Why a name could not be removed.
pub(crate) fn cannot_unlink(address: &Address, error: kernel::Error) -> Error {
    match error.kind() {
        kernel::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, address, "there is nothing of this name")
        }
        _ => Error::system(address, "cannot remove it", error),
    }
}
