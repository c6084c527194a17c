//! What the messages of these tests hold: a tag that says whose they are, then pseudo-random bytes.

/// Message `n` of a sender. With `lines`, without line feeds.
pub(crate) fn contents(sender: u64, n: u64, len: usize, lines: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 64);
    bytes.extend_from_slice(format!("{sender}:{n};").as_bytes());
    let mut random = Random::new(sender << 32 ^ n);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    if lines {
        bytes.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'_');
    }
    bytes
}

/// The sender and the number that a message says, if it is long enough to say them.
pub(crate) fn tag(bytes: &[u8]) -> Option<(u64, u64)> {
    let end = bytes.iter().take(48).position(|byte| *byte == b';')?;
    let (sender, n) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(':')?;
    Some((sender.parse().ok()?, n.parse().ok()?))
}

/// Tells any two messages apart.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    let mut mix = |word: u64| {
        state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
    rest.iter().for_each(|byte| mix(u64::from(*byte)));
    state
}

/// Numbers that look random and are the same for the same seed (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A seed from the clock, for tests that try another moment each time; they say it on failure.
    pub(crate) fn seed() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.expect("a clock").subsec_nanos())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }
}

/// Length of message `n` where lengths are mixed: mostly small, some near `largest`.
pub(crate) fn mixed_len(n: u64, largest: usize) -> usize {
    let mut random = Random::new(n ^ 0x5eed);
    let largest = match random.below(4) {
        0 => largest,
        1 => largest / 3,
        _ => largest.min(2000),
    };
    usize::try_from(random.below(largest as u64 + 1)).expect("a length")
}
