//! Subscribers and receivers that lie in their pages and in the doorbell. A writer goes on without them, and
//! tells nobody but the liar.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard_shm::layout::reader;

use super::peer::{LyingReader, frame_end};
use super::scene::{Scene, Stop, both};
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::hello::{Pattern, Role};

/// A lie of a reader, and what it is told.
type Lie = (&'static str, fn(&mut LyingReader), &'static str);

/// It is let be, until it goes.
const NOTHING: &str = "";

const JUMPS: &str = "a cursor that jumps";

/// Reads as an honest one does, until there were so many bytes.
fn read_bytes(liar: &mut LyingReader, bytes: u64) {
    let begin = liar.position;
    let since = Instant::now();
    while liar.position < begin + bytes && since.elapsed() < switchboard_testkit::DEADLINE {
        liar.read_on();
        liar.cursor(liar.position);
        std::thread::yield_now();
    }
}

const CURSORS: &[Lie] = &[
    ("a cursor beyond the head", |liar| liar.cursor(liar.position + (1 << 30)), JUMPS),
    ("the last cursor", |liar| liar.cursor(u64::MAX - 7), JUMPS),
    ("no word", |liar| liar.cursor(u64::MAX), JUMPS),
    (
        "an odd cursor",
        |liar| {
            read_bytes(liar, 8);
            liar.cursor(liar.position - 4);
        },
        JUMPS,
    ),
    (
        "a cursor that goes back",
        |liar| {
            // Until it has been looked at.
            let capacity = liar.capacity();
            read_bytes(liar, capacity * 3);
            liar.cursor(8);
        },
        JUMPS,
    ),
];

const OF_A_TOPIC: &[Lie] = &[(
    "a cursor within a frame",
    |liar| {
        read_bytes(liar, 8000);
        liar.cursor(liar.position - 8);
        let capacity = liar.capacity();
        read_bytes(liar, capacity);
    },
    NOTHING,
)];

const OF_A_QUEUE: &[Lie] = &[
    (
        "a cursor within a frame",
        |liar| {
            read_frames(liar, 3);
            let (_, end) = second_frame(liar);
            liar.cursor(end - 8);
        },
        "a cursor within a message",
    ),
    (
        "bits of what was never sent",
        |liar| {
            read_frames(liar, 3);
            // Numbers count from 1, and no more than 256 are unsettled.
            for word in 4..8 {
                liar.page.words()[reader::SETTLED_WORD + word].store(u64::MAX, SeqCst);
            }
            liar.page.words()[reader::SETTLED_WORD].fetch_or(1, SeqCst);
        },
        NOTHING,
    ),
    (
        "all bits, and a cursor that jumps",
        |liar| {
            read_frames(liar, 3);
            for word in 0..8 {
                liar.page.words()[reader::SETTLED_WORD + word].store(u64::MAX, SeqCst);
            }
            liar.cursor(u64::MAX - 7);
        },
        JUMPS,
    ),
    (
        "no cursor any more",
        |liar| {
            liar.cursor(0);
            read_frames(liar, 3);
        },
        NOTHING,
    ),
    ("message 0", |liar| reject(liar, 0), "a message number 0"),
    ("a message that was never sent", |liar| reject(liar, 5_000_000), "what it does not have"),
    ("the last message", |liar| reject(liar, u64::MAX), "what it does not have"),
    (
        "a message twice",
        |liar| {
            read_frames(liar, 3);
            reject(liar, 1);
            reject(liar, 1);
            until_taken(liar);
            until_taken(liar);
        },
        NOTHING,
    ),
];

/// Waits until there are so many messages.
fn read_frames(liar: &mut LyingReader, count: u64) {
    let since = Instant::now();
    let mut found = 0;
    while found < count {
        found += liar.read_on();
        assert!(since.elapsed() < switchboard_testkit::DEADLINE, "no messages");
        std::thread::yield_now();
    }
}

/// Where the second message of its ring begins and ends.
fn second_frame(liar: &LyingReader) -> (u64, u64) {
    let end = |begin| frame_end(begin, liar.word(begin));
    (end(0), end(end(0)))
}

fn reject(liar: &LyingReader, number: u64) {
    assert!(liar.raw.say_it(&Datagram::Reject { number }, &[]));
}

fn until_taken(liar: &LyingReader) {
    loop {
        let (bytes, _) = liar.raw.take().expect("an answer");
        if bytes[0] == 6 {
            return;
        }
    }
}

fn tell(scene: &mut Scene, lies: &[&[Lie]]) {
    for (name, lie, problem) in lies.iter().copied().flatten() {
        scene.begin(name);
        let mut liar = LyingReader::open(scene.base(), scene.pattern);
        lie(&mut liar);
        if *problem != NOTHING {
            liar.raw.until_refused(problem);
        }
        drop(liar);
        scene.goes_on();
    }
}

#[test]
fn what_a_subscriber_says_in_its_page_is_checked() {
    let mut scene = Scene::of(Pattern::Topic, Role::Writer, "");
    tell(&mut scene, &[CURSORS, OF_A_TOPIC]);
    scene.end();
    // One that drops the oldest looks there only because of large messages.
    let mut scene = Scene::of(Pattern::Topic, Role::Writer, "&overflow=drop-oldest");
    tell(&mut scene, &[CURSORS, OF_A_TOPIC]);
    scene.end();
}

#[test]
fn what_a_receiver_says_in_its_page_is_checked() {
    let mut scene = Scene::of(Pattern::Queue, Role::Writer, "");
    tell(&mut scene, &[OF_A_QUEUE]);
    scene.end();
    // What these settle before they lie is theirs.
    let mut scene = Scene::of(Pattern::Queue, Role::Writer, "");
    tell(&mut scene, &[CURSORS]);
    scene.end_without_all();
}

/// What a receiver is given and does not settle is whole when another gets it, whatever the first said.
#[test]
fn a_receiver_that_lies_garbles_nothing_for_others() {
    let mut scene = Scene::of(Pattern::Queue, Role::Writer, "");
    scene.begin("a cursor within a long message");
    for _ in 0..5 {
        scene.victim.ask("quiet");
        scene.third.child.signal(Signal::STOP);
        let mut liar = LyingReader::open(scene.base(), Pattern::Queue);
        // One of two is the liar's; then all that there is room for.
        scene.victim.ask("large 8000");
        scene.victim.ask("large 8000");
        scene.victim.ask("go");
        read_frames(&mut liar, 1);
        let (end, _) = second_frame(&liar);
        let full = liar.capacity() * 3 / 4;
        while liar.position < full {
            liar.read_on();
        }
        // It says that it is nearly done with the first one, which then is given to the other.
        liar.cursor(end - 8);
        let since = Instant::now();
        while liar.position < liar.capacity() + 4000 && since.elapsed() < Duration::from_millis(50)
        {
            liar.read_on();
        }
        drop(liar);
        scene.third.child.signal(Signal::CONT);
        scene.goes_on();
    }
    scene.end();
}

/// The bytes of all readers are the liar's to write: others are woken for nothing, or not at all.
#[test]
fn a_doorbell_may_be_anything() {
    both(Role::Writer, "", |scene| {
        for (name, act) in BELLS {
            scene.begin(name);
            let mut liar = LyingReader::open(scene.base(), scene.pattern);
            let (stop, round) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                let (stop, liar) = (&stop, &mut liar);
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        act(liar, round.fetch_add(1, SeqCst));
                        liar.read_on();
                        if liar.is_of_topic() {
                            liar.cursor(liar.position);
                        }
                    }
                });
                let _stop = Stop(stop);
                for _ in 0..3 {
                    scene.goes_on();
                }
            });
            drop(liar);
            scene.goes_on();
        }
    });
}

type Ring = fn(&LyingReader, u64);

/// What is done over and over.
const BELLS: &[(&str, Ring)] = &[
    ("its byte is up", |liar, _| liar.ring_bell(liar.slot, 1)),
    ("its byte is up for its descriptor", |liar, _| liar.ring_bell(liar.slot, 2)),
    ("its byte changes", |liar, round| liar.ring_bell(liar.slot, 1 | round << 2 & 0xff)),
    ("its byte changes for its descriptor", |liar, round| {
        liar.ring_bell(liar.slot, 2 | round << 2 & 0xff);
    }),
    ("everybody's byte changes", |liar, round| {
        let byte = (round % 4) | (round << 2 & 0xff);
        (0..64).for_each(|slot| liar.ring_bell(slot, byte));
    }),
    ("nobody's byte is up", |liar, _| {
        liar.bell.words().iter().take(8).for_each(|word| word.store(0, SeqCst));
    }),
    ("all bits are up", |liar, _| {
        liar.bell.words().iter().for_each(|word| word.store(u64::MAX, SeqCst));
    }),
];

/// It asks for answers, and never reads them.
#[test]
fn a_receiver_that_takes_no_answer_is_gone() {
    let mut scene = Scene::of(Pattern::Queue, Role::Writer, "");
    scene.begin("rejections without end");
    let mut liar = LyingReader::open(scene.base(), Pattern::Queue);
    read_frames(&mut liar, 3);
    let since = Instant::now();
    let mut said = 0_u64;
    // Until this side notices that the other has ended it.
    loop {
        let datagram = Datagram::Reject { number: 1 + said % 3 }.encode();
        match switchboard_kernel::unix_socket::send(&liar.raw.0, &datagram) {
            Ok(_) => said += 1,
            Err(error) if error.name() == "EAGAIN" => std::thread::yield_now(),
            Err(_) => break,
        }
        assert!(since.elapsed() < switchboard_testkit::DEADLINE, "{said} rejections, and no end");
    }
    scene.goes_on();
    // It has never hung up, and what it had is given to others.
    scene.end();
    drop(liar);
}
