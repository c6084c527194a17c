//! The calls of a client that are not over, by their numbers.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::control::LinkId;
use super::super::hello::Id;
use crate::transport::service_flavor::{Heard, Part};

/// Calls of one client that are not over: a call's number has so many places.
const MOST_CALLS: usize = 1 << 16;
const PLACE_BITS: u32 = 16;

#[derive(Debug)]
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) server: Option<(Id, LinkId)>,
    pub(super) until: Option<Instant>,
    /// Nobody waits for it; its number is taken until the server has answered.
    pub(super) cancelled: bool,
    /// What came of it, and was not taken.
    pub(super) came: Option<Box<Came>>,
}

#[derive(Debug, Default)]
pub(super) struct Came {
    pub(super) parts: VecDeque<Part>,
    /// Parts that were not taken, and their bytes.
    pub(super) ahead: (u32, u64),
    pub(super) ending: Option<Heard>,
}

impl Call {
    /// Whether no more comes of it.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.came.as_ref().is_some_and(|came| came.ending.is_some())
    }

    pub(super) fn came(&mut self) -> &mut Came {
        self.came.get_or_insert_default()
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&mut self, ending: Heard) {
        self.came().ending.get_or_insert(ending);
    }
}

/// The calls that are not over, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Open {
    places: Vec<Option<Call>>,
    free: Vec<usize>,
    last: u64,
}

impl Open {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A number for a new call.
    pub(super) fn number(&mut self) -> Option<u64> {
        if self.free.is_empty() {
            if self.places.len() == MOST_CALLS {
                return None;
            }
            self.places.push(None);
            self.free.push(self.places.len() - 1);
        }
        let place = *self.free.last()?;
        self.last = (self.last + 1) & ((1 << 40) - 1);
        Some(self.last << PLACE_BITS | place as u64)
    }

    /// Puts a call in the place of its [number](Self::number). It is built there: to move it would cost more.
    #[inline(always)]
    pub(super) fn put(&mut self, number: u64, server: (Id, LinkId), until: Option<Instant>) {
        let place = number as usize & (MOST_CALLS - 1);
        if self.free.last() == Some(&place) {
            self.free.pop();
        }
        let server = Some(server);
        self.places[place] = Some(Call { number, server, until, cancelled: false, came: None });
    }

    #[inline]
    pub(super) fn get(&mut self, number: u64) -> Option<&mut Call> {
        let place = number as usize & (MOST_CALLS - 1);
        self.places.get_mut(place)?.as_mut().filter(|call| call.number == number)
    }

    /// Ends a call that this link's server has, with all of its reply: a short cut. Whether it was one, and nothing had
    /// come of it.
    #[inline(always)]
    pub(super) fn close(&mut self, number: u64, link: LinkId) -> bool {
        let place = number as usize & (MOST_CALLS - 1);
        let Some(slot) = self.places.get_mut(place) else { return false };
        let is_it = slot.as_ref().is_some_and(|call| {
            let is_theirs = call.server.is_some_and(|(_, its)| its == link);
            call.number == number && call.came.is_none() && is_theirs
        });
        if is_it {
            *slot = None;
            self.free.push(place);
        }
        is_it
    }

    #[inline]
    pub(super) fn remove(&mut self, number: u64) -> Option<Call> {
        self.get(number)?;
        let place = number as usize & (MOST_CALLS - 1);
        self.free.push(place);
        self.places[place].take()
    }

    pub(super) fn iter(&mut self) -> impl Iterator<Item = &mut Call> {
        self.places.iter_mut().flatten()
    }
}
