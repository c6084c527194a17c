//! Messages for one receiver alone: the calls of a client, and the replies of a server.

use std::sync::Arc;

use switchboard_shm::copy_in;
use switchboard_shm::ring::{Kind, PREFIX_BYTES, Prefix};

use super::SenderCore;
use crate::error::{Error, SendError};
use crate::transport::Setup;
use crate::transport::shm::blocks::Blocks;
use crate::transport::shm::hello::{Id, Pattern};
use crate::transport::shm::meeting::Pair;
use crate::transport::shm::writing::WritingSide;

/// A receiver, as who sends to it knows it.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport::shm) struct Addressee {
    pub(in crate::transport::shm) id: Id,
    /// Where it is among them, until some go.
    pub(in crate::transport::shm) place: usize,
    /// The largest message that it takes.
    pub(in crate::transport::shm) largest: u64,
    /// Messages that it has unsettled at most.
    pub(in crate::transport::shm) window: usize,
}

impl SenderCore {
    /// Opens it for messages each of which is for one receiver.
    pub(in crate::transport::shm) fn open_addressed(
        setup: Setup,
        (pattern, id): (Pattern, Id),
    ) -> Result<Self, Error> {
        let side = WritingSide::open_as(setup, (pattern, id), None)?;
        Ok(Self { returned: Some(Vec::new()), ..Self::on(side) })
    }

    pub(in crate::transport::shm) fn pair_up(&mut self, pair: &Arc<Pair>) {
        self.side.control.pair_up(pair);
    }

    /// The receivers that are there.
    pub(in crate::transport::shm) fn addressees(&self) -> impl Iterator<Item = Addressee> {
        let all = self.receivers.iter().enumerate();
        all.filter(|(_, one)| !one.ended).map(|(place, one)| Addressee {
            id: one.id,
            place,
            largest: one.largest,
            window: one.window().messages,
        })
    }

    /// Whether a receiver is there.
    pub(in crate::transport::shm) fn has(&self, id: Id) -> bool {
        self.place_of(id).is_some()
    }

    /// What is known of a receiver.
    pub(in crate::transport::shm) fn name_of(&self, id: Id) -> Option<String> {
        let at = self.place_of(id)?;
        Some(self.side.control.peer_name(self.receivers[at].link()))
    }

    #[inline]
    fn place_of(&self, id: Id) -> Option<usize> {
        self.receivers.iter().position(|one| one.id == id)
    }

    /// Sends a message, with words before it, to one receiver, which was at this place once. Where it is; `Full`:
    /// it takes nothing now, or is not there.
    #[inline(always)]
    pub(in crate::transport::shm) fn try_send_to(
        &mut self,
        to: (usize, Id),
        head: &[u64],
        payload: &[u8],
    ) -> Result<usize, SendError> {
        if self.send_plain(to, head, payload) {
            return Ok(to.0);
        }
        self.send_to(to.1, head, payload)
    }

    /// A short cut, where there is nothing particular about it.
    #[inline(always)]
    pub(in crate::transport::shm) fn send_plain(
        &mut self,
        (place, id): (usize, Id),
        head: &[u64],
        payload: &[u8],
    ) -> bool {
        let len = size_of_val(head) + payload.len();
        let longest = self.side.largest_frame;
        let Some(one) = self.receivers.get_mut(place) else { return false };
        if one.id != id || (len + PREFIX_BYTES) as u64 > longest || !one.is_open_for(len as u64) {
            return false;
        }
        let Some(claim) = one.ring.claim(len as u64) else { return false };
        one.ring.write_with_head(&claim, head, payload);
        one.commit_small(claim, (Kind::Message, 0), len, Prefix::default());
        self.sent(place, len as u64);
        true
    }

    #[inline(never)]
    fn send_to(&mut self, id: Id, head: &[u64], payload: &[u8]) -> Result<usize, SendError> {
        let place = self.place_of(id).ok_or(SendError::Full)?;
        let len = (size_of_val(head) + payload.len()) as u64;
        if len + PREFIX_BYTES as u64 > self.side.largest_frame {
            let mut whole = Vec::with_capacity(len as usize);
            head.iter().for_each(|word| whole.extend_from_slice(&word.to_le_bytes()));
            whole.extend_from_slice(payload);
            return self.try_send_large_to(id, whole);
        }
        if self.takes(place, len, len)? && self.send_plain((place, id), head, payload) {
            return Ok(place);
        }
        Err(SendError::Full)
    }

    /// Whether a receiver takes a frame, after a look at what it has settled if it seems not to.
    #[inline]
    fn takes(&mut self, at: usize, frame_bytes: u64, len: u64) -> Result<bool, SendError> {
        if self.receivers[at].takes(frame_bytes, len) {
            return Ok(true);
        }
        match self.receivers[at].settle(&mut self.side.blocks) {
            Ok(count) => self.acknowledged += count,
            Err(what) => {
                let link = self.receivers[at].link();
                self.turn_away(link, what.0);
                return Ok(false);
            }
        }
        Ok(self.receivers[at].takes(frame_bytes, len))
    }

    #[cold]
    fn try_send_large_to(&mut self, id: Id, payload: Vec<u8>) -> Result<usize, SendError> {
        let len = payload.len() as u64;
        let Some(block) = self.block(len)? else { return Err(SendError::Full) };
        // Looking for a block may have ended links.
        let takes = match self.place_of(id) {
            Some(at) => self.takes(at, Blocks::FRAME_BYTES, len)?.then_some(at),
            None => None,
        };
        let Some(at) = takes.filter(|_| self.has(id)) else {
            self.side.blocks.give_back(block);
            return Err(SendError::Full);
        };
        copy_in(self.side.blocks.room(&block), &payload);
        self.put_large(at, block, len, Prefix::default());
        self.sent(at, len);
        Ok(at)
    }

    /// What receivers that are gone had not settled, whose it was, and whether they lied: then it may have
    /// been settled.
    pub(in crate::transport::shm) fn take_returned(&mut self) -> Vec<(Id, Vec<u8>, bool)> {
        self.returned.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Ends the link of a receiver that broke the protocol elsewhere.
    pub(in crate::transport::shm) fn turn_away_id(&mut self, id: Id, problem: &str) {
        if let Some(at) = self.place_of(id) {
            let link = self.receivers[at].link();
            self.turn_away(link, problem);
        }
    }
}
