//! Two ends that are one: what wakes a client, or a server, whichever of its links it comes over.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::io::{self, Deadline, Interest};

use super::ends::{End, Opened};
use super::park::BACKSTOP;
use crate::error::Error;

/// A descriptor for both.
#[derive(Debug, Default)]
pub(super) struct Both(OnceLock<Option<Epoll>>);

impl Both {
    /// The descriptor for a caller's event loop. From now on the caller drives both.
    pub(super) fn fd<'a, A: Opened, B: Opened>(
        &'a self,
        one: &'a End<A>,
        other: &'a End<B>,
    ) -> BorrowedFd<'a> {
        let (one, other) = (one.fd(), other.fd());
        self.of(one, other).map_or(one, AsFd::as_fd)
    }

    fn of(&self, one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Option<&Epoll> {
        let all = self.0.get_or_init(|| {
            let all = Epoll::new().ok()?;
            all.add(one, 0, Interest::Readable).ok()?;
            all.add(other, 1, Interest::Readable).ok()?;
            Some(all)
        });
        all.as_ref()
    }

    /// Waits, where the caller drives both, until something may have changed at either. `for_room`: what is to be
    /// written has found none.
    pub(super) fn wait<R: Opened, W: Opened>(
        &self,
        reader: &mut End<R>,
        (writer, for_room): (&mut End<W>, bool),
        deadline: Deadline,
    ) -> Result<(), Error> {
        let quiet = if for_room { writer.fall_asleep()? } else { !writer.look_at_control() };
        let asleep = reader.fall_asleep()? && quiet;
        let mut late = false;
        if asleep {
            let until = deadline.min(Deadline::after(BACKSTOP));
            let woken = match self.of(writer.fd(), reader.fd()) {
                Some(all) => io::wait_for(all, Interest::Readable, until),
                None => io::wait_for(reader.fd(), Interest::Readable, until),
            };
            late = !woken.map_err(|error| reader.cannot_go_on(error))? && !deadline.passed();
        }
        reader.wake_up(late);
        if for_room {
            writer.wake_up(late);
        }
        Ok(())
    }
}
