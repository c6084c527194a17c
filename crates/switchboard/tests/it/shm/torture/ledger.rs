//! What all tortured processes write down, so that it outlives them: who sent what, who had it.
//!
//! It is in memory that all of them map. Each kind of word says who writes it.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use switchboard_kernel::shared_words::{SharedWords, Slot};
use switchboard_testkit::skip::say;

use super::super::sleeps::Sleeps;

/// Places for ends, each with one end at a time.
pub(super) const SEATS: usize = 16;
/// Messages of a round at most: so many are not known to be settled.
pub(super) const ROUND: u32 = 256;
/// Lives that are remembered: of later ones each takes the place of an earlier one.
const LIVES: usize = 1 << 15;

const PHASE: usize = 0;
const FAILED: usize = 1;
const LIFE: usize = 2;
const SLEPT: usize = 3;
const SLEPT_LATE: usize = 4;
const PER_SEAT: usize = 8;
const SEAT: usize = 16;
const PER_LIFE: usize = 5;
const OF_LIFE: usize = SEAT + SEATS * PER_SEAT;
const MESSAGES: usize = OF_LIFE + LIVES * PER_LIFE;
const WORDS: usize = MESSAGES + SEATS * ROUND as usize;

/// What everybody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything.
    Work = 0,
    /// Writers finish what they began, and wait. Readers go on.
    Settle = 1,
    /// Writers close.
    CloseWriters = 2,
    /// Readers close too.
    Close = 3,
}

/// What there is of each end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// Counts what it has done.
    Beat = 0,
    /// Counts the rounds of a sender.
    Round = 1,
    /// Which life the end there is in.
    Life = 2,
    /// 1 while it waits for the next phase.
    Waits = 3,
    /// 1 when it has closed for good.
    Gone = 4,
}

/// What there is of each life: from an end's opening to its closing or death.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// Messages that a publisher has begun to send.
    Begun = 0,
    /// Messages of which it knows that they are sent.
    Sent = 1,
    /// 1 when a sender has closed: all of its messages were settled.
    Closed = 2,
    /// Its number, so that another one in its place is told from it.
    Number = 3,
    /// 1 when its process has had another one: what is told of the process may be of that.
    Another = 4,
}

/// What there is of a message of a round: the round in the high half; then flags, and how many have had it.
const RECEIVED: u32 = 0x0fff;
const ACKNOWLEDGING: u32 = 0x4000;
const ACKNOWLEDGED: u32 = 0x8000;

/// The ledger.
#[derive(Clone)]
pub(super) struct Ledger {
    words: std::sync::Arc<Slot>,
}

impl Ledger {
    pub(super) fn create() -> Self {
        let memory = SharedWords::create((WORDS * 4).next_multiple_of(4096)).expect("memory");
        Self::of(&memory)
    }

    /// In a child.
    pub(super) fn open(path: &str) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("the ledger");
        let ledger = Self::of(&SharedWords::from_fd(file).expect("the ledger"));
        // All of it is mapped from now on, so that it is always the same in this process's memory.
        let sum: u32 = ledger.words.words().iter().fold(0, |sum, word| sum ^ word.load(SeqCst));
        std::hint::black_box(sum);
        ledger
    }

    fn of(memory: &SharedWords) -> Self {
        let slot = memory.slot(0, memory.len_bytes()).expect("all of it");
        Self { words: std::sync::Arc::new(slot) }
    }

    /// For [`open`](Self::open), while this process lives.
    pub(super) fn path(&self) -> String {
        let fd = self.words.memory().as_fd().as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id())
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.words.words()[index]
    }

    pub(super) fn of_seat(&self, seat: usize, what: Of) -> &AtomicU32 {
        self.word(SEAT + seat * PER_SEAT + what as usize)
    }

    fn of_life(&self, life: u32, what: By) -> &AtomicU32 {
        self.word(OF_LIFE + life as usize % LIVES * PER_LIFE + what as usize)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.word(PHASE).store(phase as u32, SeqCst);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.word(PHASE).load(SeqCst) {
            0 => Phase::Work,
            1 => Phase::Settle,
            2 => Phase::CloseWriters,
            _ => Phase::Close,
        }
    }

    /// Says that something does not hold.
    pub(super) fn fail(&self, what: &str) {
        say(&format!("torture: process {}: {what}", std::process::id()));
        self.word(FAILED).store(1, SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.word(FAILED).load(SeqCst) != 0
    }

    /// Some have slept.
    pub(super) fn slept(&self, sleeps: Sleeps) {
        for (word, count) in [(SLEPT, sleeps.all), (SLEPT_LATE, sleeps.late)] {
            self.word(word).fetch_add(u32::try_from(count).unwrap_or(u32::MAX), SeqCst);
        }
    }

    /// How often somebody slept, and how often nobody woke it.
    pub(super) fn sleeps(&self) -> (u32, u32) {
        (self.word(SLEPT).load(SeqCst), self.word(SLEPT_LATE).load(SeqCst))
    }

    pub(super) fn beat(&self, seat: usize) {
        self.of_seat(seat, Of::Beat).fetch_add(1, SeqCst);
    }

    /// Another end, in this seat.
    pub(super) fn begin_life(&self, seat: usize) -> u32 {
        let life = self.word(LIFE).fetch_add(1, SeqCst) + 1;
        for what in [By::Number, By::Begun, By::Sent, By::Closed, By::Another] {
            self.of_life(life, what).store(0, SeqCst);
        }
        self.of_life(life, By::Number).store(life, SeqCst);
        self.of_seat(seat, Of::Life).store(life, SeqCst);
        life
    }

    pub(super) fn end_life(&self, life: u32) {
        self.of_life(life, By::Closed).store(1, SeqCst);
    }

    /// The process of this life has had another one, or is about to.
    pub(super) fn is_one_of_several(&self, life: u32) {
        self.of_life(life, By::Another).store(1, SeqCst);
    }

    /// Whether all that is told of the process of this life is of this life.
    pub(super) fn is_only_one(&self, life: u32) -> bool {
        self.of_life(life, By::Another).load(SeqCst) == 0
            && self.of_life(life, By::Number).load(SeqCst) == life
    }

    /// A publisher is about to send one more.
    pub(super) fn begin(&self, life: u32) {
        self.of_life(life, By::Begun).fetch_add(1, SeqCst);
    }

    /// It did not.
    pub(super) fn not_begun(&self, life: u32) {
        self.of_life(life, By::Begun).fetch_sub(1, SeqCst);
    }

    /// So many more can be seen by those they are for.
    pub(super) fn sent(&self, life: u32, count: u32) {
        self.of_life(life, By::Sent).fetch_add(count, SeqCst);
    }

    /// How many a publisher had sent for certain, and how many perhaps, when it died; none if that was too long
    /// ago.
    pub(super) fn sent_by(&self, life: u32) -> Option<(u32, u32)> {
        let sent = self.of_life(life, By::Sent).load(SeqCst);
        let begun = self.of_life(life, By::Begun).load(SeqCst);
        (self.of_life(life, By::Number).load(SeqCst) == life).then_some((sent, begun))
    }

    fn of_message(&self, seat: usize, index: u32) -> &AtomicU32 {
        self.word(MESSAGES + seat * ROUND as usize + (index % ROUND) as usize)
    }

    /// A sender begins a round of so many messages; which.
    pub(super) fn begin_round(&self, seat: usize, count: u32) -> u32 {
        let round = self.of_seat(seat, Of::Round).load(SeqCst) + 1;
        for index in 0..count {
            self.of_message(seat, index).store(round << 16, SeqCst);
        }
        self.of_seat(seat, Of::Round).store(round, SeqCst);
        round
    }

    /// All of a round's messages are settled, the sender says. What does not hold of that.
    pub(super) fn end_round(&self, seat: usize, count: u32) -> Result<(), String> {
        for index in 0..count {
            let word = self.of_message(seat, index).load(SeqCst);
            if word & RECEIVED == 0 {
                return Err(format!("message {index} is settled, and nobody had it"));
            }
            if word & (ACKNOWLEDGING | ACKNOWLEDGED) == 0 {
                return Err(format!("message {index} is settled, and nobody acknowledged it"));
            }
        }
        Ok(())
    }

    /// A receiver has a message. What does not hold.
    pub(super) fn received(&self, from: &Tag, redelivered: bool) -> Result<(), String> {
        let word = self.of_message(from.seat as usize, from.index);
        let before = word.fetch_update(SeqCst, SeqCst, |word| {
            (word >> 16 == from.round & 0xffff).then_some(word + 1)
        });
        let Ok(before) = before else {
            let is_alive = self.of_seat(from.seat as usize, Of::Life).load(SeqCst) == from.life;
            let has_closed = self.of_life(from.life, By::Closed).load(SeqCst) == 1
                && self.of_life(from.life, By::Number).load(SeqCst) == from.life;
            if is_alive || has_closed {
                return Err(format!("{from:?} comes after its sender had it settled"));
            }
            return Ok(());
        };
        if before & RECEIVED > 0 && !redelivered {
            return Err(format!("{from:?} comes again, and is not marked"));
        }
        if before & ACKNOWLEDGED != 0 {
            return Err(format!("{from:?} comes again, and was acknowledged"));
        }
        Ok(())
    }

    fn mark(&self, from: &Tag, flag: u32) {
        let word = self.of_message(from.seat as usize, from.index);
        let _ = word.fetch_update(SeqCst, SeqCst, |word| {
            (word >> 16 == from.round & 0xffff).then_some(word | flag)
        });
    }

    /// It is about to be acknowledged.
    pub(super) fn acknowledging(&self, from: &Tag) {
        self.mark(from, ACKNOWLEDGING);
    }

    /// It is.
    pub(super) fn acknowledged(&self, from: &Tag) {
        self.mark(from, ACKNOWLEDGED);
    }
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) seat: u32,
    pub(super) life: u32,
    pub(super) process: u32,
    pub(super) round: u32,
    pub(super) index: u32,
    pub(super) priority: u32,
}

impl Tag {
    const BYTES: usize = 24;

    /// The message, of at least so many bytes.
    pub(super) fn message(&self, len_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len_bytes.max(Self::BYTES));
        for word in [self.seat, self.life, self.process, self.round, self.index, self.priority] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend((Self::BYTES..len_bytes).map(|at| self.filling(at)));
        bytes
    }

    fn filling(&self, at: usize) -> u8 {
        (self.life ^ self.round.wrapping_mul(31) ^ self.index.wrapping_mul(89) ^ at as u32) as u8
    }

    /// None if the message is torn.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.get(..Self::BYTES)?.as_chunks::<4>();
        let word = |index: usize| u32::from_le_bytes(words[index]);
        let (seat, life, process) = (word(0), word(1), word(2));
        let (round, index, priority) = (word(3), word(4), word(5));
        let tag = Self { seat, life, process, round, index, priority };
        let mut rest = bytes.iter().enumerate().skip(Self::BYTES);
        let is_whole = seat < SEATS as u32 && rest.all(|(at, byte)| *byte == tag.filling(at));
        is_whole.then_some(tag)
    }
}
