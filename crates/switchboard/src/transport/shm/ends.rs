//! The four ends of `shm:`, as every transport has them.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::control::Control;
use super::endpoint::{Core, Endpoint};
use super::hand::{Manner, Seen};
use super::hello::Id;
use super::lending::Lending;
use super::meeting::Offer;
use super::publisher::{LARGEST_GATHERED, PublisherCore};
use super::reading::{ReaderCore, Reading};
use super::receiver::ReceiverCore;
use super::sender::SenderCore;
use super::subscriber::SubscriberCore;
use crate::error::{Error, ErrorKind, RecvError, SendError};
use crate::options::Overflow;
use crate::transport::{Raw, Receipt, Setup};

/// The publishing end.
pub(crate) type ShmPublisher = End<PublisherCore>;
/// The sending end.
pub(crate) type ShmSender = End<SenderCore>;
/// The subscribing end.
pub(crate) type ShmSubscriber = End<SubscriberCore>;
/// The receiving end.
pub(crate) type ShmReceiver = End<ReceiverCore>;

/// A core, and the calls to it.
#[derive(Debug)]
pub(crate) struct End<C: Opened> {
    end: Endpoint<C>,
    /// What the caller has of it outside of the core.
    outside: C::Outside,
    setup: Setup,
}

/// A core as it is opened and asked.
pub(crate) trait Opened: Core + Sized {
    type Offer: Offer;
    /// What the caller has outside: messages in its hand, or room that was lent.
    type Outside: Default + fmt::Debug;

    /// Whether it is of no use without a peer.
    const NEEDS_PEER: bool;

    fn open(setup: Setup) -> Result<Self, Error>;

    /// What the caller has at first.
    fn outside(&self) -> Self::Outside {
        Self::Outside::default()
    }

    fn control_path(&self) -> &Control<Self::Offer>;

    /// Whether nothing is missed from now on: whoever is there was met.
    fn has_met(&self) -> bool;

    /// Peers that are there now.
    fn peers(&self) -> usize;
}

/// A topic's end is open when it has met whoever is there, so that it misses nothing, or after this long:
/// somebody who is stopped, or is driven by a caller that is elsewhere.
const MEETS_WITHIN: Duration = Duration::from_millis(500);

impl<C: Opened> End<C> {
    pub(crate) fn open(setup: &Setup) -> Result<Self, Error> {
        Self::around(C::open(setup.again())?, setup)
    }

    /// An end with this core.
    pub(super) fn around(core: C, setup: &Setup) -> Result<Self, Error> {
        if !setup.options.wait && C::NEEDS_PEER && core.control_path().wanted() == 0 {
            let problem = "nobody is there, and waiting was not wanted";
            return Err(Error::new(ErrorKind::NotFound, &setup.address, problem)
                .hint("start the other side first, or leave out --no-wait"));
        }
        let failed = |error| setup.system("cannot open", error);
        let epoll = core.control_path().epoll()?;
        let outside = core.outside();
        let mut end = Endpoint::new(core, epoll, setup.options.io_thread).map_err(failed)?;
        let deadline = Deadline::after(MEETS_WITHIN);
        while !end.enter().is_ok_and(|core| core.has_met()) && !deadline.passed() {
            end.wait(deadline).map_err(failed)?;
        }
        Ok(Self { end, outside, setup: setup.again() })
    }

    /// The descriptor of the control path, for event loops: the caller drives it from now on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.end.fd()
    }

    /// Peers that are there now.
    pub(crate) fn peers(&self) -> usize {
        self.end.ask(|core| core.peers()).unwrap_or(0)
    }

    /// Calls the core; an error in a child of `fork`.
    #[inline]
    pub(super) fn call<R, E: From<Error>>(
        &mut self,
        act: impl FnOnce(&mut C, &mut C::Outside) -> Result<R, E>,
    ) -> Result<R, E> {
        match self.end.enter() {
            Ok(mut core) => act(&mut core, &mut self.outside),
            // Nothing else keeps a caller out.
            Err(_) => Err(Error::of_parent(&self.setup.address).into()),
        }
    }

    /// How often the control path has brought something, where the I/O thread drives it.
    #[inline]
    pub(super) fn quiet_news(&self) -> Option<u32> {
        self.end.quiet_news()
    }

    /// Looks at the control path, where the caller drives it. Whether there was something.
    pub(super) fn look_at_control(&mut self) -> bool {
        self.end.look()
    }

    /// Where the caller drives the control path: looks at it, at most once in a millisecond.
    #[inline]
    pub(super) fn look_now_and_then(&mut self) {
        self.end.look_now_and_then();
    }

    /// The same, at once.
    pub(super) fn look_now(&mut self) {
        self.end.look();
    }

    /// Whether the caller wants to be interrupted.
    pub(super) fn is_cancelled(&self) -> bool {
        self.setup.is_cancelled()
    }

    /// Asks the core something, by a reference that is shared. Costs a system call.
    pub(super) fn ask_core<R>(&self, question: impl FnOnce(&mut C) -> R) -> Option<R> {
        self.end.ask(question)
    }

    pub(super) fn sleep(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.end.wait(deadline).map_err(|error| self.cannot_go_on(error))
    }

    pub(super) fn cannot_go_on(&self, error: switchboard_kernel::Error) -> Error {
        match self.end.is_here() {
            true => self.setup.system("cannot go on", error),
            false => Error::of_parent(&self.setup.address),
        }
    }

    /// Whether the caller drives it.
    pub(super) fn is_by_caller(&self) -> bool {
        self.end.is_by_caller()
    }

    /// Where the caller drives it, and is about to sleep on its descriptor: whether there is nothing to be looked at
    /// first.
    pub(super) fn fall_asleep(&mut self) -> Result<bool, Error> {
        self.end.fall_asleep().map_err(|error| self.cannot_go_on(error))
    }

    /// The caller sleeps no more. `late`: nobody woke it.
    pub(super) fn wake_up(&mut self, late: bool) {
        self.end.wake_up(late);
    }

    /// In a caller's event loop: something is waited for, so peers are to wake the descriptor. Whether there is
    /// something after all.
    pub(super) fn arm_descriptor(&mut self) -> bool {
        self.end.is_here() && self.end.arm_descriptor()
    }
}

/// How both writing ends lend room.
pub(crate) trait Lends: Opened<Outside = Lending> {
    /// Lends room in a ring, where there is nothing particular about it: a short cut, after which
    /// [`lend`](Self::lend) does the rest.
    #[inline(always)]
    fn lend_plain(&mut self, _len: usize, _lending: &mut Lending) -> bool {
        false
    }

    /// Lends room for a message, without waiting.
    fn lend(&mut self, len: usize, lending: &mut Lending) -> Result<(), SendError>;

    /// Sends the first bytes of what was built, where there is nothing particular about it: a short cut.
    #[inline(always)]
    fn commit_plain(&mut self, _len: usize, _lending: &mut Lending) -> bool {
        false
    }

    /// Sends the first bytes of what was built.
    fn commit_loan(&mut self, len: usize, lending: &mut Lending);

    /// Takes a loan back of which nothing becomes.
    fn cancel_loan(&mut self, lending: &mut Lending);
}

impl<C: Lends> End<C> {
    /// Lends [room](Self::room) for a message, if there is nothing particular about it.
    #[inline]
    pub(crate) fn lend_plain(&mut self, len: usize) -> bool {
        let is_quiet = self.end.is_quiet();
        (is_quiet && self.outside.lend_granted(len)) || self.lend_on(len, is_quiet)
    }

    #[inline(never)]
    fn lend_on(&mut self, len: usize, is_quiet: bool) -> bool {
        (is_quiet && self.outside.lend_spare(len)) || self.lend_from_core(len)
    }

    fn lend_from_core(&mut self, len: usize) -> bool {
        self.end.look_now_and_then();
        !self.outside.is_out()
            && !self.outside.gathers()
            && self.end.enter().is_ok_and(|mut core| core.lend_plain(len, &mut self.outside))
    }

    /// Lends [room](Self::room) for a message, without waiting.
    pub(crate) fn lend(&mut self, len: usize) -> Result<(), SendError> {
        self.cancel_loan();
        self.end.look_now_and_then();
        self.call(|core, lending| core.lend(len, lending))
    }

    /// The room that was lent.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.outside.room()
    }

    /// What was built there so far.
    #[inline]
    pub(crate) fn built(&self) -> &[u8] {
        self.outside.built()
    }

    /// Sends the first bytes of what was built, if there is nothing particular about it.
    pub(crate) fn commit_plain(&mut self, len: usize) -> bool {
        self.end.enter().is_ok_and(|mut core| core.commit_plain(len, &mut self.outside))
    }

    /// Sends the first bytes of what was built.
    pub(crate) fn commit_loan(&mut self, len: usize) -> Result<(), SendError> {
        self.call(|core, lending| {
            core.commit_loan(len, lending);
            Ok(())
        })
    }

    /// Takes a loan back, if one is out, of which nothing becomes.
    #[inline]
    pub(crate) fn cancel_loan(&mut self) {
        if self.outside.is_out()
            && let Ok(mut core) = self.end.enter()
        {
            core.cancel_loan(&mut self.outside);
        }
    }
}

impl ShmPublisher {
    /// Accepts a message that waits for the next ones, where that needs no look at anything.
    #[inline(always)]
    pub(crate) fn feed_next(&mut self, payload: &[u8]) -> bool {
        let is_small = payload.len() <= LARGEST_GATHERED;
        (is_small && self.end.is_here() && self.outside.add(payload)) || self.feed_on(payload)
    }

    #[inline(never)]
    fn feed_on(&mut self, payload: &[u8]) -> bool {
        self.gather(payload.len()) && self.outside.add(payload)
    }

    /// Publishes what waits for others, and makes room for more. Whether there is room for a message of so many bytes.
    fn gather(&mut self, len: usize) -> bool {
        self.end.look_now_and_then();
        self.end.enter().is_ok_and(|mut core| core.gather(len, &mut self.outside))
    }

    /// Accepts messages of up to so many bytes that `fill` writes in place, until it says `None`, or something has to be
    /// looked at for the next one. How many there were, and whether it said so.
    #[inline]
    pub(crate) fn fill_each(
        &mut self,
        len: usize,
        fill: &mut impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> (usize, bool) {
        let mut count = 0;
        while self.gather(len) {
            let Self { end, outside, .. } = self;
            let (filled, is_over) = outside.fill_each(len, fill, || end.is_here());
            count += filled;
            if is_over {
                return (count, true);
            }
        }
        (count, false)
    }

    /// How many messages were accepted to wait for others.
    pub(crate) fn gathered(&self) -> u64 {
        self.outside.gathered + self.outside.gathering.messages()
    }

    /// Publishes what was accepted, and waits for others.
    #[inline]
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        if !self.outside.gathers() {
            return Ok(true);
        }
        self.call(|core, lending| {
            core.send_off(lending);
            Ok(true)
        })
    }

    #[inline]
    pub(crate) fn try_send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.end.look_now_and_then();
        self.call(|core, lending| {
            core.send_off(lending);
            core.try_send(payload)
        })
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        // Nobody is to wait for what was not shown.
        self.drive()?;
        self.sleep(deadline)?;
        self.call(|core, _| core.check())
    }

    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.end.look();
        self.call(|core, _| core.check())
    }

    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        // A child of fork has nothing to end.
        self.end.enter().map_or(Ok(true), |mut core| {
            core.send_off(&mut self.outside);
            core.finish()
        })
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.end.ask(|core| core.published()).unwrap_or(0)
    }

    pub(crate) fn pending(&self) -> u64 {
        self.end.ask(|core| core.pending()).unwrap_or(0) + self.outside.gathering.messages()
    }

    /// Whether sending waits when there is no room.
    pub(crate) fn waits(&self) -> bool {
        self.setup.options.overflow == Overflow::Block
    }

    pub(crate) fn slow_peer(&self) -> Option<String> {
        self.end.ask(|core| core.slow_peer()).flatten()
    }
}

impl ShmSender {
    #[inline]
    pub(crate) fn try_send(&mut self, payload: &[u8], priority: u32) -> Result<(), SendError> {
        // One that was forgotten.
        self.cancel_loan();
        self.end.look_now_and_then();
        self.call(|core, _| core.try_send(payload, priority))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.sleep(deadline)?;
        self.call(|core, _| core.check())
    }

    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.end.look();
        self.drive().map(drop)
    }

    /// Moves on what can move. What was accepted is in memory that the receivers see, or waits for one.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        self.call(|core, _| core.drive().map(|()| true))
    }

    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        // A child of fork has nothing to end.
        self.end.enter().map_or(Ok(true), |mut core| core.finish())
    }

    pub(crate) fn leave(&mut self) -> Result<bool, SendError> {
        self.end.enter().map_or(Ok(true), |mut core| core.leave())
    }

    pub(crate) fn pending(&self) -> u64 {
        self.end.ask(|core| core.pending()).unwrap_or(0)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.end.ask(|core| core.acknowledged()).unwrap_or(0)
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.end.ask(|core| core.rejected()).unwrap_or(0)
    }
}

impl ShmSender {
    /// Sends a message, with a word before it, to one receiver, where there is nothing particular about it: a short cut.
    #[inline(always)]
    pub(super) fn send_plain(&mut self, to: (usize, Id), word: u64, payload: &[u8]) -> bool {
        self.end.enter().is_ok_and(|mut core| core.send_plain(to, &[word], payload))
    }
}

impl<P: Reading> End<ReaderCore<P>> {
    /// Takes one message without waiting. Whether there was one.
    #[inline]
    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        let taken = self.take_as(Manner::Copied)?;
        if taken {
            with(self.outside.raw());
        }
        Ok(taken)
    }

    /// The same, for who goes on to [`take_more`](Self::take_more): a message in a block is looked at where it lies.
    #[inline]
    pub(crate) fn take_first(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        let taken = self.take_as(Manner::LentInBlocks)?;
        if taken {
            with(Looking(self).0.outside.raw());
        }
        Ok(taken)
    }

    #[inline(always)]
    fn take_as(&mut self, manner: Manner) -> Result<bool, RecvError> {
        if self.nothing_came() {
            return Ok(false);
        }
        Ok(self.take_one(manner) || self.next(manner)?)
    }

    /// Takes a copy of one message without waiting: [`lent_payload`](Self::lent_payload). Whether there was one.
    #[inline]
    pub(super) fn copy_next(&mut self) -> Result<bool, RecvError> {
        if self.nothing_came() {
            return Ok(false);
        }
        self.end.look_now_and_then();
        if self.take_plain(Manner::Copied) { Ok(true) } else { self.next(Manner::Copied) }
    }

    /// A short cut, after which [`lend`](Self::lend) does the rest. Whether there was a message; `None` where that
    /// is not known.
    #[inline]
    pub(crate) fn lend_plain(&mut self) -> Option<bool> {
        let seen = self.end.quiet_news().map_or(Seen::Other, |news| self.outside.next(news));
        match seen {
            Seen::Message => Some(true),
            Seen::Nothing => Some(false),
            Seen::Rest => None,
            Seen::Other => {
                self.end.look_now_and_then();
                self.take_lent().then_some(true)
            }
        }
    }

    /// As [`take`](Self::take), and leaves it where it is until the next is taken: [`lent`](Self::lent).
    pub(crate) fn lend(&mut self) -> Result<bool, RecvError> {
        self.next(Manner::Lent)
    }

    /// What was taken last.
    #[inline]
    pub(crate) fn lent(&self) -> Raw<'_> {
        self.outside.raw()
    }

    /// Which it was.
    #[inline]
    pub(super) fn lent_receipt(&self) -> Receipt {
        self.outside.found.receipt
    }

    /// Its payload.
    #[inline]
    pub(crate) fn lent_payload(&self) -> &[u8] {
        self.outside.bytes()
    }

    /// Whether nothing came since nothing was found.
    #[inline]
    fn nothing_came(&self) -> bool {
        self.end.quiet_news().is_some_and(|news| self.outside.is_empty(news))
    }

    #[inline(never)]
    fn take_lent(&mut self) -> bool {
        self.take_plain(Manner::Lent)
    }

    fn take_one(&mut self, manner: Manner) -> bool {
        self.take_plain(manner)
    }

    #[inline(always)]
    fn take_plain(&mut self, manner: Manner) -> bool {
        let news = self.end.news();
        self.end.enter().is_ok_and(|mut core| core.take_plain(manner, &mut self.outside, news))
    }

    pub(super) fn next(&mut self, manner: Manner) -> Result<bool, RecvError> {
        self.end.look_now_and_then();
        if self.try_next(manner)? {
            return Ok(true);
        }
        // Something may have come meanwhile.
        if self.end.arm_descriptor() { self.try_next(manner) } else { Ok(false) }
    }

    fn try_next(&mut self, manner: Manner) -> Result<bool, RecvError> {
        let news = self.end.news();
        self.call(|core, hand| core.take(manner, hand, news))
    }

    /// Up to `most` further messages of the writer that the last one came from.
    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let looking = Looking(self);
        let end = &mut *looking.0;
        let mut count = 0;
        while count < most {
            let taken = end.take_ahead(most - count, with);
            count += taken;
            if taken > 0 {
                continue;
            }
            if !end.take_one(Manner::LentInBlocks) && !end.take_one_more() {
                break;
            }
            // Outside: whatever the caller does now, the I/O thread can do its work.
            with(end.outside.raw());
            count += 1;
        }
        count
    }

    /// Plain messages that are there already, a few at a time. How many there were.
    #[inline]
    fn take_ahead(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        if !P::LOOKS_AHEAD {
            return 0;
        }
        let outside = &mut self.outside;
        let seen = self.end.enter().map_or(0, |mut core| core.look_ahead(most, outside));
        if seen == 0 {
            return 0;
        }
        let news = self.end.news();
        // Also if the caller panics, it has had those that were given to it.
        let mut passing = Passing { end: self, had: 0 };
        for at in 0..seen {
            // In a child of fork the memory is not there; and its writer may have been turned away.
            if !passing.end.end.is_here() || passing.end.end.news() != news {
                break;
            }
            passing.had += 1;
            with(passing.end.outside.copy_ahead(at));
        }
        passing.had
    }

    fn take_one_more(&mut self) -> bool {
        let outside = &mut self.outside;
        self.end.enter().is_ok_and(|mut core| core.take_more(Manner::LentInBlocks, outside))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        Ok(self.sleep(deadline)?)
    }

    /// As [`wait`](Self::wait), for whom no message is what ends it.
    pub(super) fn wait_quietly(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.sleep(deadline)
    }
}

/// A reader's end whose caller looks at messages where they lie: in the end, also if it panics, blocks are their
/// writers' again.
struct Looking<'a, P: Reading>(&'a mut End<ReaderCore<P>>);

impl<P: Reading> Drop for Looking<'_, P> {
    fn drop(&mut self) {
        let Self(end) = self;
        if end.outside.was_in_block()
            && let Ok(mut core) = end.end.enter()
        {
            core.is_done_with_blocks();
        }
    }
}

/// A reader's end whose caller is looking at messages that it has not gone behind.
struct Passing<'a, P: Reading> {
    end: &'a mut End<ReaderCore<P>>,
    /// How many of them the caller has had.
    had: usize,
}

impl<P: Reading> Drop for Passing<'_, P> {
    fn drop(&mut self) {
        let Self { end, had } = self;
        if let Ok(mut core) = end.end.enter() {
            core.pass_ahead(*had, &end.outside);
        }
    }
}

/// What came of a short cut to a message and its settlement.
pub(super) enum Judged<R> {
    /// It is settled.
    Settled(R),
    /// It was taken, and it is not settled: it is nothing plain.
    Taken,
    /// Nothing came.
    Nothing,
    /// That is not known.
    Unknown,
}

impl ShmReceiver {
    /// Takes a copy of the next message and settles it, if it is a plain one of the only writer, and `judge` knows
    /// what to do with it: a short cut, after which [`copy_next`](Self::copy_next) does the rest.
    #[inline(always)]
    pub(super) fn take_judged<R>(
        &mut self,
        judge: impl FnOnce(Receipt, &[u8]) -> Option<R>,
    ) -> Judged<R> {
        if self.nothing_came() {
            return Judged::Nothing;
        }
        self.end.look_now_and_then();
        let Ok(mut core) = self.end.enter() else { return Judged::Unknown };
        if !core.take_plain(Manner::Copied, &mut self.outside, 0) {
            return Judged::Unknown;
        }
        match judge(self.outside.found.receipt, self.outside.bytes()) {
            Some(known) => {
                core.acknowledge_plain(self.outside.found.receipt);
                Judged::Settled(known)
            }
            None => Judged::Taken,
        }
    }

    #[inline]
    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> bool {
        self.end.enter().is_ok_and(|mut core| core.acknowledge(receipt))
    }

    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) {
        if let Ok(mut core) = self.end.enter() {
            core.acknowledge_all(receipts);
        }
    }

    pub(crate) fn reject(&mut self, receipt: Receipt) -> bool {
        self.end.enter().is_ok_and(|mut core| core.reject(receipt))
    }
}
