//! The bytes of a doorbell, as their readers change them.

use std::sync::atomic::Ordering::Relaxed;

use switchboard_shm::barrier::{Busy, Sleeper};
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::{AtomicU64, Words};

/// A word of eight bytes, as others have it too.
struct Word([AtomicU64; 1]);

impl Words for Word {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

fn byte(bell: &Word) -> u64 {
    bell::raised_word(bell, 0) >> 24 & 0xff
}

#[test]
fn a_byte_says_how_its_reader_sleeps_and_others_are_left_alone() {
    let others = 0x1122_3344_0066_7788;
    let (bell, mut sleeper) = (Word([AtomicU64::new(others)]), Sleeper::new(Busy::TakesPart));
    for turn in 0..=u8::MAX {
        let how = if turn % 3 == 0 { Sleeps::OnDescriptor } else { Sleeps::OnFutex };
        bell::raise(&bell, 3, how, turn, &mut sleeper);
        assert_eq!(byte(&bell), how.number() | u64::from(turn) << 2 & 0xff);
        sleeper.pass(|| ());
        bell::awake(&bell, 3, &mut sleeper);
        assert_eq!(byte(&bell), Sleeper::LATELY);
        if turn % 7 == 0 {
            bell::lower(&bell, 3, &mut sleeper);
            assert_eq!(bell::raised_word(&bell, 0), others);
        }
    }
}

/// Of a writer that came while the reader slept, which was not told so: it need not fence.
#[test]
fn a_byte_that_was_not_raised_stays_down() {
    let (bell, mut sleeper) = (Word([AtomicU64::new(0)]), Sleeper::new(Busy::TakesPart));
    bell::awake(&bell, 3, &mut sleeper);
    assert_eq!(byte(&bell), 0);
    assert!((0..100).all(|_| !sleeper.step()));
}

#[test]
fn a_byte_that_others_changed_is_put_right() {
    let (bell, mut sleeper) = (Word([AtomicU64::new(0)]), Sleeper::new(Busy::TakesPart));
    for scribble in 1..=u64::from(u8::MAX) {
        bell::raise(&bell, 3, Sleeps::OnFutex, 1, &mut sleeper);
        bell.0[0].fetch_xor(scribble << 24, Relaxed);
        bell::lower(&bell, 3, &mut sleeper);
        assert_eq!(byte(&bell), 0);
        bell::raise(&bell, 3, Sleeps::OnFutex, 2, &mut sleeper);
        assert_eq!(byte(&bell), Sleeps::OnFutex.number() | 2 << 2);
        sleeper.pass(|| ());
        bell::awake(&bell, 3, &mut sleeper);
        assert_eq!(byte(&bell), Sleeper::LATELY);
    }
}
