//! How a `pthread_mutex_t` is made, and told from one that is not what this crate relies on.
//!
//! Source: `pthread_mutexattr_setrobust(3)`, `pthread_mutexattr_setpshared(3)`,
//! `pthread_mutexattr_setprotocol(3p)`.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use libc::{c_int, pthread_mutex_t, pthread_mutexattr_t};
use rustix::io::Errno;

use super::MutexOptions;
use crate::error::{Error, Result};
use crate::shared_words::{Kind, Slot};

pub(super) const KIND: Kind = Kind {
    magic: *b"SBMX",
    object_bytes: size_of::<pthread_mutex_t>(),
    call: "pthread_mutex_init",
};

pub(super) const PRIORITY_INHERITANCE: u32 = 1;

/// Attributes, destroyed on drop.
struct Attributes(MaybeUninit<pthread_mutexattr_t>);

impl Attributes {
    fn new() -> Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: there is room for one attributes object.
        done(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        Ok(Self(attributes))
    }

    fn set(
        &mut self,
        setter: unsafe extern "C" fn(*mut pthread_mutexattr_t, c_int) -> c_int,
        value: c_int,
    ) -> Result<()> {
        // SAFETY: the attributes were initialised by `new`, and every setter takes any number.
        done(unsafe { setter(self.0.as_mut_ptr(), value) })
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new` and destroyed only here.
        unsafe { libc::pthread_mutexattr_destroy(self.0.as_mut_ptr()) };
    }
}

pub(super) fn initialise(mutex: *mut pthread_mutex_t, options: MutexOptions) -> Result<()> {
    let mut attributes = Attributes::new()?;
    attributes.set(libc::pthread_mutexattr_setpshared, libc::PTHREAD_PROCESS_SHARED)?;
    attributes.set(libc::pthread_mutexattr_setrobust, libc::PTHREAD_MUTEX_ROBUST)?;
    attributes.set(libc::pthread_mutexattr_settype, libc::PTHREAD_MUTEX_ERRORCHECK)?;
    if options.priority_inheritance {
        attributes.set(libc::pthread_mutexattr_setprotocol, libc::PTHREAD_PRIO_INHERIT)?;
    }
    // SAFETY: `create_in` checked that a mutex fits there; slots are aligned to 8 bytes, as it is,
    // and nobody else uses these bytes while they are being made an object.
    done(unsafe { libc::pthread_mutex_init(mutex, attributes.0.as_ptr()) })
}

/// `ENOTSUP` is `EOPNOTSUPP` on Linux.
fn done(result: c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(Error::from_raw(KIND.call, result)) }
}

/// Refuses a mutex that is not what this module relies on: locking it again would not be refused,
/// or nobody would hear of a death. The GNU C library has these properties in the word at offset 16.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
pub(super) fn check(slot: &Slot, inherits: bool) -> Result<()> {
    const ERROR_CHECKING: u32 = 2;
    const ROBUST: u32 = 0x10;
    const INHERITS: u32 = 0x20;
    const PROCESS_SHARED: u32 = 0x80;
    let found = slot.words()[4].load(Ordering::Relaxed);
    let expected = ERROR_CHECKING | ROBUST | PROCESS_SHARED | if inherits { INHERITS } else { 0 };
    if found == expected { Ok(()) } else { Err(Error::new(KIND.call, Errno::INVAL)) }
}

#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
pub(super) fn check(_slot: &Slot, _inherits: bool) -> Result<()> {
    Ok(())
}
