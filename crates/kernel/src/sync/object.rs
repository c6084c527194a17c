//! What all synchronisation objects have in common: where they lie, and how they are told from other
//! bytes.
//!
//! | offset | bytes | header |
//! |---|---|---|
//! | 0 | 4 | `SBSY` |
//! | 4 | 4 | version of the layout (high 16 bits), kind (low 16 bits) |
//! | 8 | 4 | the number that the object was made with: readers, permits, members |
//! | 12 | 4 | 0: nothing here; 1: being made; 2: ready |
//! | 16 | 4 | PID namespace of the maker: the inode number of `/proc/self/ns/pid` |
//! | 20 | 4 | length of the object |
//! | 24 | 8 | fingerprint of the data of a monitor, else 0 |
//! | 32 | 32 | words of the object's own |
//!
//! All in the byte order of the machine. `docs/design/sync.md` has the rest.

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::name::{Name, Named};
use crate::error::{Error, OfCall, Result};
use crate::shared_words::{SharedWords, Slot};

/// Length of the header.
pub(super) const HEADER_BYTES: usize = 64;

const MAGIC: u32 = u32::from_ne_bytes(*b"SBSY");
const VERSION: u32 = 1 << 16;

const WORD_MAGIC: usize = 0;
const WORD_VERSION: usize = 1;
const WORD_NUMBER: usize = 2;
const WORD_STATE: usize = 3;
const WORD_NAMESPACE: usize = 4;
const WORD_LENGTH: usize = 5;
const WORD_FINGERPRINT: usize = 6;
const WORD_OWN: usize = 8;

const NOTHING: u32 = 0;
const MAKING: u32 = 1;
const READY: u32 = 2;

/// What kind of object a header is of. The numbers are part of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    Mutex = 1,
    Condvar = 2,
    RwLock = 3,
    Permits = 4,
    Semaphore = 5,
    Barrier = 6,
    Once = 7,
    Monitor = 8,
}

/// What an object is made with, as its header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) number: u32,
    pub(super) bytes: usize,
    pub(super) fingerprint: u64,
}

/// A piece of memory with the header of a ready object.
#[derive(Debug)]
pub(super) struct Placed {
    slot: Slot,
    number: u32,
    /// Held for what its drop does: the name goes with its last user.
    name: Option<Named>,
}

impl Placed {
    /// Makes an object, exactly once: `make` gets the piece, whose header is there but for the mark
    /// that it is ready.
    pub(super) fn create<R>(
        slot: Slot,
        shape: Shape,
        make: impl FnOnce(&Self) -> Result<R>,
    ) -> Result<(Self, R)> {
        if slot.len_bytes() < shape.bytes {
            return Err(refused(Errno::INVAL));
        }
        let namespace = pid_namespace()?;
        let placed = Self { slot, number: shape.number, name: None };
        let words = placed.slot.words();
        // Partner: the stores below, or `Slot::clear`. Acquire: their zeroes come before.
        let state = &words[WORD_STATE];
        match state.compare_exchange(NOTHING, MAKING, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {}
            Err(READY) => return Err(refused(Errno::EXIST)),
            Err(MAKING) => return Err(refused(Errno::AGAIN)),
            Err(_) => return Err(refused(Errno::INVAL)),
        }
        let length = u32::try_from(shape.bytes).map_err(|_| refused(Errno::INVAL))?;
        let [low, high] = halves(shape.fingerprint);
        let header = [
            (WORD_MAGIC, MAGIC),
            (WORD_VERSION, VERSION | u32::from(shape.kind as u16)),
            (WORD_NUMBER, shape.number),
            (WORD_NAMESPACE, namespace),
            (WORD_LENGTH, length),
            (WORD_FINGERPRINT, low),
            (WORD_FINGERPRINT + 1, high),
        ];
        for (index, value) in header {
            words[index].store(value, Ordering::Relaxed);
        }
        match make(&placed) {
            Ok(made) => {
                // Partner: the load in `open`. Release: all of the object comes before.
                state.store(READY, Ordering::Release);
                Ok((placed, made))
            }
            Err(error) => {
                state.store(NOTHING, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Checks that a ready object of the kind is there.
    pub(super) fn open(slot: Slot, kind: Kind, fingerprint: u64) -> Result<Self> {
        if slot.len_bytes() < HEADER_BYTES {
            return Err(refused(Errno::INVAL));
        }
        let words = slot.words();
        // Partner: the last store in `create`.
        match words[WORD_STATE].load(Ordering::Acquire) {
            READY => {}
            NOTHING => return Err(refused(Errno::NOENT)),
            MAKING => return Err(refused(Errno::AGAIN)),
            _ => return Err(refused(Errno::INVAL)),
        }
        let word = |index: usize| words[index].load(Ordering::Relaxed);
        let length = usize::try_from(word(WORD_LENGTH)).unwrap_or(usize::MAX);
        let [low, high] = halves(fingerprint);
        let fits = word(WORD_MAGIC) == MAGIC
            && word(WORD_VERSION) == VERSION | u32::from(kind as u16)
            && length <= slot.len_bytes()
            && [word(WORD_FINGERPRINT), word(WORD_FINGERPRINT + 1)] == [low, high];
        if !fits {
            return Err(refused(Errno::INVAL));
        }
        // A thread id of another namespace may be that of somebody else here.
        if word(WORD_NAMESPACE) != pid_namespace()? {
            return Err(refused(Errno::XDEV));
        }
        let number = word(WORD_NUMBER);
        Ok(Self { slot, number, name: None })
    }

    /// Checks that the number is one that the object can have been made with, and that the memory is as
    /// long as that needs.
    pub(super) fn check(
        &self,
        range: RangeInclusive<u32>,
        bytes: impl FnOnce(u32) -> usize,
    ) -> Result<()> {
        let fits = range.contains(&self.number) && bytes(self.number) <= self.slot.len_bytes();
        if fits { Ok(()) } else { Err(refused(Errno::INVAL)) }
    }

    /// Keeps the name for as long as the object is used here.
    pub(super) fn keep(&mut self, name: Named) {
        self.name = Some(name);
    }

    /// The number that the object was made with, as it was when it was opened.
    #[inline]
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// One of the eight words of the object's own.
    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        &self.slot.words()[WORD_OWN + index]
    }

    /// The words from this offset on.
    #[inline]
    pub(super) fn words_from(&self, offset_bytes: usize) -> &[AtomicU32] {
        self.slot.words().get(offset_bytes / 4..).unwrap_or_default()
    }

    /// A piece behind the header.
    pub(super) fn part(&self, offset_bytes: usize, len_bytes: usize) -> Result<Slot> {
        self.slot.part(offset_bytes, len_bytes)
    }

    pub(super) fn memory(&self) -> &SharedWords {
        self.slot.memory()
    }
}

/// An object that processes share: how it is made and found, alike for all of them.
///
/// | | made by | found by |
/// |---|---|---|
/// | a process and those it gives a descriptor | [`anonymous`](Shared::anonymous) | [`from_fd`](Shared::from_fd) of [`memory`](Shared::memory) |
/// | a name | [`named`](Shared::named) | the same call |
/// | a place in memory that is mapped anyway | [`create_in`](Shared::create_in) | [`open_in`](Shared::open_in) |
///
/// An object is of one PID namespace, for the kernel and the C library write thread ids into it.
pub trait Shared: Sized {
    /// What one is made with.
    type Options;

    /// How many bytes one takes.
    fn bytes(options: &Self::Options) -> usize;

    /// Makes one in a piece of memory of [`bytes`](Shared::bytes), exactly once.
    ///
    /// # Errors
    /// `EEXIST` when there is one; `EAGAIN` when another process is making one now, or was killed
    /// doing so ([`Slot::clear`]); `EINVAL` for too short a piece, for other bytes, and for options
    /// out of range.
    fn create_in(slot: Slot, options: Self::Options) -> Result<Self>;

    /// One that was made in a piece of memory by another process, or earlier.
    ///
    /// # Errors
    /// `ENOENT` when there is none; `EAGAIN` while it is being made; `EINVAL` when other bytes are
    /// there, an object of another kind, or one of another version of this layout; `EXDEV` when it
    /// was made in another PID namespace.
    fn open_in(slot: Slot) -> Result<Self>;

    /// Whether it was made with these options, as far as that matters to who opens it.
    fn was_made_with(&self, options: &Self::Options) -> bool;

    /// The memory that it lies in: a descriptor to be given to another process.
    fn memory(&self) -> &SharedWords;

    #[doc(hidden)]
    fn keep_name(&mut self, name: NameOfObject);

    /// One in new memory that has no name, for this process, its threads, and those it gives the
    /// descriptor of [`memory`](Shared::memory).
    ///
    /// # Errors
    /// As [`SharedWords::create`] and [`create_in`](Shared::create_in).
    fn anonymous(options: Self::Options) -> Result<Self> {
        let len_bytes = Self::bytes(&options);
        let memory = SharedWords::create(len_bytes)?;
        Self::create_in(memory.slot(0, len_bytes)?, options)
    }

    /// One that another process made by [`anonymous`](Shared::anonymous), by a copy of its
    /// descriptor.
    ///
    /// # Errors
    /// As [`SharedWords::from_fd`] and [`open_in`](Shared::open_in).
    fn from_fd(fd: impl AsFd) -> Result<Self> {
        let memory = SharedWords::from_fd(fd)?;
        let len_bytes = memory.len_bytes() / 4 * 4;
        Self::open_in(memory.slot(0, len_bytes)?)
    }

    /// The one of this name; if there is none, it is made. Owner and mode of a new one are those of
    /// the [`Name`]; it is never seen half-made. The name goes with its last user.
    ///
    /// # Errors
    /// `EINVAL` when the name is that of another kind of object, or of one that was made with other
    /// options; `EACCES`, `EPERM`: not allowed; `EXDEV` as for [`open_in`](Shared::open_in); `EBUSY`
    /// when somebody holds a lock on the name's file for more than a second, which no user of this
    /// library does; `ENOSPC`, `ENOMEM`, `EMFILE`, `ENFILE`.
    fn named(name: &Name, options: Self::Options) -> Result<Self> {
        let len_bytes = Self::bytes(&options);
        let mut options = Some(options);
        let (memory, named) = name.open_or_make(len_bytes, |memory| {
            let slot = memory.slot(0, len_bytes)?;
            let options = options.take().ok_or(refused(Errno::INVAL))?;
            Self::create_in(slot, options).map(drop)
        })?;
        let mut object = Self::open_in(memory.slot(0, memory.len_bytes() / 4 * 4)?)?;
        if options.is_some_and(|options| !object.was_made_with(&options)) {
            return Err(refused(Errno::INVAL));
        }
        object.keep_name(NameOfObject(named));
        Ok(object)
    }
}

/// What keeps a name while an object is used by it.
#[derive(Debug)]
pub struct NameOfObject(pub(super) Named);

/// An error of opening or making an object.
pub(super) fn refused(errno: Errno) -> Error {
    Error::new("sync", errno)
}

/// The PID namespace of this process, which does not change while it lives.
fn pid_namespace() -> Result<u32> {
    static OWN: OnceLock<u32> = OnceLock::new();
    if let Some(number) = OWN.get() {
        return Ok(*number);
    }
    let stat = rustix::fs::stat("/proc/self/ns/pid").of("stat /proc/self/ns/pid")?;
    // The kernel gives namespaces numbers of 32 bits.
    let number = u32::try_from(stat.st_ino).map_err(|_| refused(Errno::PROTO))?;
    Ok(*OWN.get_or_init(|| number))
}

fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}
