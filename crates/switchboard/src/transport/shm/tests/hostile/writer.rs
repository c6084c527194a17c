//! Publishers and senders that lie in their rings and arenas.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use switchboard_kernel::shared_memory::OwnMemory;
use switchboard_shm::layout::{PAGE_BYTES, writer};

use super::memory::{self, CAPACITY_BYTES, Made};
use super::peer::{END, FILLED, IN_ARENA, LyingWriter, MESSAGE, PAD, PREFIXED, header};
use super::scene::{Scene, Stop};
use crate::transport::shm::hello::{Pattern, Role};

/// A lie of a writer that has told the truth so far, and what is said of it.
type Lie = (&'static str, fn(&mut LyingWriter), &'static str);

/// The reader goes on with it, to its end.
const NOTHING: &str = "";

const CAPACITY: u64 = CAPACITY_BYTES as u64;

/// One who reads finds this after the frames so far.
fn lie(liar: &LyingWriter, kind: u64, len_bytes: u64) {
    liar.put(liar.position, header(kind, len_bytes, liar.number + 1));
}

/// Fills the ring with the truth until a frame of so many bytes ends it.
fn until_the_end_is(liar: &mut LyingWriter, rest: u64) {
    while liar.position < CAPACITY - rest {
        liar.until_read();
        let left = CAPACITY - rest - liar.position;
        let len = if left >= 4096 { 2048 - 8 } else { left.min(2048) - 8 };
        liar.frame(MESSAGE, &vec![7; len as usize]);
    }
}

const IN_ITS_RING: &[Lie] = &[
    ("no kind", |liar| lie(liar, 0, 8), "a kind that nobody knows"),
    ("kind 6", |liar| lie(liar, 6, 8), "a kind that nobody knows"),
    ("kind 15", |liar| lie(liar, 15, 8), "a kind that nobody knows"),
    ("a number only", |liar| liar.put(liar.position, 1 << 32), "a kind that nobody knows"),
    ("longer than a quarter", |liar| lie(liar, MESSAGE, CAPACITY / 4 + 9), "longer than can be"),
    ("as long as can be said", |liar| lie(liar, MESSAGE, (1 << 28) - 1), "longer than can be"),
    (
        "longer than a quarter, and filled up",
        |liar| lie(liar, MESSAGE | FILLED, CAPACITY / 4 + 9),
        "longer than can be",
    ),
    (
        "frames that are filled up, to the end of the ring",
        |liar| {
            until_the_end_is(liar, 1016);
            // It ends 8 bytes before, and so with the ring.
            liar.word(CAPACITY).store(0, SeqCst);
            lie(liar, MESSAGE | FILLED, 1000);
            liar.number += 1;
            liar.position = CAPACITY;
            liar.frame(END, b"");
        },
        NOTHING,
    ),
    ("kind 0, filled up", |liar| lie(liar, FILLED, 8), "a kind that nobody knows"),
    (
        "beyond the end of the ring",
        |liar| {
            until_the_end_is(liar, 1024);
            lie(liar, MESSAGE, 1024);
        },
        "longer than can be",
    ),
    (
        "number 0",
        |liar| liar.put(liar.position, header(MESSAGE, 8, 0)),
        "whose number is not the next",
    ),
    (
        "the same number",
        |liar| liar.put(liar.position, header(MESSAGE, 8, liar.number)),
        "whose number is not the next",
    ),
    (
        "the number after the next",
        |liar| liar.put(liar.position, header(MESSAGE, 8, liar.number + 2)),
        "whose number is not the next",
    ),
    (
        "the last number",
        |liar| liar.put(liar.position, header(MESSAGE, 8, u64::from(u32::MAX))),
        "whose number is not the next",
    ),
    (
        "an end that counts more",
        |liar| liar.put(liar.position, header(END, 0, liar.number + 1)),
        "whose number is not the next",
    ),
    (
        "a pad with a payload",
        |liar| liar.put(liar.position, header(PAD, 8, liar.number)),
        "a pad where none can be",
    ),
    (
        "a pad with nothing behind it",
        |liar| {
            liar.word(0).store(0, SeqCst);
            liar.put(liar.position, header(PAD, 0, liar.number));
        },
        "a pad with nothing behind it",
    ),
    (
        "two pads",
        |liar| {
            liar.word(0).store(header(PAD, 0, 0), SeqCst);
            liar.put(liar.position, header(PAD, 0, liar.number));
        },
        "two pads",
    ),
    (
        "a pad at the begin of the ring",
        |liar| {
            until_the_end_is(liar, 1024);
            liar.frame(MESSAGE, &[0; 1016]);
            assert_eq!(liar.position, CAPACITY);
            liar.put(liar.position, header(PAD, 0, liar.number));
        },
        "a pad where none can be",
    ),
    (
        "an end behind a pad that is none",
        |liar| {
            liar.word(0).store(header(END, 8, 77), SeqCst);
            liar.put(liar.position, header(PAD, 0, liar.number));
        },
        "whose number is not the next",
    ),
    (
        "headers that say something else by now",
        |liar| {
            for word in [writer::MAGIC_WORD, writer::KIND_WORD, writer::CAPACITY_WORD] {
                liar.ring.words()[word].store(u64::MAX, SeqCst);
            }
            liar.ring.words()[writer::FLAGS_WORD].store(u64::MAX, SeqCst);
            liar.messages(3);
            liar.frame(END, b"");
        },
        NOTHING,
    ),
    (
        "more after the end",
        |liar| {
            let after = liar.position + 8;
            liar.word(after).store(header(MESSAGE, 1 << 20, 99), SeqCst);
            liar.put(liar.position, header(END, 0, liar.number));
            liar.put(after, header(15, 77, 0));
        },
        NOTHING,
    ),
    (
        "priorities that come and go",
        |liar| {
            for round in 0..40 {
                liar.ring.words()[writer::PRIORITIES_WORD].store(round % 3, SeqCst);
                liar.messages(5);
            }
            liar.frame(END, b"");
        },
        NOTHING,
    ),
    (
        "one who is wanted for ever",
        |liar| {
            for wanted in [1, 2, 3, u64::MAX] {
                liar.ring.words()[writer::WANTED_WORD].store(wanted, SeqCst);
                for _ in 0..40 {
                    liar.frame(MESSAGE, &[1; 500]);
                    if liar.position > CAPACITY / 2 {
                        break;
                    }
                }
            }
            liar.frame(END, b"");
        },
        NOTHING,
    ),
    (
        "payload that changes while it is read",
        |liar| {
            let begin = liar.position;
            let changed = begin + 16..begin + 6000;
            liar.frame(MESSAGE, &[1; 6000]);
            for round in 0..2000 {
                for at in changed.clone().step_by(8) {
                    liar.word(at).store(round, SeqCst);
                }
            }
            liar.frame(END, b"");
        },
        NOTHING,
    ),
];

const IN_ITS_ARENA: &[Lie] = &[
    ("a place that is too short", |liar| lie(liar, IN_ARENA, 24), "of another length"),
    ("a place that is too long", |liar| lie(liar, IN_ARENA, 40), "of another length"),
    ("no place", |liar| lie(liar, IN_ARENA, 0), "of another length"),
    ("segment 1024", |liar| liar.in_arena(1024, 0, 8), "a segment that cannot be"),
    ("the last segment", |liar| liar.in_arena(u64::MAX, 0, 8), "a segment that cannot be"),
    ("a segment that never comes", |liar| liar.in_arena(0, 0, 8), "a segment that never came"),
    (
        "one more segment than came",
        |liar| {
            liar.segment(PAGE_BYTES);
            liar.in_arena(0, 0, PAGE_BYTES as u64);
            liar.in_arena(1, 0, 8);
        },
        "a segment that never came",
    ),
    ("an odd place", |liar| at_place(liar, 4, 8), "at a place that cannot be"),
    ("longer than can be", |liar| at_place(liar, 0, (1 << 30) + 1), "at a place that cannot be"),
    ("as long as can be said", |liar| at_place(liar, 8, u64::MAX), "at a place that cannot be"),
    ("a byte more than there is", |liar| at_place(liar, 0, 4097), "beyond its segment"),
    ("from its end on", |liar| at_place(liar, 4096, 1), "beyond its segment"),
    ("far beyond its end", |liar| at_place(liar, u64::MAX - 7, 8), "beyond its segment"),
    ("around the end of all", |liar| at_place(liar, u64::MAX - 7, 1 << 30), "beyond its segment"),
    (
        "a segment twice",
        |liar| {
            liar.segment(PAGE_BYTES);
            liar.segments.clear();
            liar.segment(PAGE_BYTES);
        },
        "a segment out of turn",
    ),
    (
        "segments out of turn",
        |liar| liar.give_segment(5, memory::segment(PAGE_BYTES).make()),
        "a segment out of turn",
    ),
    (
        "the last of all segments",
        |liar| liar.give_segment(u32::MAX, memory::segment(PAGE_BYTES).make()),
        "a segment out of turn",
    ),
    (
        "a segment that is too large",
        |liar| {
            let made = Made { reserved: false, ..memory::segment((1 << 30) + PAGE_BYTES) };
            liar.give_segment(0, made.make());
        },
        "a segment that cannot be trusted",
    ),
    (
        "more segments than can be",
        |liar| {
            for _ in 0..1024 {
                while !segment_is_taken(liar) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            while !segment_is_taken(liar) {
                std::thread::sleep(Duration::from_millis(1));
            }
        },
        "a segment out of turn",
    ),
    (
        "a message that changes while it is read",
        |liar| {
            liar.segment(1 << 20);
            let len = 1_u64 << 20;
            liar.in_arena(0, 0, len);
            for round in 0..4 {
                liar.segments[0].words().iter().for_each(|word| word.store(round, SeqCst));
            }
            liar.frame(END, b"");
        },
        NOTHING,
    ),
];

fn at_place(liar: &mut LyingWriter, offset: u64, len: u64) {
    liar.segment(PAGE_BYTES);
    liar.in_arena(0, offset, len);
}

fn segment_is_taken(liar: &mut LyingWriter) -> bool {
    liar.try_segment(OwnMemory::create("liar", PAGE_BYTES).expect("memory"))
}

const OF_A_TOPIC: &[Lie] = &[("a prefix", |liar| lie(liar, PREFIXED, 8), "a frame of a queue")];

const OF_A_QUEUE: &[Lie] = &[
    ("half a prefix", |liar| lie(liar, PREFIXED, 4), "without its prefix"),
    (
        "a priority that is half a prefix",
        |liar| {
            liar.ring.words()[writer::PRIORITIES_WORD].store(1, SeqCst);
            lie(liar, PREFIXED, 4);
        },
        "without its prefix",
    ),
    (
        "a priority that is no place",
        |liar| {
            liar.ring.words()[writer::PRIORITIES_WORD].store(1, SeqCst);
            lie(liar, IN_ARENA, 4);
        },
        "of another length",
    ),
];

/// What the one who lost nothing does: `tail` says where it begins anew.
const WHERE_THE_OLDEST_ARE_DROPPED: &[Lie] = &[
    ("an odd tail", |liar| tail(liar, liar.position + 4), "a tail that is none"),
    ("a tail at the end of all", |liar| tail(liar, u64::MAX - 7), "a tail that is none"),
    ("a tail far ahead", |liar| tail(liar, u64::MAX / 2 + 9), "a tail that is none"),
    (
        "two tails that are far ahead together",
        |liar| {
            liar.position = (u64::MAX / 2) & !7;
            liar.frame(MESSAGE, b"a liar's message");
            tail(liar, (u64::MAX / 2) & !7);
            liar.until_read();
            tail(liar, u64::MAX - 7);
        },
        "a tail that is none",
    ),
    (
        "a tail ahead, at something else",
        |liar| {
            let ahead = liar.position + CAPACITY + 8;
            liar.word(ahead).store(u64::MAX, SeqCst);
            tail(liar, ahead);
        },
        "a kind that nobody knows",
    ),
    (
        "a tail that goes back",
        |liar| {
            tail(liar, liar.position);
            liar.messages(3);
            liar.until_read();
            tail(liar, 0);
            liar.messages(3);
            liar.frame(END, b"");
        },
        NOTHING,
    ),
];

fn tail(liar: &LyingWriter, position: u64) {
    liar.ring.words()[writer::TAIL_WORD].store(position, SeqCst);
    liar.raw.wake();
}

fn tell(scene: &mut Scene, lossy: bool, lies: &[&[Lie]]) {
    for (name, lie, problem) in lies.iter().copied().flatten() {
        scene.begin(name);
        let mut liar = LyingWriter::open(scene.base(), scene.pattern, lossy);
        liar.messages(3);
        liar.until_read();
        lie(&mut liar);
        if *problem == NOTHING {
            liar.raw.until_end();
        } else {
            scene.victim.expect_error("misbehaved", problem);
            liar.raw.until_refused(problem);
        }
        drop(liar);
        scene.goes_on();
    }
}

#[test]
fn what_a_publisher_says_in_its_memory_is_checked() {
    let mut scene = Scene::of(Pattern::Topic, Role::Reader, "");
    tell(&mut scene, false, &[IN_ITS_RING, IN_ITS_ARENA, OF_A_TOPIC]);
    tell(&mut scene, true, &[WHERE_THE_OLDEST_ARE_DROPPED]);
    scene.end();
}

#[test]
fn what_a_sender_says_in_its_memory_is_checked() {
    let mut scene = Scene::of(Pattern::Queue, Role::Reader, "");
    tell(&mut scene, false, &[IN_ITS_RING, IN_ITS_ARENA, OF_A_QUEUE]);
    scene.end();
}

/// The tail of a ring moves on all the time, and never rests where there is a message.
#[test]
fn a_tail_that_runs_away_holds_nobody_up() {
    let mut scene = Scene::of(Pattern::Topic, Role::Reader, "");
    scene.begin("a tail that runs away");
    let mut liar = LyingWriter::open(scene.base(), Pattern::Topic, true);
    liar.messages(3);
    liar.until_read();
    let stop = AtomicBool::new(false);
    (0..liar.position).step_by(8).for_each(|at| liar.word(at).store(0, SeqCst));
    liar.ring.words()[writer::TAIL_WORD].store(liar.position, SeqCst);
    std::thread::scope(|scope| {
        // Several, since one of them may be interrupted.
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    liar.ring.words()[writer::TAIL_WORD].fetch_add(8, SeqCst);
                }
            });
        }
        let _stop = Stop(&stop);
        for _ in 0..20 {
            liar.raw.wake();
            scene.goes_on();
        }
    });
    drop(liar);
    scene.victim.expect_error("died", "");
    scene.end();
}

/// Messages that this subscriber does not take come as fast as it can leave them out.
#[test]
fn a_flood_of_what_is_too_long_holds_nobody_up() {
    let mut scene = Scene::of(Pattern::Topic, Role::Reader, "&max-message=16KiB");
    scene.begin("a flood of what is too long");
    let mut liar = LyingWriter::open(scene.base(), Pattern::Topic, false);
    liar.segment(32 << 10);
    let (stop, liar) = (AtomicBool::new(false), Mutex::new(liar));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut liar = liar.lock().expect("alone");
            while !stop.load(SeqCst) {
                if liar.position - liar.read() < CAPACITY / 2 {
                    liar.in_arena(0, 0, 32 << 10);
                }
            }
            // So that it is told how many there were.
            liar.frame(END, b"");
        });
        let _stop = Stop(&stop);
        for _ in 0..20 {
            scene.goes_on();
        }
    });
    scene.victim.expect_gap();
    scene.end();
}
