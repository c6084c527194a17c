//! A peer with code of its own: it has met its victim, and now does what it likes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::time::Duration;

use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::shared_memory::{Doorbell, OwnMemory, PeerMemory};
use switchboard_kernel::unix_socket;
use switchboard_shm::layout::{PAGE_BYTES, VERSION, reader, writer, writer_bytes};
use switchboard_testkit::DEADLINE;

use super::memory::{self, CAPACITY_BYTES};
use crate::transport::shm::datagram::{Datagram, WAKE};
use crate::transport::shm::geometry::{QUEUE, RING_BYTES, TOPIC};
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::tests::raw::Raw;

/// The words of a frame's header.
pub(super) const MESSAGE: u64 = 1;
pub(super) const PAD: u64 = 2;
pub(super) const PREFIXED: u64 = 3;
pub(super) const IN_ARENA: u64 = 4;
pub(super) const END: u64 = 5;

/// A header.
pub(super) fn header(kind: u64, len_bytes: u64, number: u64) -> u64 {
    len_bytes | kind << 28 | number << 32
}

/// Bit of a header: the frame is filled up to the next line of the cache.
pub(super) const FILLED: u64 = 8;

/// Where a frame ends that begins here with this header.
pub(super) fn frame_end(begin: u64, word: u64) -> u64 {
    let end = begin + 8 + (word & 0x0fff_ffff).next_multiple_of(8);
    if word >> 28 & FILLED == 0 { end } else { end.next_multiple_of(64) }
}

/// Connects to the end of this kind, of which there is one.
pub(super) fn dial(base: &Path, pattern: Pattern, role: Role) -> Raw {
    let kind = match (pattern, role) {
        (Pattern::Queue, Role::Writer) => "q.s.",
        (Pattern::Queue, Role::Reader) => "q.r.",
        (Pattern::Topic, Role::Writer) => "t.p.",
        (Pattern::Topic, Role::Reader) => "t.s.",
        (Pattern::Service, Role::Writer) => "s.c.",
        (Pattern::Service, Role::Reader) => "s.s.",
        (Pattern::Event, Role::Writer) => "e.n.",
        (Pattern::Event, Role::Reader) => "e.l.",
        (Pattern::State, Role::Writer) => "v.w.",
        (Pattern::State, Role::Reader) => "v.r.",
        (Pattern::Answers, Role::Writer) => "a.s.",
        (Pattern::Answers, Role::Reader) => "a.c.",
    };
    let folder = base.join("shm/channel");
    let names = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a name"));
    let paths: Vec<PathBuf> = names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(kind))
        .map(|entry| entry.path())
        .collect();
    let [path] = &paths[..] else { panic!("{paths:?}") };
    let address = unix_socket::Address::Path(path.clone());
    let deadline = Deadline::after(DEADLINE);
    loop {
        match unix_socket::connect_to(unix_socket::Kind::Seqpacket, &address, true) {
            Ok(socket) => return Raw(socket),
            // As many wait as can.
            Err(error) if error.name() == "EAGAIN" && !deadline.passed() => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("cannot connect: {error}"),
        }
    }
}

/// What a liar says first; it fits.
pub(super) fn hello(pattern: Pattern, role: Role) -> Hello {
    Hello {
        pattern,
        role,
        id: Id::random().expect("random bytes"),
        fingerprint: 0,
        max_message_bytes: 1 << 30,
        window_messages: 256,
        program: "liar".into(),
        schema: String::new(),
    }
}

pub(super) fn say_hello(raw: &Raw, hello: &Hello, descriptors: &[BorrowedFd<'_>]) {
    let bytes = Datagram::Hello(hello.clone()).encode();
    unix_socket::send_with_fds(&raw.0, &bytes, descriptors).expect("sent");
}

impl Raw {
    /// The next datagram, with what came with it; none at the end.
    pub(super) fn take(&self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let _ = wait_for(&self.0, Interest::Readable, Deadline::after(DEADLINE));
        let mut bytes = vec![0; 2048];
        let mut received = unix_socket::recv_with_fds(&self.0, &mut bytes, 16);
        if received.as_ref().is_err_and(|error| error.name() == "ECONNRESET") {
            received = unix_socket::recv_with_fds(&self.0, &mut bytes, 16);
        }
        match received {
            Ok((received, _)) if received.len == 0 => None,
            Ok((received, descriptors)) => {
                bytes.truncate(received.len);
                Some((bytes, descriptors))
            }
            Err(error) if error.name() == "ECONNRESET" => None,
            Err(error) => panic!("nothing comes: {error}"),
        }
    }

    /// Hears that it was refused, whatever else comes before, and the end.
    #[track_caller]
    pub(super) fn until_refused(&self, problem: &str) {
        let mut heard = None;
        while let Some((bytes, _)) = self.take() {
            if let Ok(Datagram::Refuse(reason)) = Datagram::decode_first(&bytes, 0) {
                heard = Some(reason);
            }
        }
        let heard = heard.unwrap_or_else(|| panic!("hung up where {problem:?} was expected"));
        assert!(heard.contains(problem), "{heard:?} without {problem:?}");
    }

    /// Hears the end, and no reason.
    #[track_caller]
    pub(super) fn until_end(&self) {
        while let Some((bytes, _)) = self.take() {
            if let Ok(Datagram::Refuse(reason)) = Datagram::decode_first(&bytes, 0) {
                panic!("refused: {reason}");
            }
        }
    }

    /// Says a datagram, if it is taken.
    pub(super) fn say_it(&self, datagram: &Datagram, descriptors: &[BorrowedFd<'_>]) -> bool {
        unix_socket::send_with_fds(&self.0, &datagram.encode(), descriptors).is_ok()
    }

    pub(super) fn wake(&self) {
        let _ = unix_socket::send(&self.0, &WAKE);
    }
}

/// A publisher or a sender that lies.
#[derive(Debug)]
pub(super) struct LyingWriter {
    pub(super) raw: Raw,
    pub(super) pattern: Pattern,
    pub(super) bell: Doorbell,
    pub(super) ring: OwnMemory,
    pub(super) page: PeerMemory,
    pub(super) position: u64,
    pub(super) number: u64,
    /// Of those that were given.
    pub(super) segments: Vec<OwnMemory>,
}

impl LyingWriter {
    /// Meets the reader that is there.
    pub(super) fn meet(base: &Path, pattern: Pattern, lossy: bool) -> Self {
        let raw = dial(base, pattern, Role::Reader);
        let bell = Doorbell::create().expect("a doorbell");
        let ring = OwnMemory::create("liar", writer_bytes(CAPACITY_BYTES)).expect("memory");
        let kind = if pattern == Pattern::Queue { QUEUE } else { TOPIC };
        for (index, word) in memory::ring(kind).words {
            ring.words()[index].store(word, Release);
        }
        ring.words()[writer::FLAGS_WORD].store(u64::from(lossy), Release);
        let bell_fd = io::duplicate(bell.fd().expect("a descriptor")).expect("a descriptor");
        let ring_fd = ring.read_only_fd().expect("a descriptor");
        let both = [bell_fd.as_fd(), ring_fd.as_fd()];
        let given = if pattern == Pattern::Queue { &both[..1] } else { &both[..] };
        say_hello(&raw, &hello(pattern, Role::Writer), given);
        let (_, descriptors) = raw.take().expect("an answer");
        let page = descriptors.into_iter().next().expect("a page");
        let page = PeerMemory::received(page, PAGE_BYTES..=PAGE_BYTES).expect("a page");
        let segments = Vec::new();
        Self { raw, pattern, bell, ring, page, position: 0, number: 0, segments }
    }

    /// As [`meet`](Self::meet), and the link is open from the beginning of the ring.
    pub(super) fn open(base: &Path, pattern: Pattern, lossy: bool) -> Self {
        let liar = Self::meet(base, pattern, lossy);
        liar.welcome(0, 0, 0);
        liar
    }

    pub(super) fn welcome(&self, slot: u32, position: u64, number: u64) {
        let ring = self.ring.read_only_fd().expect("a descriptor");
        let with = [ring.as_fd()];
        let with = if self.pattern == Pattern::Queue { &with[..] } else { &[] };
        assert!(self.raw.say_it(&Datagram::Welcome { slot, position, number }, with));
    }

    /// The word at a position of the ring.
    pub(super) fn word(&self, position: u64) -> &AtomicU64 {
        let offset = position as usize % CAPACITY_BYTES;
        &self.ring.words()[writer::RING_WORD + offset / 8]
    }

    /// Stores a word at a position of the ring, and wakes who may sleep for it.
    pub(super) fn put(&self, position: u64, word: u64) {
        self.word(position).store(word, SeqCst);
        self.raw.wake();
    }

    /// A frame as it should be.
    pub(super) fn frame(&mut self, kind: u64, payload: &[u8]) {
        let polled = self.position;
        let frame_bytes = 8 + payload.len().next_multiple_of(8) as u64;
        let rest = CAPACITY_BYTES as u64 - polled % CAPACITY_BYTES as u64;
        let begin = if frame_bytes > rest { polled + rest } else { polled };
        for (index, chunk) in payload.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let at = begin + 8 + index as u64 * 8;
            self.word(at).store(u64::from_le_bytes(word), Release);
        }
        self.number += u64::from(kind != END);
        self.position = begin + frame_bytes;
        self.word(self.position).store(0, Release);
        let header_word = header(kind, payload.len() as u64, self.number);
        if begin != polled {
            self.word(begin).store(header_word, Release);
        }
        self.put(polled, if begin == polled { header_word } else { header(PAD, 0, self.number) });
    }

    /// Messages as they should be.
    pub(super) fn messages(&mut self, count: u64) {
        for _ in 0..count {
            self.frame(MESSAGE, b"a liar's message");
        }
    }

    /// How far the victim says that it is.
    pub(super) fn read(&self) -> u64 {
        self.page.words()[reader::CURSOR_WORD].load(Acquire)
    }

    /// Waits until the victim has read all that is in the ring.
    #[track_caller]
    pub(super) fn until_read(&self) {
        let deadline = Deadline::after(DEADLINE);
        while self.read() != self.position {
            assert!(!deadline.passed(), "never read");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives a segment of the arena.
    pub(super) fn segment(&mut self, len_bytes: usize) {
        let memory = OwnMemory::create("liar", len_bytes).expect("memory");
        assert!(self.try_segment(memory), "it is taken");
    }

    /// The same, if it is taken.
    pub(super) fn try_segment(&mut self, memory: OwnMemory) -> bool {
        let fd = memory.take_read_only_fd().expect("a descriptor");
        let index = self.segments.len() as u32;
        let len_bytes = memory.len_bytes() as u64;
        let taken = self.raw.say_it(&Datagram::Segment { index, len_bytes }, &[fd.as_fd()]);
        if taken {
            self.segments.push(memory);
        }
        taken
    }

    /// Gives something for a segment.
    pub(super) fn give_segment(&self, index: u32, fd: OwnedFd) {
        let datagram = Datagram::Segment { index, len_bytes: PAGE_BYTES as u64 };
        assert!(self.raw.say_it(&datagram, &[fd.as_fd()]), "it is taken");
    }

    /// A frame of a message in the arena.
    pub(super) fn in_arena(&mut self, segment: u64, offset: u64, len: u64) {
        let words = [0, segment, offset, len].map(u64::to_le_bytes);
        self.frame(IN_ARENA, words.as_flattened());
    }
}

/// A subscriber or a receiver that lies.
#[derive(Debug)]
pub(super) struct LyingReader {
    pub(super) raw: Raw,
    pub(super) page: OwnMemory,
    pub(super) bell: Doorbell,
    pub(super) ring: PeerMemory,
    pub(super) slot: usize,
    /// How far it has read.
    pub(super) position: u64,
}

impl LyingReader {
    /// Meets the writer that is there, and is welcomed.
    pub(super) fn open(base: &Path, pattern: Pattern) -> Self {
        let raw = dial(base, pattern, Role::Writer);
        let page = OwnMemory::create("liar", PAGE_BYTES).expect("memory");
        page.words()[reader::VERSION_WORD].store(u64::from(VERSION), Release);
        page.words()[reader::MAGIC_WORD].store(reader::MAGIC, Release);
        let fd = page.read_only_fd().expect("a descriptor");
        say_hello(&raw, &hello(pattern, Role::Reader), &[fd.as_fd()]);
        let (_, mut descriptors) = raw.take().expect("an answer");
        // Segments come first; they are not looked into.
        let (slot, position) = loop {
            let (bytes, more) = raw.take().expect("a welcome");
            let said = Datagram::decode_next(&bytes, more.len(), pattern, Role::Writer);
            match said.expect("a welcome") {
                Datagram::Segment { .. } => {}
                Datagram::Welcome { slot, position, .. } => {
                    descriptors.extend(more);
                    break (slot, position);
                }
                other => panic!("{other:?}"),
            }
        };
        let mut descriptors = descriptors.into_iter();
        let bell = Doorbell::received(descriptors.next().expect("a doorbell")).expect("a doorbell");
        let ring = descriptors.next().expect("a ring");
        let ring = PeerMemory::received(ring, RING_BYTES).expect("a ring");
        Self { raw, page, bell, ring, slot: slot as usize, position }
    }

    /// Says how far it is.
    pub(super) fn cursor(&self, position: u64) {
        self.page.words()[reader::CURSOR_WORD].store(position, SeqCst);
    }

    pub(super) fn is_of_topic(&self) -> bool {
        self.ring.words()[writer::KIND_WORD].load(Acquire) >> 32 == u64::from(TOPIC)
    }

    /// Bytes of the ring.
    pub(super) fn capacity(&self) -> u64 {
        self.ring.words()[writer::CAPACITY_WORD].load(Acquire)
    }

    /// The word at a position of the ring.
    pub(super) fn word(&self, position: u64) -> u64 {
        let offset = (position & (self.capacity() - 1)) as usize;
        self.ring.words()[writer::RING_WORD + offset / 8].load(Acquire)
    }

    /// Reads on, as an honest reader does, as far as there is something. How many messages.
    pub(super) fn read_on(&mut self) -> u64 {
        let mut count = 0;
        loop {
            let word = self.word(self.position);
            if word == 0 {
                return count;
            }
            let rest = self.capacity() - (self.position & (self.capacity() - 1));
            if word >> 28 & 7 == PAD {
                self.position += rest;
                continue;
            }
            let unit = if word >> 31 & 1 == 1 { 64 } else { 8 };
            self.position += 8 + (word & 0x0fff_ffff);
            self.position = self.position.next_multiple_of(unit);
            count += 1;
        }
    }

    /// Its byte in the doorbell, as it is to be.
    pub(super) fn ring_bell(&self, slot: usize, byte: u64) {
        let (index, shift) = (slot / 8, slot % 8 * 8);
        let word = &self.bell.words()[index];
        word.fetch_and(!(0xff << shift), SeqCst);
        word.fetch_or(byte << shift, SeqCst);
    }
}
