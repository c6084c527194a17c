//! The servers that can be called, and which of them gets a call.

use super::{ShmClient, too_large};
use crate::error::{Error, SendError};
use crate::pattern::service::CallError;
use crate::transport::shm::calling;
use crate::transport::shm::control::LinkId;
use crate::transport::shm::sender::Addressee;

use super::open::Call;

/// A server that can be called: both links are there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) to: Addressee,
    pub(super) answers: LinkId,
    pub(super) open: usize,
}

impl Server {
    /// Whether it takes a call with a request of this length, as far as its window is known.
    #[inline]
    pub(super) fn takes(&self, len: usize) -> bool {
        self.open < self.to.window && len <= calling::longest(self.to.largest)
    }
}

impl ShmClient {
    /// Looks which servers can be called, if that may have changed.
    #[inline]
    pub(super) fn refresh(&mut self) {
        let news = self.calls.quiet_news().zip(self.answers.quiet_news());
        if news.is_none() || news != self.known {
            self.known = news;
            self.find_servers();
        }
    }

    #[cold]
    fn find_servers(&mut self) {
        let addressees = self.calls.call(|core, _| Ok::<_, Error>(core.addressees().collect()));
        let addressees: Vec<Addressee> = addressees.unwrap_or_default();
        let links = self.answers.call(|core, _| Ok::<_, Error>(core.links_by_id()));
        let links = links.unwrap_or_default();
        self.servers.clear();
        let open = &mut self.open;
        self.names
            .retain(|(id, _)| open.iter().any(|call| call.server.is_some_and(|s| s.0 == *id)));
        for to in addressees {
            if self.names.iter().all(|(id, _)| *id != to.id) {
                let name = self.calls.call(|core, _| Ok::<_, Error>(core.name_of(to.id)));
                self.names.push((to.id, name.ok().flatten().unwrap_or_default()));
            }
            if let Some((_, answers)) = links.iter().find(|(id, _)| *id == to.id) {
                let mine =
                    |call: &&mut Call| call.server == Some((to.id, *answers)) && !call.is_over();
                let open = self.open.iter().filter(mine).count();
                self.servers.push(Server { to, answers: *answers, open });
            }
        }
    }

    /// The server with the fewest calls of those that take a request of this length.
    #[inline]
    pub(super) fn choose(&self, len: usize) -> Result<Option<usize>, CallError> {
        if let [only] = &self.servers[..]
            && only.takes(len)
        {
            return Ok(Some(0));
        }
        let count = self.servers.len();
        let mut best: Option<(usize, usize)> = None;
        let (mut limit, mut fits) = (None, false);
        for step in 0..count {
            let at = (self.current + 1 + step) % count;
            let one = &self.servers[at];
            if len > calling::longest(one.to.largest) {
                limit = limit.max(Some(calling::longest(one.to.largest)));
                continue;
            }
            fits = true;
            if one.open < one.to.window && best.is_none_or(|(_, least)| one.open < least) {
                best = Some((at, one.open));
            }
        }
        match (best, limit) {
            (None, Some(limit)) if !fits => {
                Err(too_large(len, limit, "what the server takes (its ?max-message=)"))
            }
            (best, _) => Ok(best.map(|(at, _)| at)),
        }
    }

    /// Sends a call to a server, or to another that takes calls, where that has no room. To which.
    #[inline(always)]
    pub(super) fn send_call(
        &mut self,
        at: usize,
        head: &[u64],
        request: &[u8],
    ) -> Result<usize, SendError> {
        match self.send_to(at, head, request) {
            Err(SendError::Full) => self.send_elsewhere(at, head, request),
            sent => sent.map(|()| at),
        }
    }

    #[cold]
    fn send_elsewhere(
        &mut self,
        at: usize,
        head: &[u64],
        request: &[u8],
    ) -> Result<usize, SendError> {
        for other in 0..self.servers.len() {
            if other == at || !self.servers[other].takes(request.len()) {
                continue;
            }
            match self.send_to(other, head, request) {
                Err(SendError::Full) => {}
                sent => return sent.map(|()| other),
            }
        }
        self.lacks_room = true;
        // In a caller's event loop its descriptor will tell of room.
        if self.calls.arm_descriptor() {
            self.send_to(at, head, request)?;
            self.lacks_room = false;
            return Ok(at);
        }
        Err(SendError::Full)
    }

    #[inline(always)]
    fn send_to(&mut self, at: usize, head: &[u64], request: &[u8]) -> Result<(), SendError> {
        let to = &mut self.servers[at].to;
        let sent = self.calls.call(|core, _| core.try_send_to((to.place, to.id), head, request));
        to.place = sent?;
        Ok(())
    }
}
