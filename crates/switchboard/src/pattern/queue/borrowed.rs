//! Messages that are looked at where they lie.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::receiver::{Receiver, Rejection};
use crate::error::RecvError;
use crate::message::InPlace;
use crate::transport::{Raw, Receipt};

/// A message that was received, where it lies, until the next one is taken.
///
/// Over `shm:` it is the sender's memory, which this process can only read: nothing is copied. Elsewhere, for
/// types that are aligned to more than 8 bytes, for subscribers of a publisher that
/// [drops the oldest](crate::Overflow::DropOldest), and from a process of another user, it is a copy.
///
/// The room that it takes is used again once this is dropped; of a queue, once it is settled. A sender
/// whose memory is shown is of the same user as its receiver. An honest one writes nothing there until then; one that lies can change
/// it meanwhile. So copy what you check and rely on.
///
/// Dropped, it is neither acknowledged nor rejected: see [`Delivery`](super::Delivery).
#[must_use = "a message of a queue that is not acknowledged comes again, where the transport redelivers"]
pub struct Borrowed<'a, T: InPlace> {
    receiver: &'a mut Receiver<T>,
    /// Where it was not left where it lies.
    own: Option<Box<Copied<T>>>,
}

/// A message that was copied.
struct Copied<T: InPlace> {
    view: Box<T::View>,
    about: About,
}

/// What is known of a message besides its content.
#[derive(Clone, Copy, Debug)]
struct About {
    receipt: Receipt,
    deliveries: u16,
    redelivered: bool,
    lost_before: u64,
    priority: u32,
}

impl About {
    fn of(raw: &Raw<'_>) -> Self {
        let Raw { receipt, deliveries, redelivered, lost_before, priority, .. } = *raw;
        Self { receipt, deliveries, redelivered, lost_before, priority }
    }
}

impl<T: InPlace> Receiver<T> {
    /// Receives a message and leaves it where it lies, waiting as long as it takes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn borrow(&mut self) -> Result<Borrowed<'_, T>, RecvError> {
        self.borrow_until(Deadline::NEVER)
    }

    /// As [`borrow`](Self::borrow), for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is over; otherwise as [`recv`](Self::recv).
    pub fn borrow_timeout(&mut self, timeout: Duration) -> Result<Borrowed<'_, T>, RecvError> {
        self.borrow_until(Deadline::after(timeout))
    }

    /// Receives without waiting, and leaves the message where it lies.
    ///
    /// After a message of a topic's only publisher over `shm:` it may look 16 times for the next one, with a pause of the processor
    /// each (0.2 µs in all on an AMD EPYC, up to 1 µs elsewhere), before it says that there is none.
    ///
    /// # Errors
    /// `Empty` when there is nothing now; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn try_borrow(&mut self) -> Result<Borrowed<'_, T>, RecvError> {
        let own = self.lend()?;
        Ok(Borrowed { receiver: self, own })
    }

    fn borrow_until(&mut self, deadline: Deadline) -> Result<Borrowed<'_, T>, RecvError> {
        let own = loop {
            match self.lend() {
                Err(RecvError::Empty) if !deadline.passed() => self.flavor.wait(deadline)?,
                result => break result?,
            }
        };
        Ok(Borrowed { receiver: self, own })
    }

    /// The message, if it was not left where it lies.
    #[inline(always)]
    fn lend(&mut self) -> Result<Option<Box<Copied<T>>>, RecvError> {
        match self.flavor.lend_plain() {
            Some(true) if T::view(self.flavor.lent_payload()).is_some() => Ok(None),
            Some(false) => Err(RecvError::Empty),
            taken => self.lend_after_all(taken.is_some()),
        }
    }

    /// `lent`: it was taken, and cannot be looked at where it lies.
    #[inline(never)]
    fn lend_after_all(&mut self, lent: bool) -> Result<Option<Box<Copied<T>>>, RecvError> {
        let mut copied = None;
        if lent || self.flavor.lend(&mut |raw| copied = Some(copy::<T>(&raw)))? {
            if T::view(self.flavor.lent_payload()).is_some() {
                return Ok(None);
            }
            copied = Some(copy::<T>(&self.flavor.lent()));
        }
        match copied {
            None => Err(RecvError::Empty),
            Some(Ok(copied)) => Ok(Some(copied)),
            Some(Err((error, receipt))) => {
                // Nobody holds it, so nobody else could settle it, and the window would stay taken.
                self.flavor.give_back(receipt)?;
                Err(error)
            }
        }
    }
}

#[cold]
fn copy<T: InPlace>(raw: &Raw<'_>) -> Result<Box<Copied<T>>, (RecvError, Receipt)> {
    match T::copied(raw.payload) {
        Ok(view) => Ok(Box::new(Copied { view, about: About::of(raw) })),
        Err(problem) => {
            let bytes = raw.payload.to_vec();
            Err((RecvError::Encoding { problem, bytes }, raw.receipt))
        }
    }
}

impl<T: InPlace> Borrowed<'_, T> {
    #[inline]
    fn about(&self) -> About {
        match &self.own {
            Some(copied) => copied.about,
            None => About::of(&self.receiver.flavor.lent()),
        }
    }

    /// Whether a receiver may have seen it before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.about().redelivered
    }

    /// How often it was given to a receiver before.
    #[must_use]
    pub fn deliveries(&self) -> u16 {
        self.about().deliveries
    }

    /// How many messages of the same sender are missing right before it.
    #[must_use]
    pub fn lost_before(&self) -> u64 {
        self.about().lost_before
    }

    /// Its priority, where the transport has priorities.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.about().priority
    }

    /// Its number among those of its connection; 0 where messages are not numbered.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.about().receipt.sequence
    }

    /// Acknowledges it: its work is done.
    ///
    /// # Errors
    /// As [`Receiver::acknowledge`].
    #[inline]
    pub fn acknowledge(self) -> Result<(), RecvError> {
        let receipt = self.about().receipt;
        self.receiver.flavor.acknowledge(receipt).map(drop)
    }

    /// Gives it back, as one that was worked on in vain: see [`Receiver::reject`].
    ///
    /// # Errors
    /// As [`Receiver::reject`].
    pub fn reject(self) -> Result<Rejection, RecvError> {
        let receipt = self.about().receipt;
        self.receiver.flavor.reject(receipt)
    }

    /// Gives it back, as one that was not begun: see [`Receiver::give_back`].
    ///
    /// # Errors
    /// As [`Receiver::give_back`].
    pub fn give_back(self) -> Result<Rejection, RecvError> {
        let receipt = self.about().receipt;
        self.receiver.flavor.give_back(receipt)
    }
}

impl<T: InPlace> Deref for Borrowed<'_, T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        match &self.own {
            Some(copied) => &copied.view,
            None => {
                let view = T::view(self.receiver.flavor.lent_payload());
                view.unwrap_or_else(|| unreachable!("looked at when it was taken"))
            }
        }
    }
}

impl<T: InPlace> fmt::Debug for Borrowed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Borrowed").field("about", &self.about()).finish_non_exhaustive()
    }
}
