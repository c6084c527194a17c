//! What memory and the kernel can do: two processes and a mapped file in memory, without any library.
//!
//! - `Line`: a word in a cache line each way. Half of a round trip is what any message takes at least.
//! - `HandOver`: payload after a word that says it is there, in one place after the other of a region of a
//!   given size; the answer the same way in a region of its own. No queue: the turns are the protocol.
//! - `Stream`: the same one way, with a word by which the reader gives places back.
//! - `Futex`: payload and a word that is slept on.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

use super::{Can, Meeting, Port};
use crate::job::{Case, Job, Manner, Measure, Report};
use crate::{Failure, side};

/// Two lines: some processors fetch the neighbour too.
const LINES_BYTES: usize = 128;
const LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = 4096;
/// However large they are.
const LEAST_PLACES: usize = 2;
/// The word before the payload.
const FLAG_BYTES: usize = 8;

pub(super) fn line(case: &Case) -> Can {
    match (case.measure, case.bytes) {
        (Measure::Latency, 8) | (Measure::Service, ..=LINE_BYTES) => Can::Yes,
        _ => Can::NotAsked,
    }
}

pub(super) fn hand_over(case: &Case) -> Can {
    if case.measure == Measure::Latency { Can::Yes } else { Can::NotAsked }
}

pub(super) fn stream(case: &Case) -> Can {
    if case.measure == Measure::Stream { Can::Yes } else { Can::NotAsked }
}

pub(super) fn futex(case: &Case) -> Can {
    if case.measure == Measure::Sleep { Can::Yes } else { Can::NotAsked }
}

/// What a loan that nobody touches is compared with is a small message: nothing of the payload moves.
pub(super) fn run_hand_over<const PAUSES: bool>(job: &Job) -> Result<Report, Failure> {
    let mut job = job.clone();
    if job.case.manner == Manner::Untouched {
        job.case = Case { bytes: LINE_BYTES, manner: Manner::Best, ..job.case };
    }
    side::run::<HandOver<PAUSES>>(&job)
}

/// A file in memory, mapped by both sides.
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// The far side makes it, the near side removes its name.
    fn open(meeting: &Meeting<'_>, len: usize) -> Result<Self, Failure> {
        let path = meeting.path("memory");
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = if meeting.near() {
            meeting.control.hear()?;
            let file = options.open(&path)?;
            std::fs::remove_file(&path)?;
            file
        } else {
            let file = options.create_new(true).open(&path)?;
            file.set_len(len as u64)?;
            meeting.control.say("made")?;
            file
        };
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, of a file that nobody makes shorter.
        let start = unsafe { mmap(std::ptr::null_mut(), len, access, flags, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or("mapped at 0")?;
        Ok(Self { start, len })
    }

    fn place(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= self.len, "outside the memory");
        // SAFETY: within the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `open`, and nothing that points there outlives this.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A hint to the processor that this is a loop: it has no further looks under way then, which it would throw away when the
/// line is taken from it to be written.
#[inline(always)]
fn pause_if(pauses: bool) {
    if pauses {
        std::hint::spin_loop();
    }
}

/// A word of memory that lives as long as the port does.
///
/// # Safety
/// `place` is within a mapping that outlives the reference, aligned, and only used as this word.
unsafe fn word<'a>(place: *mut u8) -> &'a AtomicU64 {
    // SAFETY: said above.
    unsafe { AtomicU64::from_ptr(place.cast()) }
}

/// Where a side is in the region of one way.
struct Cursor {
    start: *mut u8,
    stride: usize,
    len: usize,
    offset: usize,
    /// Of the message there.
    number: u64,
}

impl Cursor {
    fn flag(&self) -> &AtomicU64 {
        // SAFETY: within the mapping by construction, aligned to a line, and always used as a word.
        unsafe { word(self.start.add(self.offset)) }
    }

    fn payload(&self) -> *mut u8 {
        // SAFETY: the payload follows the flag, in the same place.
        unsafe { self.start.add(self.offset + FLAG_BYTES) }
    }

    fn advance(&mut self) {
        self.number += 1;
        self.offset += self.stride;
        if self.offset == self.len {
            self.offset = 0;
        }
    }

    /// Payload, then the word that says it is there: release, so that who sees the word sees the
    /// payload.
    #[inline(always)]
    fn put(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) {
        // SAFETY: it is this side's turn, or the place was given back: nobody else looks at the payload
        // until the flag says so.
        fill(unsafe { std::slice::from_raw_parts_mut(self.payload(), bytes) });
        self.flag().store(self.number, Ordering::Release);
        self.advance();
    }

    /// Acquire pairs with `put`'s release.
    #[inline(always)]
    fn take<R>(&mut self, bytes: usize, mut read: impl FnMut(&[u8]) -> R) -> Option<R> {
        if self.flag().load(Ordering::Acquire) != self.number {
            return None;
        }
        // SAFETY: the flag says that the writer is done, and it does not come here again before this side
        // answered, or gave the place back.
        let result = read(unsafe { std::slice::from_raw_parts(self.payload(), bytes) });
        self.advance();
        Some(result)
    }
}

/// The region of each way, with a line before it for the word by which places are given back.
struct Regions {
    memory: Memory,
    stride: usize,
    places: usize,
}

impl Regions {
    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let (stride, places) = Self::shape(meeting);
        let memory = Memory::open(meeting, 2 * Self::way_bytes(stride, places))?;
        Ok(Self { memory, stride, places })
    }

    /// How far apart the places are, and how many make up the footprint.
    fn shape(meeting: &Meeting<'_>) -> (usize, usize) {
        let bytes = meeting.job.case.bytes;
        let stride = (FLAG_BYTES + bytes).next_multiple_of(LINE_BYTES);
        let (usual, large) = meeting.job.footprints_bytes;
        let footprint = if bytes > usual / 4 { large } else { usual };
        (stride, (footprint / stride).max(LEAST_PLACES))
    }

    fn way_bytes(stride: usize, places: usize) -> usize {
        (PAGE_BYTES + stride * places).next_multiple_of(PAGE_BYTES)
    }

    fn cursor(&self, way: usize) -> Cursor {
        let len = self.stride * self.places;
        let offset = way * Self::way_bytes(self.stride, self.places) + PAGE_BYTES;
        let start = self.memory.place(offset, len);
        Cursor { start, stride: self.stride, len, offset: 0, number: 1 }
    }
}

/// One line each way. The first word of a message says that it is there, and the others follow it in the line.
pub(crate) struct Line<const PAUSES: bool> {
    out: *mut u8,
    from: *mut u8,
    seen: u64,
    _memory: Memory,
}

impl<const PAUSES: bool> Port for Line<PAUSES> {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let memory = Memory::open(meeting, PAGE_BYTES)?;
        let (near, far) = (memory.place(0, LINE_BYTES), memory.place(LINES_BYTES, LINE_BYTES));
        let (out, from) = if meeting.near() { (near, far) } else { (far, near) };
        Ok(Self { out, from, seen: 0, _memory: memory })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let mut message = [0; LINE_BYTES];
        fill(&mut message[..bytes]);
        let (words, _) = message.as_chunks::<8>();
        for at in (0..bytes / 8).rev() {
            // SAFETY: a word of the line.
            let word = unsafe { word(self.out.add(8 * at)) };
            word.store(u64::from_ne_bytes(words[at]), Ordering::Release);
        }
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        bytes: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        // SAFETY: as in `send`.
        let first = unsafe { word(self.from) }.load(Ordering::Acquire);
        if first == self.seen {
            pause_if(PAUSES);
            return Ok(None);
        }
        self.seen = first;
        let mut message = [0; LINE_BYTES];
        let (words, _) = message.as_chunks_mut::<8>();
        words[0] = first.to_ne_bytes();
        for at in 1..bytes / 8 {
            // SAFETY: as in `send`.
            words[at] =
                unsafe { word(self.from.add(8 * at)) }.load(Ordering::Relaxed).to_ne_bytes();
        }
        Ok(Some(read(&message[..bytes])))
    }
}

/// Payload and a word, in turns.
pub(crate) struct HandOver<const PAUSES: bool> {
    out: Cursor,
    from: Cursor,
    _regions: Regions,
}

impl<const PAUSES: bool> Port for HandOver<PAUSES> {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let regions = Regions::open(meeting)?;
        let (out, from) = if meeting.near() { (0, 1) } else { (1, 0) };
        Ok(Self { out: regions.cursor(out), from: regions.cursor(from), _regions: regions })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        self.out.put(bytes, fill);
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        bytes: usize,
        read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let taken = self.from.take(bytes, read);
        if taken.is_none() {
            pause_if(PAUSES);
        }
        Ok(taken)
    }
}

/// Payload and a word, one way; the reader gives places back a quarter of them at a time.
pub(crate) struct Stream {
    cursor: Cursor,
    returned: *mut u8,
    places: u64,
    step: u64,
    /// Writer: the last message for which there is room. Reader: the last one given back.
    limit: u64,
    _regions: Regions,
}

impl Port for Stream {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let regions = Regions::open(meeting)?;
        let places = regions.places as u64;
        let limit = if meeting.near() { places } else { 0 };
        Ok(Self {
            cursor: regions.cursor(0),
            returned: regions.memory.place(0, 8),
            places,
            step: (places / 4).max(1),
            limit,
            _regions: regions,
        })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        while self.cursor.number > self.limit {
            // SAFETY: the word at the start of the mapping. Acquire: the reader is done with what it gave
            // back.
            let returned = unsafe { word(self.returned) }.load(Ordering::Acquire);
            self.limit = returned + self.places;
        }
        self.cursor.put(bytes, fill);
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        bytes: usize,
        read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let Some(result) = self.cursor.take(bytes, read) else { return Ok(None) };
        let done = self.cursor.number - 1;
        if done - self.limit >= self.step {
            self.limit = done;
            // SAFETY: as in `send`; release pairs with its acquire.
            unsafe { word(self.returned) }.store(done, Ordering::Release);
        }
        Ok(Some(result))
    }
}

/// Payload and a word that is slept on, in turns.
pub(crate) struct Futex {
    out: *mut u8,
    from: *mut u8,
    sent: u32,
    seen: u32,
    _memory: Memory,
}

impl Futex {
    fn word(&self, place: *mut u8) -> &AtomicU32 {
        // SAFETY: at the start of a page of the mapping, and always used as a word.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }
}

impl Port for Futex {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let way_bytes = (FLAG_BYTES + meeting.job.case.bytes).next_multiple_of(PAGE_BYTES);
        let memory = Memory::open(meeting, 2 * way_bytes)?;
        let (near, far) = (memory.place(0, way_bytes), memory.place(way_bytes, way_bytes));
        let (out, from) = if meeting.near() { (near, far) } else { (far, near) };
        Ok(Self { out, from, sent: 0, seen: 0, _memory: memory })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        // SAFETY: `open` made room for the message; it is this side's turn.
        fill(unsafe { std::slice::from_raw_parts_mut(self.out.add(FLAG_BYTES), bytes) });
        self.sent = self.sent.wrapping_add(1);
        let word = self.word(self.out);
        // Release: who sees the word sees the payload.
        word.store(self.sent, Ordering::Release);
        futex::wake(word, futex::Flags::empty(), 1)?;
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        bytes: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let found = self.word(self.from).load(Ordering::Acquire);
        if found == self.seen {
            return Ok(None);
        }
        self.seen = found;
        // SAFETY: the word says that the writer is done, and it waits for the answer.
        let payload = unsafe { std::slice::from_raw_parts(self.from.add(FLAG_BYTES), bytes) };
        Ok(Some(read(payload)))
    }

    #[inline(always)]
    fn recv<R>(&mut self, bytes: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Some(result) = self.try_recv(bytes, &mut read)? {
                return Ok(result);
            }
            let word = self.word(self.from);
            match futex::wait(word, futex::Flags::empty(), self.seen, None) {
                Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
