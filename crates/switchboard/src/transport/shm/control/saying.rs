//! What an end says on the sockets of its links, without waiting.

use std::os::fd::{AsFd, BorrowedFd};

use switchboard_kernel::unix_socket;

use super::{Control, LinkId};
use crate::transport::shm::datagram::{Datagram, WAKE};
use crate::transport::shm::meeting::Offer;
use crate::transport::shm::memory::Own;

impl<O: Offer> Control<O> {
    pub(super) fn refuse(&self, link: LinkId, why: &str) {
        self.say(link, &Datagram::Refuse(why.to_owned()), &[]);
    }

    /// Says something without waiting. Whether it is on its way.
    pub(in crate::transport::shm) fn say(
        &self,
        link: LinkId,
        datagram: &Datagram,
        descriptors: &[BorrowedFd<'_>],
    ) -> bool {
        self.links.get(&link).is_some_and(|entry| {
            unix_socket::send_with_fds(&entry.socket, &datagram.encode(), descriptors).is_ok()
        })
    }

    /// Says what a peer cannot do without. With one that takes nothing any more the link ends, which shows as
    /// if the peer had hung up.
    fn must_say(&self, link: LinkId, datagram: &Datagram, fds: &[BorrowedFd<'_>]) -> bool {
        let said = self.say(link, datagram, fds);
        if !said {
            self.hang_up(link);
        }
        said
    }

    fn hang_up(&self, link: LinkId) {
        if let Some(entry) = self.links.get(&link) {
            let _ = unix_socket::shutdown(&entry.socket);
        }
    }

    /// Wakes a peer that sleeps on its descriptor. Anything that it has not read is as good as a wake-up:
    /// so the socket is never filled by those, whoever asks for them in its name.
    pub(in crate::transport::shm) fn wake(&self, link: LinkId) {
        if let Some(entry) = self.links.get(&link)
            && !unix_socket::unsent_bytes(&entry.socket).is_ok_and(|bytes| bytes > 0)
        {
            let _ = unix_socket::send(&entry.socket, &WAKE);
        }
    }

    /// Tells a reader where it begins. `false`: it is gone.
    pub(in crate::transport::shm) fn welcome(
        &self,
        link: LinkId,
        slot: usize,
        (position, number): (u64, u64),
        ring: Option<&Own>,
    ) -> bool {
        let datagram = Datagram::Welcome { slot: slot as u32, position, number };
        match ring {
            None => self.must_say(link, &datagram, &[]),
            Some(ring) => self.must_give(link, &datagram, ring),
        }
    }

    /// Gives a reader a segment of the arena. `false`: it is gone.
    pub(in crate::transport::shm) fn give_segment(
        &self,
        link: LinkId,
        index: u32,
        memory: &Own,
    ) -> bool {
        let len_bytes = memory.0.len_bytes() as u64;
        self.must_give(link, &Datagram::Segment { index, len_bytes }, memory)
    }

    fn must_give(&self, link: LinkId, datagram: &Datagram, memory: &Own) -> bool {
        let Ok(fd) = memory.0.read_only_fd() else {
            self.hang_up(link);
            return false;
        };
        self.must_say(link, datagram, &[fd.as_fd()])
    }

    /// Gives a message back. Whether its sender is there.
    pub(in crate::transport::shm) fn reject(&self, link: LinkId, number: u64) -> bool {
        self.must_say(link, &Datagram::Reject { number }, &[])
    }

    /// Answers that.
    pub(in crate::transport::shm) fn taken(&self, link: LinkId, number: u64) {
        self.must_say(link, &Datagram::Taken { number }, &[]);
    }
}
