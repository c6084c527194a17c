//! Lies between two steps of an end: what cannot be left to chance, so the test drives the end itself.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::unix_socket;
use switchboard_shm::layout::{PAGE_BYTES, writer};
use switchboard_testkit::{DEADLINE, Scratch};

use super::control::handed_over;
use super::peer::{END, LyingReader, LyingWriter};
use super::scene::{Stop, open_here};
use crate::error::SendError;
use crate::options::{Options, Overflow};
use crate::transport::shm::control::Event;
use crate::transport::shm::datagram::{Datagram, WAKE};
use crate::transport::shm::endpoint::Core;
use crate::transport::shm::ends::{Lends as _, Opened as _};
use crate::transport::shm::hand::{Hand, Manner};
use crate::transport::shm::hello::{Pattern, Role};
use crate::transport::shm::lending::Lending;
use crate::transport::shm::offer::Page;
use crate::transport::shm::publisher::PublisherCore;
use crate::transport::shm::sender::SenderCore;
use crate::transport::shm::subscriber::SubscriberCore;

/// Of two links, the one that was first has more than is taken in many turns.
#[test]
fn each_link_has_its_share_of_a_turn() {
    let (scratch, mut reader) = open_here::<SubscriberCore>(Options::default());
    let mut open = || {
        let base = scratch.path().to_owned();
        let opening = std::thread::spawn(move || LyingWriter::open(&base, Pattern::Topic, false));
        while !opening.is_finished() {
            reader.control();
        }
        opening.join().expect("a link")
    };
    let (first, second) = (open(), open());
    let deadline = Deadline::after(DEADLINE);
    while reader.peers() < 2 {
        assert!(!deadline.passed(), "it is not welcomed");
        reader.control();
    }
    // Nothing is left of that: who is ready first comes first.
    reader.control();
    while unix_socket::send(&first.raw.0, &WAKE).is_ok() {}
    unix_socket::send(&second.raw.0, &[0]).expect("sent");
    reader.control();
    assert_eq!(reader.peers(), 1, "the second was heard, and its breach seen");
    assert!(unix_socket::unsent_bytes(&first.raw.0).expect("a number") > 0, "in the first turn");
}

/// A peer is dead, and there is more on its socket than is taken at once: others have it, and go on talking.
#[test]
fn of_the_last_words_of_the_dead_so_many_are_heard() {
    const LAST_WORDS: usize = 3;
    const OTHERS: usize = 3;
    // What is taken of one link in a turn in which so many have something.
    const SHARE: usize = 16 / (OTHERS + 1);
    let (scratch, mut reader) = open_here::<SubscriberCore>(Options::default().follow(true));
    reader.control.last_words = LAST_WORDS;
    let others: Vec<_> = (0..OTHERS).map(|_| meet_writer(&scratch, &mut reader, false)).collect();
    let (mut mortal, socket) = handed_over(scratch.path(), Pattern::Topic, Role::Reader, || {
        reader.control();
    });
    while reader.peers() <= OTHERS || reader.control() {
        reader.control();
    }
    mortal.kill();
    let mut said = 0;
    while unix_socket::send(&socket.0, &WAKE).is_ok() {
        said += 1;
    }
    assert!(said > LAST_WORDS + SHARE, "{said} datagrams fit into a socket");
    others.iter().for_each(|other| other.raw.wake());
    let events = reader.control.turn();
    let of = |is_one: fn(&Event<Page>) -> bool| events.iter().filter(|event| is_one(event)).count();
    let (heard, gone) =
        (of(|event| matches!(event, Event::Wake)), of(|event| matches!(event, Event::Gone(_))));
    assert_eq!(gone, 1, "{events:?}");
    assert!((OTHERS + LAST_WORDS..=OTHERS + LAST_WORDS + SHARE).contains(&heard), "{heard} heard");
    // The same where all is taken of one who lives.
    let other = &others[0].raw;
    while unix_socket::send(&other.0, &WAKE).is_ok() {}
    let link = reader.writers[0].link;
    assert_eq!(reader.control.hear(link).len(), LAST_WORDS);
}

/// A message is looked for a receiver, by its length; in doing so another receiver is found to lie, and what that
/// one had comes first from then on.
#[test]
fn what_was_measured_is_what_is_given_out() {
    const LONG_BYTES: usize = 1000;
    let options = Options::default().capacity_bytes(Some(4096));
    let (scratch, mut sender) = open_here::<SenderCore>(options);
    let mut honest = meet_reader(&scratch, Pattern::Queue, &mut sender);
    sender.try_send(b"short", 0).expect("room");
    let mut sent = 1;
    while sender.try_send(&[7; LONG_BYTES], 0).is_ok() {
        sent += 1;
    }
    assert_eq!(honest.read_on(), sent, "its ring is full, but for something short");
    let liar = meet_reader(&scratch, Pattern::Queue, &mut sender);
    sender.try_send(&[8; LONG_BYTES], 0).expect("room in another ring");
    liar.cursor(u64::MAX - 7);
    assert!(honest.raw.say_it(&Datagram::Reject { number: 1 }, &[]));
    while sender.peers() > 1 {
        sender.control();
    }
    liar.raw.until_refused("a cursor that jumps");
    assert_eq!(honest.read_on(), 1, "the short one, again");
    assert_eq!(sender.pending(), sent + 1, "and the long one waits");
    honest.cursor(honest.position);
    sender.drive().expect("driven");
    assert_eq!((honest.read_on(), sender.pending()), (1, 1));
}

/// It is found out while room for a large message is looked for, after it was chosen for it.
#[test]
fn a_liar_that_was_chosen_gets_nothing() {
    type Send = fn(&mut SenderCore) -> Result<(), SendError>;
    let ways: [Send; 2] = [
        |sender| sender.try_send(&[7; 100_000], 0),
        |sender| sender.lend(100_000, &mut Lending::default()),
    ];
    for send in ways {
        let (scratch, mut sender) = open_here::<SenderCore>(Options::default());
        let liar = meet_reader(&scratch, Pattern::Queue, &mut sender);
        liar.cursor(u64::MAX - 7);
        let sent = send(&mut sender);
        assert!(matches!(sent, Err(SendError::Full)), "{sent:?}");
        assert_eq!(sender.peers(), 0);
        liar.raw.until_refused("a cursor that jumps");
    }
}

fn meet_reader(scratch: &Scratch, pattern: Pattern, end: &mut impl Core) -> LyingReader {
    let base = scratch.path().to_owned();
    let opening = std::thread::spawn(move || LyingReader::open(&base, pattern));
    while !opening.is_finished() {
        end.control();
    }
    opening.join().expect("a link")
}

/// Whoever asks for wake-ups in the name of one who is elsewhere does not fill that one's socket.
#[test]
fn wake_ups_leave_room_for_what_a_reader_needs() {
    let options = Options::default().overflow(Overflow::DropOldest);
    let (scratch, mut publisher) = open_here::<PublisherCore>(options);
    let elsewhere = meet_reader(&scratch, Pattern::Topic, &mut publisher);
    for round in 0..2000 {
        elsewhere.ring_bell(elsewhere.slot, 2 | (round << 2 & 0xff));
        publisher.try_send(b"a message").expect("the oldest is dropped");
    }
    // What is too long for the ring needs a segment.
    publisher.try_send(&[7; 100_000]).expect("the oldest is dropped");
    publisher.control();
    assert_eq!(publisher.peers(), 1);
    let mut wakes = 0;
    loop {
        let (bytes, descriptors) = elsewhere.raw.take().expect("a segment");
        if bytes[0] == 3 {
            assert_eq!((descriptors.len(), wakes), (1, 1), "one wake-up, and the segment");
            return;
        }
        wakes += 1;
    }
}

/// What a reader does not take, and a tail that runs away: it leaves off, and says that there is more.
#[test]
fn a_call_reads_no_more_than_messages_in_a_row() {
    let options = Options::default().max_message_bytes(Some(1000));
    let (scratch, mut reader) = open_here::<SubscriberCore>(options);
    let mut liar = meet_writer(&scratch, &mut reader, false);
    liar.segment(PAGE_BYTES);
    let frame_bytes = 40;
    (0..700).for_each(|_| liar.in_arena(0, 0, 4096));
    while reader.control() {}
    let mut hand = Hand::default();
    for frames in [256, 512, 700] {
        assert!(!reader.take(Manner::Copied, &mut hand, 0).expect("no report"));
        assert_eq!(reader.writers[0].ring.position(), frames * frame_bytes);
        assert_eq!(reader.is_ready(), frames < 700);
    }

    let (scratch, mut reader) = open_here::<SubscriberCore>(Options::default());
    let liar = meet_writer(&scratch, &mut reader, true);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let since = Instant::now();
                while !stop.load(SeqCst) && since.elapsed() < Duration::from_secs(5) {
                    for _ in 0..1000 {
                        tail_of(&liar).fetch_add(8, SeqCst);
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        let since = Instant::now();
        for _ in 0..100 {
            assert!(!reader.take(Manner::Copied, &mut hand, 0).expect("no report"));
        }
        assert!(since.elapsed() < Duration::from_secs(4), "it ran after its tail");
    });
}

/// Also where the end was found by the last call of a batch, so that the link is still there.
#[test]
fn nothing_is_read_behind_an_end() {
    for lossy in [false, true] {
        let (scratch, mut reader) = open_here::<SubscriberCore>(Options::default().follow(true));
        let mut liar = meet_writer(&scratch, &mut reader, lossy);
        liar.messages(1);
        liar.frame(END, b"");
        liar.put(liar.position, u64::MAX);
        let mut hand = Hand::default();
        assert!(reader.take(Manner::Copied, &mut hand, 0).expect("no report"));
        assert!(!reader.take_more(Manner::Copied, &mut hand));
        assert!(!reader.take(Manner::Copied, &mut hand, 0).expect("no report"));
        assert_eq!(reader.writers.len(), 0, "it has ended");
    }
}

fn tail_of(liar: &LyingWriter) -> &AtomicU64 {
    &liar.ring.words()[writer::TAIL_WORD]
}

fn meet_writer(scratch: &Scratch, reader: &mut SubscriberCore, lossy: bool) -> LyingWriter {
    let base = scratch.path().to_owned();
    let opening = std::thread::spawn(move || LyingWriter::open(&base, Pattern::Topic, lossy));
    while !opening.is_finished() || reader.peers() == 0 {
        reader.control();
    }
    opening.join().expect("a link")
}
