//! Messages that are built where they are sent from.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::sender::Sender;
use crate::error::SendError;
use crate::message::{Bytes, InPlace};

/// Room for a message, to be filled and [sent](Self::send).
///
/// Over `shm:` it is the memory that receivers read: nothing is copied. What is in it at first is zeros, or
/// bytes of earlier messages of the same sender. Elsewhere, and for types that are aligned to more than 8
/// bytes, it is memory of its own, all zeros, and sending copies it.
///
/// Nobody sees anything of it before it is sent. Dropped, it was nothing; if the process dies, too.
#[must_use = "nothing is sent until `send`"]
pub struct Loan<'a, T: InPlace> {
    sender: &'a mut Sender<T>,
    /// Where nothing was lent.
    own: Option<Box<T::View>>,
}

impl<T: InPlace> Sender<T> {
    #[inline(always)]
    fn lend_until(&mut self, len: usize, deadline: Deadline) -> Result<Loan<'_, T>, SendError> {
        let lent = self.flavor.lend_plain(len) && T::view_mut(self.flavor.room()).is_some();
        let own = if lent { None } else { self.lend_after_all(len, deadline)? };
        Ok(Loan { sender: self, own })
    }

    /// Room of its own, where nothing was lent.
    #[inline(never)]
    fn lend_after_all(
        &mut self,
        len: usize,
        deadline: Deadline,
    ) -> Result<Option<Box<T::View>>, SendError> {
        let lent = loop {
            match self.flavor.lend(len) {
                Err(SendError::Full) if self.flavor.waits() && !deadline.passed() => {
                    self.flavor.wait(deadline)?;
                }
                Err(error) => return Err(self.held_up(error)),
                Ok(lent) => break lent && T::view_mut(self.flavor.room()).is_some(),
            }
        };
        Ok(if lent { None } else { Some(self.blank(len)) })
    }

    #[cold]
    fn blank(&mut self, len: usize) -> Box<T::View> {
        self.flavor.cancel_loan();
        T::blank(len)
    }
}

impl<T: InPlace> Sender<T>
where
    T::View: Sized,
{
    /// Lends room for a message, to be filled in place; waits for a receiver and for room as long as it takes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn loan(&mut self) -> Result<Loan<'_, T>, SendError> {
        self.lend_until(size_of::<T::View>(), Deadline::NEVER)
    }

    /// As [`loan`](Self::loan), for at most `timeout`.
    ///
    /// # Errors
    /// `Full` or `Slow` when the time is over; otherwise as [`send`](Self::send).
    #[inline]
    pub fn loan_timeout(&mut self, timeout: Duration) -> Result<Loan<'_, T>, SendError> {
        self.lend_until(size_of::<T::View>(), Deadline::after(timeout))
    }

    /// Lends room without waiting.
    ///
    /// # Errors
    /// `Full` or `Slow` when it would have to wait; otherwise as [`send`](Self::send).
    #[inline]
    pub fn try_loan(&mut self) -> Result<Loan<'_, T>, SendError> {
        self.lend_until(size_of::<T::View>(), Deadline::AT_ONCE)
    }
}

impl Sender<Bytes> {
    /// Lends room for a message of up to `len` bytes, to be filled in place; waits for a receiver and for room as
    /// long as it takes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn loan_bytes(&mut self, len: usize) -> Result<Loan<'_, Bytes>, SendError> {
        self.lend_until(len, Deadline::NEVER)
    }

    /// As [`loan_bytes`](Self::loan_bytes), for at most `timeout`.
    ///
    /// # Errors
    /// `Full` or `Slow` when the time is over; otherwise as [`send`](Self::send).
    pub fn loan_bytes_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<Loan<'_, Bytes>, SendError> {
        self.lend_until(len, Deadline::after(timeout))
    }

    /// Lends room without waiting.
    ///
    /// # Errors
    /// `Full` or `Slow` when it would have to wait; otherwise as [`send`](Self::send).
    #[inline]
    pub fn try_loan_bytes(&mut self, len: usize) -> Result<Loan<'_, Bytes>, SendError> {
        self.lend_until(len, Deadline::AT_ONCE)
    }
}

impl<T: InPlace> Loan<'_, T> {
    /// Sends the message. Over `shm:` this never waits; elsewhere it waits for room as
    /// [`Sender::send`] does.
    ///
    /// # Errors
    /// As [`Sender::send`]; then nothing was sent, and what was built is gone.
    #[inline]
    pub fn send(self) -> Result<(), SendError> {
        self.send_up_to(usize::MAX)
    }

    #[inline]
    fn send_up_to(self, most: usize) -> Result<(), SendError> {
        if self.own.is_none() && self.sender.flavor.commit_plain(most) {
            self.sender.sent += 1;
            // Nothing is left to be taken back, and nothing else to be dropped.
            std::mem::forget(self);
            return Ok(());
        }
        self.send_after_all(most)
    }

    #[inline(never)]
    fn send_after_all(self, most: usize) -> Result<(), SendError> {
        let Some(view) = &self.own else {
            self.sender.flavor.commit_loan(most)?;
            self.sender.sent += 1;
            std::mem::forget(self);
            return Ok(());
        };
        let bytes = T::bytes(view);
        let bytes = &bytes[..most.min(bytes.len())];
        self.sender.send_bytes_until(bytes, 0, Deadline::NEVER)
    }
}

impl Loan<'_, Bytes> {
    /// Sends the first `len` bytes; all of them, if there are no more.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_first(self, len: usize) -> Result<(), SendError> {
        self.send_up_to(len)
    }
}

impl<T: InPlace> Drop for Loan<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Nothing, if it was sent.
        self.sender.flavor.cancel_loan();
    }
}

const FITS: &str = "looked at when it was lent";

impl<T: InPlace> Deref for Loan<'_, T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        match &self.own {
            Some(view) => view,
            None => {
                let view = T::view(self.sender.flavor.built());
                view.unwrap_or_else(|| unreachable!("{FITS}"))
            }
        }
    }
}

impl<T: InPlace> DerefMut for Loan<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T::View {
        match &mut self.own {
            Some(view) => view,
            None => {
                let view = T::view_mut(self.sender.flavor.room());
                view.unwrap_or_else(|| unreachable!("{FITS}"))
            }
        }
    }
}

impl<T: InPlace> fmt::Debug for Loan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("address", self.sender.address()).finish_non_exhaustive()
    }
}
