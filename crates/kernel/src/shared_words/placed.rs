//! An object of the C library in a [`Slot`]: made exactly once, and told apart from other bytes.
//!
//! Source: `pthread_mutexattr_getpshared(3)`, `sem_init(3)`: such an object may be initialised once,
//! before anybody uses it. Nothing in it says that this has happened, so four words behind it do.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::Slot;
use crate::error::{Error, Result};

/// Bytes that a placed object takes, so that a slot needs to have: the C library's object at offset
/// 0, then four words of 32 bits in the byte order of the machine.
///
/// | offset | what |
/// |---|---|
/// | 0 | `pthread_mutex_t`, `pthread_cond_t` or `sem_t` |
/// | 48 | what it is: the bytes `SBMX`, `SBCV` or `SBSM` |
/// | 52 | 65536 + `sizeof` the C object: version 1, and not that of a program of another width |
/// | 56 | details: 1 for a mutex with priority inheritance, else 0 |
/// | 60 | 0: nothing here yet; 1: somebody is making it; 2: ready |
///
/// A C program that makes an object sets the word at 60 from 0 to 1 by compare-and-exchange, the
/// object and the other words next, and stores 2 there last (release). One that opens an object
/// waits for 2 there (acquire).
pub const OBJECT_BYTES: usize = 64;

/// What an object is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Four readable bytes, as they lie in memory.
    pub(crate) magic: [u8; 4],
    /// `sizeof` the C library's object.
    pub(crate) object_bytes: usize,
    /// The call that makes one, for errors.
    pub(crate) call: &'static str,
}

const WORD_MAGIC: usize = 12;
const WORD_VERSION: usize = 13;
const WORD_DETAILS: usize = 14;
const WORD_STATE: usize = 15;

const NOTHING: u32 = 0;
const MAKING: u32 = 1;
const READY: u32 = 2;

const VERSION: u32 = 1 << 16;

impl Kind {
    fn magic(self) -> u32 {
        u32::from_ne_bytes(self.magic)
    }

    fn version(self) -> u32 {
        VERSION | u32::try_from(self.object_bytes).unwrap_or(0)
    }

    fn error(self, errno: Errno) -> Error {
        Error::new(self.call, errno)
    }

    fn words(self, slot: &Slot) -> Result<&[AtomicU32]> {
        let fits = slot.len_bytes() >= OBJECT_BYTES && self.object_bytes <= WORD_MAGIC * 4;
        if fits { Ok(slot.words()) } else { Err(self.error(Errno::INVAL)) }
    }
}

/// Lets `initialise` make the object at the address it gets, unless there is one or somebody is
/// about to make one.
pub(crate) fn create_in(
    slot: &Slot,
    kind: Kind,
    details: u32,
    initialise: impl FnOnce(*mut u8) -> Result<()>,
) -> Result<()> {
    let words = kind.words(slot)?;
    let state = &words[WORD_STATE];
    // Partner: the store of NOTHING below or in Slot::clear. Acquire: their zeroes come before.
    let found = state.compare_exchange(NOTHING, MAKING, Ordering::Acquire, Ordering::Relaxed);
    match found {
        Ok(_) => {}
        Err(READY) => return Err(kind.error(Errno::EXIST)),
        Err(MAKING) => return Err(kind.error(Errno::AGAIN)),
        Err(_) => return Err(kind.error(Errno::INVAL)),
    }
    if let Err(error) = initialise(slot.address()) {
        state.store(NOTHING, Ordering::Release);
        return Err(error);
    }
    words[WORD_MAGIC].store(kind.magic(), Ordering::Relaxed);
    words[WORD_VERSION].store(kind.version(), Ordering::Relaxed);
    words[WORD_DETAILS].store(details, Ordering::Relaxed);
    // Partner: the load in `open_in`. Release: the object and the words above come before.
    state.store(READY, Ordering::Release);
    Ok(())
}

/// Checks that a ready object of this kind is there, and returns its details.
pub(crate) fn open_in(slot: &Slot, kind: Kind) -> Result<u32> {
    let words = kind.words(slot)?;
    // Partner: the last store in `create_in`, or a C program's.
    match words[WORD_STATE].load(Ordering::Acquire) {
        READY => {}
        NOTHING => return Err(kind.error(Errno::NOENT)),
        MAKING => return Err(kind.error(Errno::AGAIN)),
        _ => return Err(kind.error(Errno::INVAL)),
    }
    let is_so = words[WORD_MAGIC].load(Ordering::Relaxed) == kind.magic()
        && words[WORD_VERSION].load(Ordering::Relaxed) == kind.version();
    if is_so {
        Ok(words[WORD_DETAILS].load(Ordering::Relaxed))
    } else {
        Err(kind.error(Errno::INVAL))
    }
}
