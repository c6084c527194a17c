//! The sending end of a queue.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use crate::address::Address;
use crate::error::{CloseError, SendError};
use crate::message::{Bytes, Message};
use crate::transport::{SenderFlavor, Setup};

/// The sending end of a queue.
///
/// It runs no thread: acknowledgements are read, and messages of a dead receiver given out again,
/// while one of its methods runs.
///
/// Dropping it waits as long as messages are unacknowledged, at most for the
/// [`linger`](crate::Options#structfield.linger) of the options, then says the end without waiting for
/// an answer; what went wrong meanwhile nobody is told. With nothing unacknowledged, dropping it waits
/// for nobody. [`close`](Self::close) waits for the answer, and says what went wrong.
#[derive(Debug)]
pub struct Sender<T> {
    pub(super) flavor: SenderFlavor,
    setup: Setup,
    pub(super) sent: u64,
    /// Closing was tried: dropping does not wait again.
    closed: bool,
    /// Everything is settled and the end was said.
    finished: bool,
    /// Dropping it waits for nothing: it is a task's.
    hasty: bool,
    message: PhantomData<fn(T)>,
}

impl<T: Message> Sender<T> {
    pub(crate) fn new(flavor: SenderFlavor, setup: Setup) -> Self {
        Self {
            flavor,
            setup,
            sent: 0,
            closed: false,
            finished: false,
            hasty: false,
            message: PhantomData,
        }
    }

    /// Sends a message, waiting for a receiver and for room as long as it takes.
    ///
    /// When it returns, the message is with the kernel; it is acknowledged later. See
    /// [`unacknowledged`](Self::unacknowledged) and [`close`](Self::close).
    ///
    /// # Errors
    /// `TooLarge`, `Unframable`, `Encoding`: the message cannot be sent so. `Interrupted` before it was
    /// accepted. The message is the caller's in each of these cases. `PeerDied` where the transport or
    /// the options rule out another receiver, and `PeerMisbehaved`: messages accepted before, perhaps
    /// this one, are [not acknowledged](Self::unacknowledged); [`sent`](Self::sent) counts this one if
    /// it was accepted. `Failed` with a mismatch: the receiver there takes other messages; the next call
    /// looks again.
    pub fn send(&mut self, message: &T) -> Result<(), SendError> {
        message
            .encode(|bytes| self.send_bytes_until(bytes, 0, Deadline::NEVER))
            .map_err(SendError::Encoding)?
    }

    /// As [`send`](Self::send), with a priority: 0 to 32767, the highest first, where the transport has
    /// priorities.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with_priority(&mut self, message: &T, priority: u32) -> Result<(), SendError> {
        message
            .encode(|bytes| self.send_bytes_until(bytes, priority, Deadline::NEVER))
            .map_err(SendError::Encoding)?
    }

    /// As [`send`](Self::send), for at most `timeout`.
    ///
    /// # Errors
    /// `Full` or `Slow` when the time is over; otherwise as [`send`](Self::send).
    pub fn send_timeout(&mut self, message: &T, timeout: Duration) -> Result<(), SendError> {
        message
            .encode(|bytes| self.send_bytes_until(bytes, 0, Deadline::after(timeout)))
            .map_err(SendError::Encoding)?
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// `Full` or `Slow` when it would have to wait; otherwise as [`send`](Self::send). Where a part of an
    /// accepted message is still to be written, the sender has to be called again when its
    /// [descriptor](Self::as_fd) is readable or writable; what goes wrong with that, the next call says.
    pub fn try_send(&mut self, message: &T) -> Result<(), SendError> {
        message.encode(|bytes| self.try_send_bytes(bytes)).map_err(SendError::Encoding)?
    }

    fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.flavor.try_send(bytes, 0, false).map_err(|error| self.held_up(error))?;
        self.sent += 1;
        Ok(())
    }

    /// Names the peer that holds a topic up, where there is one.
    #[cold]
    pub(super) fn held_up(&self, error: SendError) -> SendError {
        match (error, self.flavor.slow_peer()) {
            (SendError::Full, Some(peer)) => SendError::Slow { peer },
            (error, _) => error,
        }
    }

    pub(super) fn send_bytes_until(
        &mut self,
        bytes: &[u8],
        priority: u32,
        deadline: Deadline,
    ) -> Result<(), SendError> {
        self.accept_until(deadline, |flavor| flavor.try_send(bytes, priority, false))?;
        self.write_accepted(deadline)
    }

    /// Repeats an attempt until it is accepted.
    fn accept_until(
        &mut self,
        deadline: Deadline,
        mut attempt: impl FnMut(&mut SenderFlavor) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        loop {
            match attempt(&mut self.flavor) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err(SendError::Full) if self.flavor.waits() && !deadline.passed() => {
                    self.flavor.wait(deadline)?;
                }
                Err(error) => return Err(self.held_up(error)),
            }
        }
    }

    /// Waits until what was accepted is with the kernel. A deadline that passes and an interruption are
    /// no errors: the message is accepted, and goes on with the next call, which is interrupted anew.
    fn write_accepted(&mut self, deadline: Deadline) -> Result<(), SendError> {
        match self.write_out(deadline) {
            Err(SendError::Interrupted) => Ok(()),
            result => result,
        }
    }

    fn write_out(&mut self, deadline: Deadline) -> Result<(), SendError> {
        while !self.flavor.drive()? {
            if deadline.passed() {
                break;
            }
            self.flavor.wait(deadline)?;
        }
        Ok(())
    }

    /// Moves on what can move without waiting: reads acknowledgements, writes what waits. For callers
    /// with an event loop of their own, when the descriptor is ready.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn drive(&mut self) -> Result<(), SendError> {
        self.flavor.drive()?;
        match self.flavor.wait(Deadline::after(Duration::ZERO)) {
            Ok(()) => self.flavor.look(),
            Err(error) => Err(error),
        }
    }

    /// Whether sending waits when there is no room.
    #[cfg(feature = "tokio")]
    pub(crate) fn waits(&self) -> bool {
        self.flavor.waits()
    }

    /// How long it wants to wait in one go, where something else than its descriptor ends a wait.
    #[cfg(feature = "tokio")]
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.flavor.patience()
    }

    /// Whether everything accepted is with the kernel, after moving on what can move.
    #[cfg(feature = "tokio")]
    pub(crate) fn written_out(&mut self) -> Result<bool, SendError> {
        self.flavor.drive()
    }

    /// One step of [`finish`](Self::finish), without waiting. Whether it is done.
    pub(crate) fn finish_step(&mut self) -> Result<bool, SendError> {
        if !self.finished {
            self.finished = self.flavor.finish()?;
            self.closed |= self.finished;
        }
        Ok(self.finished)
    }

    /// Whether dropping it waits for nothing, or as its documentation says.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_hasty(&mut self, hasty: bool) {
        self.hasty = hasty;
    }

    /// The address it sends to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.setup.address
    }

    /// Waits until everything sent so far is acknowledged.
    ///
    /// # Errors
    /// `Full` or `Slow` when the time is over; `PeerDied` with the messages that never will be: over a foreign
    /// framing, those that waited for a receiver when it died. Otherwise as [`send`](Self::send).
    pub fn flush(&mut self, timeout: Option<Duration>) -> Result<(), SendError> {
        let deadline = Deadline::from_timeout(timeout);
        self.write_out(deadline)?;
        while self.flavor.pending() > 0 {
            self.flavor.look()?;
            if self.flavor.pending() == 0 {
                break;
            }
            if deadline.passed() {
                return Err(self.held_up(SendError::Full));
            }
            self.flavor.wait(deadline)?;
        }
        match self.unacknowledged() {
            0 => Ok(()),
            unacknowledged => Err(SendError::PeerDied { unacknowledged }),
        }
    }

    /// Messages accepted by this sender.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent + self.flavor.gathered()
    }

    /// Messages that receivers acknowledged; on transports and framings without acknowledgements, that
    /// the kernel took (over a foreign framing counted by the block of up to 64 KiB, or `PIPE_BUF` on a
    /// FIFO, that they are written in).
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.flavor.acknowledged()
    }

    /// Messages accepted and not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.flavor.unacknowledged()
    }

    /// Messages that receivers rejected as often as the options allow.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.flavor.rejected()
    }

    /// What was noticed when it was opened, for a person to read: that a predecessor left something
    /// unfinished in a log, and what became of it.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.flavor.remark()
    }

    /// Receivers, or subscribers, connected now; 1 on transports that cannot know.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.flavor.peers()
    }

    /// Waits until so many receivers, or subscribers of a topic, are connected; for nobody on transports
    /// that cannot know.
    ///
    /// A publisher needs nobody to be there; this is for one whose first message is not to be missed.
    ///
    /// # Errors
    /// `Full` when the time is over; otherwise as [`send`](Self::send).
    pub fn wait_for_peers(
        &mut self,
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<(), SendError> {
        let deadline = Deadline::from_timeout(timeout);
        while self.flavor.counts_peers() {
            self.flavor.look()?;
            if self.flavor.peers() >= count {
                break;
            }
            if deadline.passed() {
                return Err(SendError::Full);
            }
            self.flavor.wait(deadline)?;
        }
        Ok(())
    }

    /// The subscriber that a topic's publisher waits for most, if for any: what is known of it.
    #[must_use]
    pub fn slow_peer(&self) -> Option<String> {
        self.flavor.slow_peer()
    }

    /// Messages of a topic that were dropped because subscribers were slow
    /// ([`Overflow::DropOldest`](crate::Overflow::DropOldest)), each counted for each of them; 0 over `shm:`,
    /// where only the subscriber knows.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.flavor.dropped()
    }

    /// The address this end is bound to, with the port that was chosen; `None` if it is not bound.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.local_address()
    }

    /// Waits until every message is acknowledged, says the end, and closes.
    ///
    /// Waits for a receiver if none ever came, and for another one if the last one died; at most for
    /// the [`linger`](crate::Options#structfield.linger) of the options. A receiver that dies after it has
    /// acknowledged everything is no error. If the receiver that was there last did not fit, no other is
    /// waited for.
    ///
    /// # Errors
    /// How many messages were not acknowledged, and why.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.finish()
    }

    /// [`close`](Self::close) without giving the sender up, so that a caller can look at it after, or try
    /// again: after an error the next call goes on where this one gave up, and dropping the sender
    /// waits no more.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn finish(&mut self) -> Result<(), CloseError> {
        self.closed = true;
        let deadline = Deadline::from_timeout(self.setup.options.linger);
        let reason = loop {
            match self.finish_step() {
                Ok(true) if self.rejected() == 0 => return Ok(()),
                Ok(true) => break SendError::Full,
                Ok(false) if deadline.passed() => break self.held_up(SendError::Full),
                Ok(false) => {}
                Err(reason) => break reason,
            }
            if let Err(reason) = self.flavor.wait(deadline) {
                break reason;
            }
        };
        let (unacknowledged, rejected) = (self.unacknowledged(), self.rejected());
        Err(CloseError { unacknowledged, rejected, reason })
    }
}

impl Sender<Bytes> {
    /// Sends bytes without copying them into a [`Bytes`] first.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.send_bytes_until(bytes, 0, Deadline::NEVER)
    }

    /// As [`send_bytes`](Self::send_bytes), with a priority.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes_with_priority(
        &mut self,
        bytes: &[u8],
        priority: u32,
    ) -> Result<(), SendError> {
        self.send_bytes_until(bytes, priority, Deadline::NEVER)
    }

    /// Accepts a message and lets it wait for others, so that many small ones go out in one write.
    /// [`push`](Self::push) sends off what waits; so does any other send, a loan, and the end of the sender. What goes wrong
    /// with a message after it was accepted, the next call says. Those that wait when the process dies are lost.
    ///
    /// Over `shm:` the messages of a topic become visible together, and do not wait for one with which they would be more than 4 KiB with
    /// their headers, or than an eighth of a smaller ring. Those of more than 1 KiB do not wait, nor do any where the oldest is
    /// dropped, where there is a history, or in a queue. Over `file:` they are one batch, of up to 140 KiB.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        if self.flavor.feed_next(bytes, &mut self.sent) {
            return Ok(());
        }
        self.accept_until(Deadline::NEVER, |flavor| flavor.try_send(bytes, 0, true))
    }

    /// Waits until everything accepted is with the kernel.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn push(&mut self) -> Result<(), SendError> {
        self.write_out(Deadline::NEVER)
    }

    /// Sends messages of up to `len` bytes that `fill` writes one after the other, until it says `None`; otherwise it says
    /// how many bytes it wrote. Waits for room as [`send`](Self::send) does. Returns how many there were: all of them
    /// are with the kernel then, or where receivers see them.
    ///
    /// For many messages that are there already, as [`Receiver::recv_each`](crate::Receiver::recv_each) receives them: until it returns,
    /// what was written last may wait as with [`feed`](Self::feed). Over `shm:` messages are mostly
    /// written where they are read; those of a topic, if `len` is up to 1 KiB, at little more cost than their bytes. Give no larger `len` than needed: so much
    /// room is looked for. What is in it at first is
    /// zeros, or bytes of earlier messages of this sender. If `fill` panics, what it wrote before waits.
    ///
    /// ```
    /// use switchboard::{Bytes, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let scratch = std::env::temp_dir().join(format!("send-each-{}", std::process::id()));
    /// # std::fs::create_dir(&scratch)?;
    /// # let address = format!("shm:ticks?scope={}", scratch.display());
    /// let topic = Topic::<Bytes>::open(&address)?;
    /// let mut ticks: switchboard::Sender<Bytes> = topic.publisher()?.into();
    /// let mut numbers = 0..1000_u64;
    /// let sent = ticks.send_each(8, |room| {
    ///     room.copy_from_slice(&numbers.next()?.to_le_bytes());
    ///     Some(8)
    /// })?;
    /// assert_eq!(sent, 1000);
    /// # drop(ticks);
    /// # std::fs::remove_dir_all(&scratch)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send), for the message that `fill` wrote last; those before it were sent, and
    /// [`sent`](Self::sent) says how many were accepted.
    pub fn send_each(
        &mut self,
        len: usize,
        mut fill: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Result<usize, SendError> {
        let mut count = 0;
        let mut room = Vec::new();
        let outcome = loop {
            let (filled, is_over) = self.flavor.fill_each(len, &mut fill);
            count += filled;
            if is_over {
                break Ok(());
            }
            match self.fill_one(len, &mut room, &mut fill) {
                Ok(true) => count += 1,
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let pushed = self.push();
        outcome.and(pushed).map(|()| count)
    }

    /// One more of them. Whether there was one.
    fn fill_one(
        &mut self,
        len: usize,
        room: &mut Vec<u8>,
        fill: &mut impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Result<bool, SendError> {
        if self.flavor.has_own_memory()
            && let Ok(mut loan) = self.try_loan_bytes(len)
        {
            let Some(filled) = fill(&mut loan) else { return Ok(false) };
            loan.send_first(filled)?;
            return Ok(true);
        }
        // Whether there is another one comes before waiting for room.
        room.resize(len, 0);
        let Some(filled) = fill(room) else { return Ok(false) };
        self.feed(&room[..filled.min(len)])?;
        Ok(true)
    }

    /// Sends a message of up to `len` bytes that `fill` writes in place; `fill` says how many bytes it
    /// wrote, or an error of its own. `Ok(Ok(0))` sends nothing.
    ///
    /// # Errors
    /// As [`send`](Self::send); nothing was sent and `fill` was not called.
    pub fn send_filled<E>(
        &mut self,
        len: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Result<usize, E>, SendError> {
        let filled = loop {
            match self.flavor.reserve(len) {
                Ok(Some(room)) => break fill(room),
                Ok(None) => {
                    let mut room = vec![0; len];
                    let filled = fill(&mut room);
                    if let Ok(n) = filled
                        && n > 0
                    {
                        self.send_bytes(&room[..n])?;
                    }
                    return Ok(filled);
                }
                Err(SendError::Full) => self.flavor.wait(Deadline::NEVER)?,
                Err(error) => return Err(error),
            }
        };
        if let Ok(n) = filled
            && n > 0
        {
            self.flavor.commit(n, false)?;
            self.sent += 1;
            self.write_accepted(Deadline::NEVER)?;
        }
        Ok(filled)
    }
}

impl<T> AsFd for Sender<T> {
    /// The wake-up descriptor: when it is ready, call [`drive`](Sender::drive) or send again. Watch for
    /// reading and writing.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.flavor.fd()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if !self.setup.is_here() {
            return;
        }
        self.flavor.show();
        if self.closed || std::thread::panicking() {
            return;
        }
        let linger = if self.hasty { Some(Duration::ZERO) } else { self.setup.options.linger };
        let deadline = Deadline::from_timeout(linger);
        // Nobody is left to tell: `close` is for those who want to know.
        while let Ok(false) = self.flavor.leave() {
            if deadline.passed() || self.flavor.wait(deadline).is_err() {
                break;
            }
        }
    }
}
