//! The messages in one receiver's ring that it has not settled, by their numbers.
//!
//! Numbers count up by one from 1, and no more are kept than the receiver's window has. So each has its place
//! by its number alone, and noting one, as every message does, is a single store.

use switchboard_shm::arena::Block;
use switchboard_shm::ring::Prefix;

/// Places at first; doubled when all are taken.
const FEWEST: usize = 16;

#[derive(Debug)]
pub(super) struct Unsettled {
    /// A power of two, or none yet; a message's place is its number modulo that.
    places: Vec<Message>,
    /// The number of the oldest.
    first: u64,
    /// The number of the next one.
    next: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Message {
    /// Where its payload begins, after the prefix, and the message's length, wherever it lies.
    pub(super) payload: (u64, u32),
    /// Where its frame ends.
    pub(super) end: u64,
    pub(super) prefix: Prefix,
    /// The block that a large one lies in, and its length.
    pub(super) block: Option<(Block, u64)>,
    /// The receiver gave it back, and it is elsewhere by now.
    pub(super) taken_back: bool,
}

impl Unsettled {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), first: 1, next: 1, bytes: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        (self.next - self.first) as usize
    }

    /// Payload of all of them.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
    pub(super) fn push(&mut self, message: Message) {
        if self.len() == self.places.len() {
            self.grow();
        }
        self.bytes += u64::from(message.payload.1);
        let place = self.place(self.next);
        self.places[place] = message;
        self.next += 1;
    }

    /// Whether a frame of theirs ends here.
    pub(super) fn ends_at(&self, position: u64) -> bool {
        let ends = self.iter().map(|message| message.end);
        ends.take_while(|end| *end <= position).last() == Some(position)
    }

    /// Takes the oldest, if its frame ends here or before.
    pub(super) fn pop_through(&mut self, position: u64) -> Option<Message> {
        let number = self.first;
        let oldest = self.get_mut(number).filter(|message| message.end <= position)?;
        let message = std::mem::take(oldest);
        self.first += 1;
        self.bytes -= u64::from(message.payload.1);
        Some(message)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Message> {
        let place = (self.first..self.next).contains(&number).then(|| self.place(number))?;
        self.places.get_mut(place)
    }

    /// All, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Message> {
        (self.first..self.next).map(|number| &self.places[self.place(number)])
    }

    /// Takes all out, with their numbers, in their order.
    pub(super) fn drain(&mut self) -> Vec<(u64, Message)> {
        let numbers = std::mem::replace(&mut self.first, self.next)..self.next;
        self.bytes = 0;
        let take = |number| {
            let place = self.place(number);
            (number, std::mem::take(&mut self.places[place]))
        };
        numbers.map(take).collect()
    }

    #[inline]
    fn place(&self, number: u64) -> usize {
        number as usize & self.places.len().wrapping_sub(1)
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self { bytes: self.bytes, ..Self::new() };
        let count = (2 * self.places.len()).max(FEWEST);
        larger.places.resize_with(count, Message::default);
        (larger.first, larger.next) = (self.first, self.next);
        for (number, message) in self.drain() {
            let place = larger.place(number);
            larger.places[place] = message;
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_find_their_messages_while_the_places_grow_and_are_used_again() {
        let mut unsettled = Unsettled::new();
        let message =
            |number: u64| Message { end: 8 * number, payload: (0, 3), ..Message::default() };
        for number in 1..=100 {
            unsettled.push(message(number));
        }
        assert_eq!((unsettled.len(), unsettled.bytes()), (100, 300));
        assert!(unsettled.ends_at(8 * 70) && !unsettled.ends_at(8 * 70 + 4));
        assert!(!unsettled.ends_at(0) && !unsettled.ends_at(8 * 101));
        for number in 1..=70 {
            assert_eq!(unsettled.pop_through(8 * 70).map(|found| found.end), Some(8 * number));
        }
        assert!(unsettled.pop_through(8 * 70).is_none());
        for number in 101..=300 {
            unsettled.push(message(number));
        }
        assert!(unsettled.get_mut(70).is_none() && unsettled.get_mut(301).is_none());
        assert_eq!(unsettled.get_mut(200).map(|found| found.end), Some(1600));
        assert_eq!(unsettled.iter().count(), 230);
        let rest: Vec<u64> = unsettled.drain().into_iter().map(|(number, _)| number).collect();
        assert_eq!(rest, (71..=300).collect::<Vec<u64>>());
        assert_eq!((unsettled.len(), unsettled.bytes()), (0, 0));
    }
}
