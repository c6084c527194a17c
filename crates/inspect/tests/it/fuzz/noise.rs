//! Texts made of others at random, the same for the same seed.

/// What comes out of a seed; quick, and the same for the same seed.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() >> 8).unwrap_or(0) % most.max(1)
    }

    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Words and marks that some parser looks for, numbers at their limits, and bytes that hurt a terminal.
pub(super) const WORDS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"4294967295",
    b"4294967296",
    b"0xffffffffffffffff",
    b"7fffffffffffffff",
    b"ffffffffffffffffffff",
    b"1777777777777777777777",
    b":",
    b"\n",
    b"\t",
    b" ",
    b"(",
    b")",
    b"->",
    b"EOF",
    b"POSIX",
    b"FLOCK",
    b"OFDLCK",
    b"LEASE",
    b"READ",
    b"WRITE",
    b"rw-s",
    b"r--p",
    b"fe:01",
    b"ff:ff",
    b"/dev/shm/sem.",
    b"/memfd:",
    b" (deleted)",
    b"/SYSV",
    b"/dev/zero",
    b"running",
    b"tfd:",
    b"ino:",
    b"flags:",
    b"Uid:",
    b"NSpid:",
    b"SigCgt:",
    b"eventfd-id: ",
    b"eventfd-count: ",
    b"sigmask: ",
    b"Pid: ",
    b"lock:\t",
    b"se.exec_start :",
    b"\x1b[2J",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"\xf0\x9f\x98\x80",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"",
    b"\\u202e",
    b",",
    b"1e999",
    b"certain",
    b"pid:",
    b"/fd:",
];

/// A text made of others.
pub(super) fn changed(noise: &mut Noise, texts: &[Vec<u8>]) -> Vec<u8> {
    let mut text = noise.pick(texts).clone();
    for _ in 0..=noise.below(6) {
        let (at, end) = (noise.below(text.len() + 1), noise.below(text.len() + 1));
        let (at, end) = (at.min(end), at.max(end));
        match noise.below(9) {
            0 if at < text.len() => text[at] = noise.next().to_le_bytes()[3],
            1 if at < text.len() => text[at] ^= 1 << noise.below(8),
            2 => text.truncate(at),
            3 => drop(text.drain(at..end)),
            4 => drop(text.splice(at..at, noise.pick(WORDS).iter().copied())),
            5 => {
                // A whole word in place of another one.
                let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
                let from = text[..at].iter().rposition(blank).map_or(0, |place| place + 1);
                let to = text[at..].iter().position(blank).map_or(text.len(), |place| at + place);
                text.splice(from..to, noise.pick(WORDS).iter().copied());
            }
            6 if end - at < 400 => {
                let again = text[at..end].to_vec();
                text.splice(at..at, again);
            }
            7 => {
                let other = noise.pick(texts);
                let from = noise.below(other.len());
                let to = from + noise.below((other.len() - from).min(300) + 1);
                text.splice(at..at, other[from..to].iter().copied());
            }
            _ => text.extend(noise.next().to_le_bytes()),
        }
    }
    text.truncate(1 << 16);
    text
}
