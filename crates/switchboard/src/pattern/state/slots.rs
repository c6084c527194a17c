//! The layout `slots`: whole values of any length, in memory that a writer may leave at any instant.
//!
//! docs/design/state.md draws every byte, and says what happens if a process dies or lies at each
//! step. In short: two slots, and a word that says which one is current. The writer fills the other
//! slot, then changes the word; a reader copies the current slot, and looks whether it stayed the
//! same meanwhile. The value before it stays whole until the one after next is set.

use std::io::{self, Read};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::futex;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::mmap::Memory;

/// `89 "SWS" 0D 0A 1A 0A`: no text, and damaged by whatever changes line ends.
const MAGIC: u64 = u64::from_le_bytes([0x89, b'S', b'W', b'S', 0x0d, 0x0a, 0x1a, 0x0a]);
const LAYOUT: u32 = 1;

// The header.
const LAYOUT_AT: usize = 8;
const CAPACITY_AT: usize = 12;
const WRITER_AT: usize = 16;
/// The low half of the current value's version; readers sleep on it. It is in slot 0 if even.
const CURRENT_AT: usize = 24;
const HEADER_BYTES: usize = 64;

// A slot, from its start.
const VERSION_AT: usize = 0;
const LEN_AT: usize = 8;
const CHECKSUM_AT: usize = 12;
const SLOT_HEAD_BYTES: usize = 64;
/// The version of a slot that is being written.
const BEING_WRITTEN: u64 = u64::MAX;

/// How often a reader looks again when a writer was faster, or the memory is damaged.
const ATTEMPTS: u32 = 1000;

/// How long a watcher sleeps at most: a writer that is killed after the change wakes nobody.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Bytes of an object for values of up to `capacity` bytes.
pub(crate) fn object_bytes(capacity: u32) -> u64 {
    HEADER_BYTES as u64 + 2 * (SLOT_HEAD_BYTES as u64 + u64::from(capacity).next_multiple_of(64))
}

/// Whether a file holds a state, damaged or of another version perhaps; or nothing but zeros, as one does
/// whose maker was killed.
pub(crate) fn is_state(file: &mut impl Read) -> io::Result<bool> {
    let mut head = Vec::new();
    file.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    if head.starts_with(&MAGIC.to_le_bytes()) {
        return Ok(true);
    }
    let mut block = vec![0; 64 << 10];
    let mut is_zero = head.len() == HEADER_BYTES && head.iter().all(|byte| *byte == 0);
    while is_zero {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(len) => is_zero = block[..len].iter().all(|byte| *byte == 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(is_zero)
}

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The memory holds something else.
    NotOurs(String),
    /// Neither slot has a whole value.
    Damaged,
    /// More than the capacity.
    TooLarge { capacity: u32 },
    /// It was not wanted any more.
    Cancelled,
    /// The memory cannot be used.
    Memory(kernel::Error),
}

impl From<kernel::Error> for Problem {
    fn from(error: kernel::Error) -> Self {
        Self::Memory(error)
    }
}

/// A value that was read whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) bytes: Vec<u8>,
    pub(crate) version: u64,
    /// The newest one is damaged, or cannot be told; this is the newest one that is whole.
    pub(crate) restored: bool,
}

/// Where the slots are. Read once, checked against the memory's length, and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    capacity: u32,
}

impl Geometry {
    /// What the header says; `None` while nobody has prepared the memory.
    pub(crate) fn read(memory: &Memory) -> Result<Option<Self>, Problem> {
        if memory.len() < HEADER_BYTES {
            return Err(not_ours(memory));
        }
        match memory.load_u64(0)? {
            0 => return Ok(None),
            MAGIC => {}
            _ => return Err(not_ours(memory)),
        }
        let layout = memory.load_u32(LAYOUT_AT)?;
        if layout != LAYOUT {
            let problem = format!("its layout has version {layout}; this program knows {LAYOUT}");
            return Err(Problem::NotOurs(problem));
        }
        let capacity = memory.load_u32(CAPACITY_AT)?;
        if object_bytes(capacity) > memory.len() as u64 {
            let (needed, len) = (object_bytes(capacity), memory.len());
            let problem = format!("its header claims {needed} bytes, and it has {len}");
            return Err(Problem::NotOurs(problem));
        }
        Ok(Some(Self { capacity }))
    }

    /// Prepares memory that is all zeroes, or reads what is there. Only who has the writer's lock
    /// may do this. `wanted` is the capacity, if so much fits. Zeroes are looked at one by one, until
    /// `is_cancelled`.
    pub(crate) fn prepare(
        memory: &Memory,
        wanted: Option<u32>,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Self, Problem> {
        if let Some(geometry) = Self::read(memory)? {
            return Ok(geometry);
        }
        if !is_zero(memory, is_cancelled)? {
            return Err(not_ours(memory));
        }
        Self::prepare_new(memory, wanted)
    }

    /// As [`prepare`](Self::prepare), of memory that this process has just made, whose zeroes need not be
    /// looked at.
    pub(crate) fn prepare_new(memory: &Memory, wanted: Option<u32>) -> Result<Self, Problem> {
        if let Some(geometry) = Self::read(memory)? {
            return Ok(geometry);
        }
        let room = (memory.len() - HEADER_BYTES) / 2;
        let Some(most) = room.checked_sub(SLOT_HEAD_BYTES).map(|room| room & !63) else {
            return Err(not_ours(memory));
        };
        let most = u32::try_from(most).unwrap_or(!63);
        let capacity = wanted.filter(|wanted| *wanted <= most).unwrap_or(most);
        memory.atomic_u32(LAYOUT_AT)?.store(LAYOUT, Ordering::Relaxed);
        memory.atomic_u32(CAPACITY_AT)?.store(capacity, Ordering::Relaxed);
        let empty = checksum(0, &[]);
        memory.atomic_u32(HEADER_BYTES + CHECKSUM_AT)?.store(empty, Ordering::Relaxed);
        // Release, for the Acquire of `Geometry::read`: who sees the magic sees the rest. Killed
        // before this, the next writer starts again: what was written here is what it will write.
        memory.atomic_u64(0)?.store(MAGIC, Ordering::Release);
        Ok(Self { capacity })
    }

    /// The largest value, in bytes.
    pub(crate) fn capacity(self) -> u32 {
        self.capacity
    }

    fn slot(self, version: u64) -> usize {
        let stride = SLOT_HEAD_BYTES + (self.capacity as usize).next_multiple_of(64);
        HEADER_BYTES + (version & 1) as usize * stride
    }

    /// The newest whole value.
    pub(crate) fn load(self, memory: &Memory) -> Result<Found, Problem> {
        self.load_by(memory, |at, bytes| memory.read_at(at, bytes))
    }

    /// The same. `copy` fills these bytes with those from a place on: tests let a writer go on in the middle of it.
    fn load_by(
        self,
        memory: &Memory,
        mut copy: impl FnMut(usize, &mut [u8]) -> kernel::Result<()>,
    ) -> Result<Found, Problem> {
        for attempt in 0..ATTEMPTS {
            let current = memory.load_u32(CURRENT_AT)?;
            let slot = self.slot(current.into());
            match self.load_slot(memory, slot, &mut copy)? {
                Slot::Whole(version, bytes) if version as u32 == current => {
                    return Ok(Found { bytes, version, restored: false });
                }
                // Nobody writes into the current slot, so a checksum that is wrong twice stays so.
                Slot::Damaged(version) if version as u32 == current && attempt > 0 => break,
                // A writer was faster, twice; or the two words never fit.
                _ if attempt < 100 => std::hint::spin_loop(),
                _ => std::thread::yield_now(),
            }
        }
        self.restore(memory, copy)
    }

    /// The newest value that is whole, where the word that should say so does not lead to one.
    fn restore(
        self,
        memory: &Memory,
        mut copy: impl FnMut(usize, &mut [u8]) -> kernel::Result<()>,
    ) -> Result<Found, Problem> {
        let mut newest = None;
        for slot in [self.slot(0), self.slot(1)] {
            if let Slot::Whole(version, bytes) = self.load_slot(memory, slot, &mut copy)?
                && newest.as_ref().is_none_or(|found: &Found| found.version < version)
            {
                newest = Some(Found { bytes, version, restored: true });
            }
        }
        // What memory is prepared with is no value: something was set, and it is lost.
        newest.filter(|found| found.version > 0).ok_or(Problem::Damaged)
    }

    fn load_slot(
        self,
        memory: &Memory,
        slot: usize,
        copy: &mut impl FnMut(usize, &mut [u8]) -> kernel::Result<()>,
    ) -> Result<Slot, Problem> {
        let version = memory.load_u64(slot + VERSION_AT)?;
        let len = memory.load_u32(slot + LEN_AT)?;
        let expected = memory.load_u32(slot + CHECKSUM_AT)?;
        if version == BEING_WRITTEN {
            return Ok(Slot::Changing);
        }
        // `len` is looked at once, and only this copy of it is used.
        let mut bytes = vec![0; len.min(self.capacity) as usize];
        copy(slot + SLOT_HEAD_BYTES, &mut bytes)?;
        // Acquire, for the Release fence of `Writer::store`: if any byte above is of a newer
        // value, the version below is not the one above.
        fence(Ordering::Acquire);
        if memory.load_u64(slot + VERSION_AT)? != version {
            return Ok(Slot::Changing);
        }
        if len > self.capacity || checksum(version, &bytes) != expected {
            return Ok(Slot::Damaged(version));
        }
        Ok(Slot::Whole(version, bytes))
    }
}

enum Slot {
    Whole(u64, Vec<u8>),
    /// It was written meanwhile.
    Changing,
    Damaged(u64),
}

/// The low half of the current version. Cheap; what it stands for has to be loaded.
pub(crate) fn current(memory: &Memory) -> kernel::Result<u32> {
    memory.load_u32(CURRENT_AT)
}

/// Sleeps until the current version is not `seen`, at most [`LOOK_AGAIN`].
pub(crate) fn sleep(memory: &Memory, seen: u32, deadline: Deadline) -> kernel::Result<()> {
    let until = deadline.min(Deadline::after(LOOK_AGAIN));
    memory.wait_u32(CURRENT_AT, seen, until).map(drop)
}

/// The process that has the writer's lock, by its own word.
pub(crate) fn writer(memory: &Memory) -> Option<u32> {
    let prepared = Geometry::read(memory).ok().flatten().is_some();
    memory.load_u32(WRITER_AT).ok().filter(|pid| prepared && *pid != 0)
}

/// Who sets values: one at a time, by the lock.
#[derive(Debug)]
pub(crate) struct Writer {
    geometry: Geometry,
    version: u64,
    /// The version of the next value.
    next: u64,
}

impl Writer {
    /// Takes over from the writer before, wherever it was killed.
    pub(crate) fn new(memory: &Memory, geometry: Geometry) -> Result<Self, Problem> {
        let (version, restored) = match geometry.load(memory) {
            Err(Problem::Damaged) => {
                // Nothing can be saved: begin again, in slot 0, under a version that was not there.
                let version = (u64::from(current(memory)?) + 2) & !1;
                geometry.store(memory, version, &[], usize::MAX, || true)?;
                (version, false)
            }
            result => result.map(|found| (found.version, found.restored))?,
        };
        memory.atomic_u32(WRITER_AT)?.store(std::process::id(), Ordering::Relaxed);
        let word = memory.atomic_u32(CURRENT_AT)?;
        word.store(version as u32, Ordering::Release);
        // Whom the writer before did not wake any more.
        futex::wake(word, u32::MAX)?;
        // A version that is lost may have been seen, so it is not given out again.
        let next = version.saturating_add(if restored { 3 } else { 1 });
        Ok(Self { geometry, version, next })
    }

    /// The version of what was set last; 0 before the first.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Sets a value.
    pub(crate) fn set(&mut self, memory: &Memory, bytes: &[u8]) -> Result<(), Problem> {
        let capacity = self.geometry.capacity;
        if bytes.len() > capacity as usize {
            return Err(Problem::TooLarge { capacity });
        }
        // Versions are not used up: half a million years at a million values a second.
        let version = if self.next == BEING_WRITTEN { 1 } else { self.next };
        self.geometry.store(memory, version, bytes, usize::MAX, || true)?;
        (self.version, self.next) = (version, version + 1);
        futex::wake(memory.atomic_u32(CURRENT_AT)?, u32::MAX)?;
        Ok(())
    }
}

impl Geometry {
    /// All stores of a new value, in their order; `true` when they are done. Before each one `go_on`
    /// is asked, so that tests can stop at any: payload is stored in pieces of `piece` bytes.
    fn store(
        self,
        memory: &Memory,
        version: u64,
        bytes: &[u8],
        piece: usize,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<bool, Problem> {
        let slot = self.slot(version);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let word = memory.atomic_u64(slot + VERSION_AT)?;
        if !go_on() {
            return Ok(false);
        }
        word.store(BEING_WRITTEN, Ordering::Relaxed);
        // Before all that follows: a reader that sees any of it sees that the version changed.
        fence(Ordering::Release);
        for (at, part) in (0..).step_by(piece.min(1 << 30)).zip(bytes.chunks(piece.min(1 << 30))) {
            if !go_on() {
                return Ok(false);
            }
            memory.write_at(slot + SLOT_HEAD_BYTES + at, part)?;
        }
        let words = [(LEN_AT, len), (CHECKSUM_AT, checksum(version, bytes))];
        for (at, value) in words {
            if !go_on() {
                return Ok(false);
            }
            memory.atomic_u32(slot + at)?.store(value, Ordering::Relaxed);
        }
        if !go_on() {
            return Ok(false);
        }
        // Release, for the Acquire of `load_slot`: who sees the version sees the value.
        word.store(version, Ordering::Release);
        if !go_on() {
            return Ok(false);
        }
        // Release, for the Acquire of `load`: who sees it is current sees its version.
        memory.atomic_u32(CURRENT_AT)?.store(version as u32, Ordering::Release);
        Ok(true)
    }
}

fn checksum(version: u64, bytes: &[u8]) -> u32 {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut start = [0; 12];
    start[..8].copy_from_slice(&version.to_le_bytes());
    start[8..].copy_from_slice(&len.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&start), bytes)
}

fn is_zero(memory: &Memory, is_cancelled: impl Fn() -> bool) -> Result<bool, Problem> {
    let mut part = vec![0; (64 << 10).min(memory.len())];
    let zeroes = part.clone();
    // What a writer that was killed while preparing has left.
    let first_checksum = HEADER_BYTES + CHECKSUM_AT;
    let ignored = [LAYOUT_AT..WRITER_AT, first_checksum..first_checksum + 4];
    for start in (0..memory.len()).step_by(part.len()) {
        if start % (16 << 20) == 0 && is_cancelled() {
            return Err(Problem::Cancelled);
        }
        let end = memory.len().min(start + part.len());
        let part = &mut part[..end - start];
        memory.read_at(start, part)?;
        if start == 0 {
            ignored.iter().for_each(|range| {
                if let Some(ignored) = part.get_mut(range.clone()) {
                    ignored.fill(0);
                }
            });
        }
        // Compared as a whole: byte by byte it takes ten times as long where nothing is optimised.
        if *part != zeroes[..part.len()] {
            return Ok(false);
        }
    }
    Ok(true)
}

fn not_ours(memory: &Memory) -> Problem {
    let len = memory.len();
    let least = object_bytes(0);
    Problem::NotOurs(if (len as u64) < least {
        format!("it has {len} bytes, and a state with versions needs {least} and its value twice")
    } else {
        "it holds something else than a state with versions".to_owned()
    })
}

#[cfg(test)]
mod tests;
