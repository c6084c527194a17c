//! The words of an object, in place of a piece of memory with a header. How a header is made and checked
//! is not modelled.

use rustix::io::Errno;

use super::atomic::AtomicU32;
use crate::error::{Error, Result};
use crate::shared_words::{SharedWords, Slot};

pub(super) const HEADER_BYTES: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Mutex,
    Condvar,
    RwLock,
    Permits,
    Semaphore,
    Barrier,
    Once,
    Monitor,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) number: u32,
    pub(super) bytes: usize,
    pub(super) fingerprint: u64,
}

/// The eight words of an object's own, and the last ones of the object.
#[derive(Debug)]
pub(super) struct Placed {
    shape: Shape,
    own: Vec<AtomicU32>,
    last: Vec<AtomicU32>,
    memory: SharedWords,
}

/// What has words at its end: a barrier, a word for each member; a monitor, two copies of its data.
const LAST_BYTES: usize = 128;

impl Placed {
    pub(super) fn create<R>(
        _: Slot,
        shape: Shape,
        make: impl FnOnce(&Self) -> Result<R>,
    ) -> Result<(Self, R)> {
        let words = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
        let last = if matches!(shape.kind, Kind::Barrier | Kind::Monitor) { LAST_BYTES } else { 0 };
        let placed = Self { shape, own: words(8), last: words(last / 4), memory: SharedWords };
        let made = make(&placed)?;
        Ok((placed, made))
    }

    pub(super) fn open(_: Slot, _: Kind, _: u64) -> Result<Self> {
        Err(refused(Errno::NOSYS))
    }

    pub(super) fn check(
        &self,
        _: core::ops::RangeInclusive<u32>,
        _: impl FnOnce(u32) -> usize,
    ) -> Result<()> {
        Ok(())
    }

    pub(super) fn keep(&mut self, (): ()) {}

    pub(super) fn number(&self) -> u32 {
        self.shape.number
    }

    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        &self.own[index]
    }

    pub(super) fn words_from(&self, offset_bytes: usize) -> &[AtomicU32] {
        let begin = self.shape.bytes.saturating_sub(self.last.len() * 4);
        &self.last[offset_bytes.saturating_sub(begin) / 4..]
    }

    pub(super) fn part(&self, _: usize, _: usize) -> Result<Slot> {
        Ok(Slot)
    }

    pub(super) fn memory(&self) -> &SharedWords {
        &self.memory
    }
}

pub(crate) trait Shared: Sized {
    type Options;

    fn bytes(options: &Self::Options) -> usize;
    fn create_in(slot: Slot, options: Self::Options) -> Result<Self>;
    fn open_in(slot: Slot) -> Result<Self>;
    fn was_made_with(&self, options: &Self::Options) -> bool;
    fn memory(&self) -> &SharedWords;
    fn keep_name(&mut self, name: NameOfObject);

    fn anonymous(options: Self::Options) -> Result<Self> {
        Self::create_in(Slot, options)
    }
}

#[derive(Debug)]
pub(crate) struct NameOfObject(pub(super) ());

pub(super) fn refused(errno: Errno) -> Error {
    Error::new("sync", errno)
}
