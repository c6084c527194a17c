//! What messages say: every byte depends on the message's number, and the reader's sum of all words
//! shows whether it got them.

/// Numbers follow each other; the words of two messages do not.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Longer messages are written and read by one function for all contenders: what the compiler makes of the loop differs
/// from place to place, and one takes twice as long as another.
const SHORT_BYTES: usize = 64;

/// Writes every byte of message `number`. The length is a multiple of 8.
#[inline(always)]
pub(crate) fn fill(room: &mut [u8], number: u64) {
    if room.len() <= SHORT_BYTES { fill_words(room, number) } else { fill_long(room, number) }
}

#[inline(never)]
fn fill_long(room: &mut [u8], number: u64) {
    fill_words(room, number);
}

#[inline(always)]
fn fill_words(room: &mut [u8], number: u64) {
    let mut word = number.wrapping_mul(SPREAD);
    for bytes in room.as_chunks_mut().0 {
        *bytes = word.to_ne_bytes();
        word = word.wrapping_add(1);
    }
}

/// Reads every byte.
#[inline(always)]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    if bytes.len() <= SHORT_BYTES { sum_words(bytes) } else { sum_long(bytes) }
}

#[inline(never)]
fn sum_long(bytes: &[u8]) -> u64 {
    sum_words(bytes)
}

#[inline(always)]
fn sum_words(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

/// What [`sum`] gives for message `number` of this length.
#[inline(always)]
pub(crate) fn expected(len: usize, number: u64) -> u64 {
    let words = (len / 8) as u64;
    let steps = words * words.saturating_sub(1) / 2;
    number.wrapping_mul(SPREAD).wrapping_mul(words).wrapping_add(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_as_expected() {
        for len in [8, 64, 1024, 65536] {
            for number in [0, 1, 77, u64::MAX] {
                let mut room = vec![0xff; len];
                fill(&mut room, number);
                assert_eq!(sum(&room), expected(len, number), "{len} {number}");
            }
        }
    }

    #[test]
    fn what_is_wrong_shows() {
        let mut room = vec![0; 64];
        fill(&mut room, 5);
        assert_ne!(sum(&room), expected(64, 6));
        assert_ne!(sum(&room), expected(64, 4));
        room[9] ^= 1;
        assert_ne!(sum(&room), expected(64, 5));
    }
}
