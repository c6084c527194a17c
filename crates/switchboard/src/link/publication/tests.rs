//! Subscribers that take any number of bytes at any time, against what each of them has to see.

use proptest::prelude::*;

use super::{HISTORY_BYTES, Place, Publication};
use crate::link::frame::{HEADER_BYTES, Header, Kind};

/// A subscriber, and every byte that was written for it.
struct Taker {
    place: Place,
    bytes: Vec<u8>,
    first: u64,
}

impl Taker {
    fn join(publication: &Publication, longest: usize) -> Self {
        let (place, first) = publication.join(longest);
        Self { place, bytes: Vec::new(), first }
    }

    /// Takes up to `most` bytes, offered in `slices` pieces at a time.
    fn take(&mut self, publication: &Publication, mut most: usize, slices: usize) {
        while most > 0 {
            let mut offered = vec![&[][..]; slices];
            let count = publication.unwritten(&mut self.place, &mut offered);
            let mut taken = 0;
            for slice in &offered[..count] {
                let step = slice.len().min(most - taken);
                self.bytes.extend_from_slice(&slice[..step]);
                taken += step;
            }
            if taken == 0 {
                return;
            }
            publication.wrote(&mut self.place, taken);
            most -= taken;
        }
    }

    /// The numbers of the messages that are whole, each checked to its last byte.
    fn numbers(&self) -> Vec<u64> {
        let (mut at, mut numbers) = (0, Vec::new());
        while let Ok(Some(header)) = Header::parse(&self.bytes[at..], usize::MAX) {
            let end = at + HEADER_BYTES + header.body_bytes;
            let Some(body) = self.bytes.get(at + HEADER_BYTES..end) else { break };
            assert_eq!(header.kind, Kind::Message);
            assert_eq!(body, payload(header.sequence, body.len()), "{}", header.sequence);
            numbers.push(header.sequence);
            at = end;
        }
        numbers
    }
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize * 31 + at) as u8).collect()
}

fn publish(publication: &mut Publication, len: usize) {
    let number = publication.last() + 1;
    publication.push(&payload(number, len));
}

fn release(publication: &mut Publication, takers: &[Taker]) {
    publication.release(takers.iter().map(|taker| &taker.place));
}

fn kept_bytes(publication: &Publication) -> usize {
    publication.blocks.iter().map(|block| block.bytes.capacity()).sum()
}

#[test]
fn everybody_gets_everything_from_where_it_joined() {
    let mut publication = Publication::new(1 << 20, 0);
    publish(&mut publication, 10);
    let mut takers = vec![Taker::join(&publication, usize::MAX)];
    publish(&mut publication, 0);
    takers.push(Taker::join(&publication, usize::MAX));
    publish(&mut publication, 100_000);
    publish(&mut publication, 5);
    assert_eq!(publication.waiting_messages(&takers[0].place), 3);
    takers[0].take(&publication, 40, 1);
    assert_eq!(publication.waiting_messages(&takers[0].place), 2, "it is inside the second");
    assert!(takers[0].place.is_inside());
    for taker in &mut takers {
        taker.take(&publication, usize::MAX, 16);
        assert!(publication.is_taken(&taker.place));
    }
    assert_eq!((takers[0].first, takers[0].numbers()), (2, vec![2, 3, 4]));
    assert_eq!((takers[1].first, takers[1].numbers()), (3, vec![3, 4]));
    release(&mut publication, &takers);
    assert!(kept_bytes(&publication) <= 64 << 10);
}

#[test]
fn a_history_has_the_last_messages_and_a_bound() {
    let mut publication = Publication::new(1 << 20, 3);
    for _ in 0..10 {
        publish(&mut publication, 7);
        release(&mut publication, &[]);
    }
    let mut late = Taker::join(&publication, usize::MAX);
    assert!(publication.has_room_for(&late.place, 1000), "it does not count as waiting");
    late.take(&publication, usize::MAX, 2);
    assert_eq!((late.first, late.numbers()), (8, vec![8, 9, 10]));
    // Not more than so many bytes.
    let half = HISTORY_BYTES as usize / 2 - HEADER_BYTES;
    for len in [half, half, half, 2 * half + HEADER_BYTES + 1, 8] {
        publish(&mut publication, len);
        release(&mut publication, &[]);
        let kept = kept_bytes(&publication) as u64;
        assert!(kept <= HISTORY_BYTES + (64 << 10), "{kept}");
    }
    let (_, first) = publication.join(usize::MAX);
    assert_eq!(first, 15, "what is longer than the history goes by");
}

#[test]
fn the_oldest_are_dropped_and_what_is_begun_is_finished() {
    let mut publication = Publication::new(1000, 0);
    let mut slow = Taker::join(&publication, usize::MAX);
    publish(&mut publication, 100);
    slow.take(&publication, 50, 4);
    let mut dropped = 0;
    for _ in 0..100 {
        publish(&mut publication, 100);
        dropped += publication.drop_oldest(&mut slow.place);
        publication.release([&slow.place].into_iter());
    }
    assert!(kept_bytes(&publication) < 200_000);
    slow.take(&publication, usize::MAX, 4);
    let numbers = slow.numbers();
    let fit = 1000 / (100 + HEADER_BYTES as u64);
    let expected: Vec<u64> = [1].into_iter().chain(102 - fit..=101).collect();
    assert_eq!((numbers, dropped), (expected, 100 - fit));
    // One that is longer than everything goes alone.
    publish(&mut publication, 1);
    publish(&mut publication, 5000);
    assert_eq!(publication.drop_oldest(&mut slow.place), 1);
    assert!(!publication.has_room_for(&slow.place, 1));
    slow.take(&publication, usize::MAX, 4);
    assert_eq!(slow.numbers().last(), Some(&103));
    assert!(publication.has_room_for(&slow.place, 9000));
}

#[test]
fn what_a_subscriber_does_not_take_is_passed() {
    let mut publication = Publication::new(1 << 20, 0);
    let mut small = Taker::join(&publication, 10);
    let mut none = Taker::join(&publication, 0);
    for len in [11, 12, 10, 70_000, 0, 3, 11] {
        publish(&mut publication, len);
    }
    small.take(&publication, usize::MAX, 3);
    none.take(&publication, usize::MAX, 3);
    assert_eq!(small.numbers(), [3, 5, 6]);
    assert_eq!(none.numbers(), [5]);
    assert!(publication.is_taken(&small.place) && publication.is_taken(&none.place));
}

/// One that stays inside a frame, again and again, does not make every message cost a block.
#[test]
fn memory_follows_what_was_published() {
    let mut publication = Publication::new(1 << 20, 0);
    let stopped = Taker::join(&publication, usize::MAX);
    let mut dribbling = Taker::join(&publication, usize::MAX);
    let mut published = 0;
    while publication.has_room_for(&stopped.place, 100) {
        publish(&mut publication, 100);
        published += 100 + HEADER_BYTES;
        dribbling.take(&publication, 100 + HEADER_BYTES - 1, 4);
        publication.release([&stopped.place, &dribbling.place].into_iter());
    }
    let kept = kept_bytes(&publication);
    assert!(kept <= 2 * published + (128 << 10), "{kept} bytes for {published}");
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Join(usize),
    Take(usize, usize, usize),
    Leave(usize),
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![0..300_usize, 30_000..90_000_usize].prop_map(Step::Publish),
        1 => prop_oneof![Just(usize::MAX), 0..300_usize].prop_map(Step::Join),
        8 => (any::<usize>(), prop_oneof![1..500_usize, 1..200_000_usize], 1..5_usize)
            .prop_map(|(who, most, slices)| Step::Take(who, most, slices)),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => Just(Step::Release),
    ]
}

proptest! {
    /// Whatever happens in whatever order, everybody gets whole messages in order, each that it takes
    /// but for those that are counted as dropped.
    #[test]
    fn no_history_mixes_messages_up(
        steps in proptest::collection::vec(step(), 1..200),
        capacity in prop_oneof![1..2000_u32, 100_000..400_000_u32],
        history in 0..5_u32,
        drops in any::<bool>(),
    ) {
        let mut publication = Publication::new(capacity, history);
        let mut lens = vec![0];
        let mut takers: Vec<(Taker, usize, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Publish(len) => {
                    let fits = |(taker, ..): &(Taker, usize, u64)| {
                        publication.has_room_for(&taker.place, len)
                    };
                    if !drops && !takers.iter().all(fits) {
                        continue;
                    }
                    lens.push(len);
                    publish(&mut publication, len);
                    for (taker, _, dropped) in takers.iter_mut().filter(|_| drops) {
                        *dropped += publication.drop_oldest(&mut taker.place);
                    }
                }
                Step::Join(longest) => {
                    takers.push((Taker::join(&publication, longest), longest, 0));
                }
                Step::Take(who, most, slices) if !takers.is_empty() => {
                    let at = who % takers.len();
                    takers[at].0.take(&publication, most, slices);
                }
                Step::Leave(who) if !takers.is_empty() => {
                    takers.swap_remove(who % takers.len());
                }
                Step::Release => {
                    publication.release(takers.iter().map(|(taker, ..)| &taker.place));
                }
                _ => {}
            }
        }
        for (taker, longest, dropped) in &mut takers {
            taker.take(&publication, usize::MAX, 3);
            prop_assert!(publication.is_taken(&taker.place));
            let numbers = taker.numbers();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
            let expected = (taker.first..=publication.last())
                .filter(|number| lens[*number as usize] <= *longest)
                .count() as u64;
            let missing = expected - numbers.len() as u64;
            // Of those that are dropped some are longer than it takes.
            prop_assert!(missing <= *dropped, "{missing} of {dropped}");
            if *longest == usize::MAX {
                prop_assert_eq!(missing, *dropped);
            }
        }
        publication.release(takers.iter().map(|(taker, ..)| &taker.place));
        prop_assert!(publication.history_messages <= u64::from(history));
    }
}
