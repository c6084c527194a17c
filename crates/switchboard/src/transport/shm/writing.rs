//! The writing end of either pattern: how it meets its readers, wakes them, and makes room for large messages.
//!
//! What differs, the rings and what waits in them, is in `publisher.rs` and `sender.rs`.

use std::os::fd::OwnedFd;
use std::time::Instant;

use switchboard_kernel::io;
use switchboard_kernel::shared_memory::PeerMemory;
use switchboard_shm::bell::{self, Raised, Sleeps};
use switchboard_shm::cursor::PeerCursor;
use switchboard_shm::layout::{PAGE_BYTES, reader};
use switchboard_shm::ring::Counters;

use super::blocks::Blocks;
use super::control::{Control, Event, LinkId, Met};
use super::geometry;
use super::hello::{Id, Pattern, Role};
use super::memory::{Bell, Own, Theirs, Unusable};
use super::offer::WriterOffer;
use super::park::Place;
use super::waking::Woken;
use crate::address::Address;
use crate::counters::Counts;
use crate::error::{Error, ErrorKind, SendError};
use crate::transport::Setup;

/// What the writing ends of both patterns have.
#[derive(Debug)]
pub(super) struct WritingSide {
    pub(super) setup: Setup,
    pub(super) control: Control<WriterOffer>,
    pub(super) bell: Bell,
    pub(super) blocks: Blocks,
    pub(super) counters: Counters,
    /// The largest message of this side.
    pub(super) largest: usize,
    /// The largest payload of a frame of its rings.
    pub(super) largest_frame: u64,
    failed: Option<Error>,
    /// A reader's rules do not let this end in, and there is no other.
    denied: Option<Error>,
    /// Something for a link was not to be had, and that was told.
    short: bool,
    cancelled: bool,
}

/// A reader, as its writer knows it.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) link: LinkId,
    /// Its byte in the doorbell.
    pub(super) slot: usize,
    pub(super) cursor: PeerCursor<Theirs>,
    woken: Woken,
    /// Of a reader that does not raise its byte itself: the doorbell.
    raises: Option<Bell>,
    /// It is of another user.
    pub(super) is_other: bool,
    /// Counts its sleeps, where this side raises its byte.
    turn: u8,
    /// Since when it holds its writer up, at which cursor.
    pub(super) holds_up: Option<(Instant, u64)>,
}

/// A reader that gave what it has to, and was not told where to begin.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) link: LinkId,
    slot: usize,
    page: Theirs,
    is_other: bool,
}

impl WritingSide {
    /// `ring`: that of a topic, to be given away.
    pub(super) fn open(
        setup: Setup,
        pattern: Pattern,
        ring: Option<OwnedFd>,
    ) -> Result<Self, Error> {
        let id = Id::random().map_err(|error| setup.system("cannot open", error))?;
        Self::open_as(setup, (pattern, id), ring)
    }

    /// As [`open`](Self::open), under this ID.
    pub(super) fn open_as(
        setup: Setup,
        (pattern, id): (Pattern, Id),
        ring: Option<OwnedFd>,
    ) -> Result<Self, Error> {
        let bell = geometry::bell(&setup)?;
        let fd = bell.0.fd().and_then(io::duplicate);
        let fd = fd.map_err(|error| setup.system("cannot give memory away", error))?;
        let offer = WriterOffer { bell: fd, ring };
        let control = Control::open_as(&setup, (pattern, Role::Writer, id), offer)?;
        Ok(Self {
            control,
            bell,
            blocks: match pattern {
                Pattern::Topic => Blocks::of_topic(),
                _ => Blocks::default(),
            },
            counters: Counters::default(),
            largest: setup.largest_message_bytes() as usize,
            largest_frame: geometry::largest_payload(&setup),
            failed: None,
            denied: None,
            short: false,
            cancelled: false,
            setup,
        })
    }

    /// Whether this side sends a message of this length.
    #[inline]
    pub(super) fn check_length(&self, len_bytes: usize) -> Result<(), SendError> {
        if len_bytes <= self.largest {
            return Ok(());
        }
        let limit = self.setup.limit_name().to_owned();
        Err(SendError::TooLarge { len_bytes, limit_bytes: self.largest, limit })
    }

    /// Notes that a reader was there which this side's own rules do not let in.
    pub(super) fn keeps_out(&mut self, peer: &str, problem: &str) {
        self.denied = Some(kept_out(&self.setup.address, peer, problem));
    }

    /// Looks at what a reader gave, and finds a byte in the doorbell that nobody has.
    pub(super) fn admit<'a>(
        &mut self,
        met: Met<()>,
        readers: impl Iterator<Item = &'a Reader> + Clone,
    ) -> Option<Guest> {
        let (link, is_other) = (met.link, met.is_other);
        let pages = PAGE_BYTES..=PAGE_BYTES;
        let page = met.descriptors.into_iter().next().map(|fd| PeerMemory::received(fd, pages));
        let why = "it gave no reader's page that can be trusted";
        let page = match page.map(|page| page.map_err(|error| Unusable::of(error, why))) {
            Some(Ok(page)) => page,
            Some(Err(Unusable::Short(error))) => {
                let error = self.setup.system("no room for the memory of a peer", error);
                self.put_off(link, error);
                return None;
            }
            _ => {
                self.control.turn_away(link, why);
                return None;
            }
        };
        let is_free = |slot: &usize| readers.clone().all(|reader| reader.slot != *slot);
        let Some(slot) = (0..bell::READERS).find(is_free) else {
            let problem = format!("there is no room for {}", met.hello.end());
            self.control.turn_away(link, &problem);
            return None;
        };
        Some(Guest { link, slot, page: Theirs(page), is_other })
    }

    /// Something that a link needs is not to be had now. The reader is not to blame, and comes again; told once.
    pub(super) fn put_off(&mut self, link: LinkId, error: Error) {
        self.control.put_off(link);
        if !std::mem::replace(&mut self.short, true) {
            self.failed = Some(error);
        }
    }

    /// Tells a reader where to begin, after the message of a number; gives it the ring of a queue, and what
    /// there is for large messages.
    pub(super) fn welcome(
        &mut self,
        guest: Guest,
        begin: (u64, u64),
        ring: Option<&Own>,
    ) -> Option<Reader> {
        let Guest { link, slot, page, is_other } = guest;
        let cursor = match PeerCursor::open(page, begin.0) {
            Ok(cursor) => cursor,
            Err(what) => {
                self.control.turn_away(link, what.0);
                return None;
            }
        };
        bell::clear(&self.bell, slot);
        // First what messages may lie in: once it is welcome it looks for those.
        let mut welcomed = true;
        for (index, memory) in self.blocks.segments().enumerate() {
            welcomed &= self.control.give_segment(link, index as u32, memory);
        }
        welcomed &= self.control.welcome(link, slot, begin, ring);
        self.short &= !welcomed;
        if welcomed {
            self.denied = None;
        }
        welcomed.then(|| Reader {
            link,
            slot,
            cursor,
            woken: Woken::default(),
            raises: None,
            is_other,
            turn: 0,
            holds_up: None,
        })
    }

    /// More memory for large messages, of which all readers are told.
    pub(super) fn grow<'a>(
        &mut self,
        len: u64,
        readers: impl Iterator<Item = &'a Reader>,
    ) -> Result<(), SendError> {
        let grown = self.blocks.grow(len);
        let (index, memory) =
            grown.map_err(|error| self.setup.system("no memory for a large message", error))?;
        for reader in readers {
            self.control.give_segment(reader.link, index, memory);
        }
        Ok(())
    }

    /// What the ends of both patterns count.
    pub(super) fn counts(&self) -> Counts {
        let Counters { messages, bytes, sleeps, wakes, late, .. } = self.counters;
        Counts {
            sent: Some(messages),
            sent_bytes: Some(bytes),
            waits: sleeps,
            wake_ups: wakes,
            late,
            ..Counts::default()
        }
    }

    /// What went wrong on the control path, and whether the caller wants to be interrupted.
    pub(super) fn check(&mut self) -> Result<(), SendError> {
        self.take_failure()?;
        if !std::mem::take(&mut self.cancelled) {
            return Ok(());
        }
        let now = self.setup.is_cancelled();
        self.control.watch_cancel()?;
        if now { Err(SendError::Interrupted) } else { Ok(()) }
    }

    /// What went wrong on the control path.
    pub(super) fn take_failure(&mut self) -> Result<(), SendError> {
        let failed = self.failed.take().or_else(|| self.denied.take());
        failed.map_or(Ok(()), |error| Err(SendError::Failed(error)))
    }

    /// That no reader lets this end in, if it was not told.
    pub(super) fn take_denial(&mut self) -> Result<(), SendError> {
        self.denied.take().map_or(Ok(()), |error| Err(SendError::Failed(error)))
    }

    /// Whether [`check`](Self::check) has something to say.
    pub(super) fn has_news(&self) -> bool {
        self.failed.is_some() || self.denied.is_some() || self.cancelled
    }

    /// What is no matter of one pattern. A reader that does not fit is told so; the writer goes on. It is told of one
    /// that would fit and has no place for it.
    pub(super) fn note(&mut self, event: Event<()>) {
        match event {
            Event::Cancelled => self.cancelled = true,
            Event::Failed(error) => self.failed = Some(error),
            Event::Denied { peer, problem } => {
                self.denied = Some(denied(&self.setup.address, &peer, &problem));
            }
            Event::Full { peer, problem } => {
                let problem = format!("{peer} refused one link more: {problem}");
                let error = Error::new(ErrorKind::LimitReached, &self.setup.address, problem);
                self.failed = Some(error);
            }
            _ => {}
        }
    }
}

/// What an end is told whose own rules let nobody in who is there.
pub(super) fn kept_out(address: &Address, peer: &str, problem: &str) -> Error {
    let problem = format!("this process does not let {peer} in: {problem}");
    Error::new(ErrorKind::PermissionDenied, address, problem)
}

/// What an end is told that a peer's rules do not let in.
pub(super) fn denied(address: &Address, peer: &str, problem: &str) -> Error {
    let problem = format!("{peer} does not let this process in: {problem}");
    Error::new(ErrorKind::PermissionDenied, address, problem)
}

impl Reader {
    /// It has read up to a position, has no byte of its own in the doorbell, and is about to sleep: this side
    /// raises it, and wakes the reader at once if there is something that it has not seen.
    pub(super) fn sleeps(
        &mut self,
        (position, head): (u64, u64),
        bell: &Bell,
        control: &Control<WriterOffer>,
        counters: &mut Counters,
    ) {
        if position == head {
            self.turn = self.turn.wrapping_add(1);
            // Its writer is kept out meanwhile, and looks at it after its next commit.
            bell::raise_for(bell, self.slot, Sleeps::OnDescriptor, self.turn);
            self.raises.get_or_insert_with(|| bell.clone());
        } else {
            counters.wakes += 1;
            control.wake(self.link);
        }
    }

    /// Wakes it, if it sleeps on its descriptor. Whether it is to be woken on its futex instead.
    pub(super) fn wake(
        &mut self,
        raised: Raised,
        control: &Control<WriterOffer>,
        counters: &mut Counters,
    ) -> bool {
        if !self.woken.is_due(raised) {
            return false;
        }
        counters.wakes += 1;
        match raised.how {
            Sleeps::OnFutex => true,
            Sleeps::OnDescriptor => {
                if let Some(bell) = &self.raises {
                    // One for each sleep that it told of.
                    bell::clear(bell, self.slot);
                }
                control.wake(self.link);
                false
            }
        }
    }

    /// Whether it has moved on since it was looked at last, or says what cannot be.
    pub(super) fn has_moved(&self, head: u64) -> bool {
        self.cursor.peek(head) != Ok(self.cursor.seen())
    }

    /// Where a writer sleeps until it moves on, and the value for which it does.
    pub(super) fn place(&self) -> (Place, u32) {
        let place = Place::Cursor(self.cursor.memory().clone(), reader::CURSOR_WORD);
        (place, self.cursor.seen() as u32)
    }
}
