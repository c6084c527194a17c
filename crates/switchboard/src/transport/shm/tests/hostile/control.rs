//! What liars say on the control path once they are met: datagrams that no end of their kind says, floods, and
//! last words without end.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self, Address, Kind};
use switchboard_testkit::{Child, DEADLINE};

use super::honest::Honest;
use super::memory;
use super::peer::{END, LyingReader, LyingWriter, dial, hello, say_hello};
use super::scene::{Scene, Stop, both, own_scratch};
use crate::error::RecvError;
use crate::message::Bytes;
use crate::pattern::queue::{Queue, Receiver};
use crate::pattern::topic::{Start, Topic};
use crate::transport::shm::datagram::{Datagram, WAKE};
use crate::transport::shm::geometry::TOPIC;
use crate::transport::shm::hello::{Pattern, Role};
use crate::transport::shm::tests::raw::Raw;

/// Bytes and how many descriptors come with them, and what is said of it.
type Lie = (&'static str, Vec<u8>, usize, &'static str);

/// Two words of four bytes, or one of eight.
fn datagram(kind: u32, words: &[u64]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes
}

/// What nobody says.
fn of_anybody() -> Vec<Lie> {
    let long = [&WAKE[..], &[0; 2000]].concat();
    vec![
        ("no kind", datagram(0, &[]), 0, "unknown kind 0"),
        ("a denial", datagram(10, &[]), 0, "a denial from"),
        ("a short sleep", datagram(11, &[]), 0, "too short"),
        ("kind 12", datagram(12, &[]), 0, "unknown kind 12"),
        ("a want of room for a link", datagram(9, &[]), 0, "a refusal of one link more from a"),
        ("the last kind", datagram(u32::MAX, &[]), 0, "unknown kind 4294967295"),
        ("a byte", vec![4], 0, "too short"),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 0, "unknown kind"),
        ("a wake-up that is too long", datagram(4, &[0]), 0, "too long"),
        ("2000 bytes", long, 0, "more than 1024 bytes"),
        ("a wake-up with a descriptor", WAKE.to_vec(), 1, "with 1 descriptors where 0"),
        ("a wake-up with three", WAKE.to_vec(), 3, "too many descriptors"),
        ("a wake-up with sixteen", WAKE.to_vec(), 16, "too many descriptors"),
        ("a long reason", [&7_u32.to_le_bytes()[..], &[b'x'; 513]].concat(), 0, "more than 512"),
    ]
}

fn of_a_writer(pattern: Pattern) -> Vec<Lie> {
    let with = usize::from(pattern == Pattern::Queue);
    let mut all = vec![
        ("a leave", datagram(8, &[]), 0, "a leave from a"),
        ("a rejection", datagram(5, &[1]), 0, "a rejection from a"),
        ("half a welcome", datagram(2, &[0, 0]), with, "too short"),
        ("a second welcome", datagram(2, &[0, 0, 0]), with, "welcome out of turn"),
        ("a segment without bytes", segment(0, 0), 1, "a segment without bytes"),
        ("a segment without memory", segment(0, 4096), 0, "with 0 descriptors where 1"),
        ("a segment with two", segment(0, 4096), 2, "with 2 descriptors where 1"),
        ("a segment that is a counter", segment(0, 4096), 1, "a segment that cannot be trusted"),
    ];
    if pattern == Pattern::Queue {
        all.push(("no message taken back", datagram(6, &[0]), 0, "a message number 0"));
        all.push(("half a number", 6_u64.to_le_bytes()[..6].to_vec(), 0, "too short"));
    } else {
        all.push(("a message taken back", datagram(6, &[1]), 0, "an answer to a rejection from a"));
    }
    all
}

fn segment(index: u32, bytes: u64) -> Vec<u8> {
    [&3_u32.to_le_bytes()[..], &index.to_le_bytes(), &bytes.to_le_bytes()].concat()
}

fn of_a_reader(pattern: Pattern) -> Vec<Lie> {
    let mut all = vec![
        ("a welcome", datagram(2, &[0, 0, 0]), 0, "a welcome from a"),
        ("a segment", segment(0, 4096), 1, "a segment from a"),
        ("a message taken back", datagram(6, &[1]), 0, "an answer to a rejection from a"),
    ];
    if pattern == Pattern::Topic {
        all.push(("a rejection", datagram(5, &[1]), 0, "a rejection from a"));
    }
    all
}

fn second_hello(pattern: Pattern, role: Role) -> Lie {
    let hello = hello(pattern, role);
    let count = hello.descriptors();
    ("a second hello", Datagram::Hello(hello).encode(), count, "a second hello")
}

#[test]
fn what_no_writer_says_ends_its_link() {
    both(Role::Reader, "", |scene| {
        let pattern = scene.pattern;
        let lies = of_anybody().into_iter().chain(of_a_writer(pattern));
        for (name, bytes, count, problem) in lies.chain([second_hello(pattern, Role::Writer)]) {
            scene.begin(name);
            let mut liar = LyingWriter::open(scene.base(), pattern, false);
            liar.messages(3);
            liar.until_read();
            liar.raw.say(&bytes, count);
            scene.victim.expect_error("misbehaved", problem);
            liar.raw.until_refused(problem);
            // What it says now nobody hears.
            liar.messages(3);
            scene.goes_on();
        }
    });
}

#[test]
fn what_no_reader_says_ends_its_link() {
    both(Role::Writer, "", |scene| {
        let pattern = scene.pattern;
        let lies = of_anybody().into_iter().chain(of_a_reader(pattern));
        for (name, bytes, count, problem) in lies.chain([second_hello(pattern, Role::Reader)]) {
            scene.begin(name);
            let liar = LyingReader::open(scene.base(), pattern);
            liar.raw.say(&bytes, count);
            liar.raw.until_refused(problem);
            scene.goes_on();
        }
    });
}

/// Slot, whether something is where nothing has to be, position, number; and what is said of it.
type Begin = (u32, u32, u64, u64, &'static str);

const BEGINS: &[Begin] = &[
    (3072, 0, 0, 0, "slot 3072"),
    (u32::MAX, 0, 0, 0, "slot 4294967295"),
    (0, 1, 0, 0, "1 where 0 has to be"),
    (0, 0, 4, 0, "position 4"),
    (0, 0, u64::MAX, 0, "position 18446744073709551615"),
    (0, 0, u64::MAX - 7, 0, "a place to begin that is none"),
    (0, 0, u64::MAX / 2 + 1, 0, "a place to begin that is none"),
    (0, 0, 0, u64::MAX, "a place to begin that is none"),
    (0, 0, 0, u64::MAX / 2 + 1, "a place to begin that is none"),
];

#[test]
fn a_welcome_says_where_a_reader_can_begin() {
    both(Role::Reader, "", |scene| {
        for (slot, zero, position, number, problem) in BEGINS {
            scene.begin(problem);
            let liar = LyingWriter::meet(scene.base(), scene.pattern, false);
            let words = [u64::from(*slot) | u64::from(*zero) << 32, *position, *number];
            let ring = liar.ring.read_only_fd().expect("a descriptor");
            let with = [ring.as_fd()];
            let with = if scene.pattern == Pattern::Queue { &with[..] } else { &[] };
            unix_socket::send_with_fds(&liar.raw.0, &datagram(2, &words), with).expect("sent");
            scene.victim.expect_error("misbehaved", problem);
            liar.raw.until_refused(problem);
            scene.goes_on();
        }
        // As far as can be, it begins.
        for (position, number) in [((u64::MAX / 2) & !7, 0), (0, u64::MAX / 2)] {
            scene.begin("the last place to begin");
            let mut liar = LyingWriter::meet(scene.base(), scene.pattern, false);
            (liar.position, liar.number) = (position, number);
            liar.welcome(3071, position, number);
            liar.messages(100);
            liar.until_read();
            drop(liar);
            scene.victim.expect_error("died", "100 messages arrived");
        }
    });
}

/// A peer that refuses an open link leaves it, and is heard no more.
#[test]
fn a_refusal_ends_a_link_and_is_told_once() {
    both(Role::Reader, "", |scene| {
        scene.begin("refusals without end");
        let mut liar = LyingWriter::open(scene.base(), scene.pattern, false);
        liar.messages(3);
        liar.until_read();
        for _ in 0..100 {
            liar.raw.say_it(&Datagram::Refuse("not you\u{1b}[2J".into()), &[]);
        }
        scene.victim.expect_error("turned away", "not you\u{fffd}[2J");
        scene.victim.expect_error("died", "3 messages arrived");
        scene.goes_on();
    });
}

/// Answers to rejections that were never made settle the liar's own messages at most.
#[test]
fn messages_that_were_never_given_back_may_be_taken() {
    let mut scene = Scene::of(Pattern::Queue, Role::Reader, "");
    scene.begin("messages taken back that were never given");
    let mut liar = LyingWriter::open(scene.base(), Pattern::Queue, false);
    for number in (1..200).chain([1 << 32, u64::MAX]) {
        assert!(liar.raw.say_it(&Datagram::Taken { number }, &[]));
        if number.is_multiple_of(3) && number < 200 {
            liar.messages(1);
        }
        if number % 50 == 0 {
            scene.goes_on();
        }
    }
    liar.until_read();
    drop(liar);
    scene.victim.expect_error("died", "66 messages arrived");
    scene.end();
}

/// A link is full of wake-ups all the time; who comes meanwhile is welcomed, and heard.
#[test]
fn a_flood_on_one_link_leaves_others_their_turn() {
    for victim in [Role::Reader, Role::Writer] {
        for pattern in [Pattern::Topic, Pattern::Queue] {
            let mut scene = Scene::of(pattern, victim, "");
            scene.begin("a flood of wake-ups");
            while_flooded(&mut scene, pattern, victim);
            if (pattern, victim) == (Pattern::Queue, Role::Writer) {
                // Who came meanwhile has had some.
                scene.end_without_all();
            } else {
                scene.end();
            }
        }
    }
}

fn while_flooded(scene: &mut Scene, pattern: Pattern, victim: Role) {
    let mut liar = Liar::open(scene.base(), pattern, victim);
    let socket = liar.raw().0.try_clone().expect("a descriptor");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Several, so that the socket is never empty.
        for _ in 0..4 {
            scope.spawn(|| flood(&socket, &stop));
        }
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                liar.follow();
                std::thread::yield_now();
            }
        });
        let _stop = Stop(&stop);
        scene.goes_on();
        // Somebody new is met, welcomed, served, and its end is noticed.
        scene.victim.until_peers(2);
        let role = victim.complement();
        let new = Honest::start(&scene.scratch, pattern, role, "of nobody", "");
        scene.victim.until_peers(3);
        let pid = new.child.id();
        drop(new);
        if victim == Role::Reader {
            scene.victim.expect_death_of(pid);
        }
        scene.victim.until_peers(2);
        scene.goes_on();
    });
    drop((liar, socket));
    scene.victim.expect_ends(usize::from(victim == Role::Reader));
}

/// An open link to an end, from the other side.
enum Liar {
    Writer(LyingWriter),
    Reader(LyingReader),
}

impl Liar {
    fn open(base: &Path, pattern: Pattern, victim: Role) -> Self {
        if victim == Role::Reader {
            Self::Writer(LyingWriter::open(base, pattern, false))
        } else {
            Self::Reader(LyingReader::open(base, pattern))
        }
    }

    fn raw(&self) -> &Raw {
        match self {
            Self::Writer(liar) => &liar.raw,
            Self::Reader(liar) => &liar.raw,
        }
    }

    /// Holds no topic up.
    fn follow(&mut self) {
        if let Self::Reader(liar) = self
            && liar.is_of_topic()
        {
            liar.read_on();
            liar.cursor(liar.position);
        }
    }
}

/// Keeps a socket full.
fn flood(socket: &OwnedFd, stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        let _ = unix_socket::send(socket, &WAKE);
    }
}

/// A process that met the victim has died, and others have its socket and go on talking.
#[test]
fn last_words_have_an_end() {
    for victim in [Role::Reader, Role::Writer] {
        both(victim, "", |scene| {
            scene.begin("last words without end");
            let (mut mortal, socket) = handed_over(scene.base(), scene.pattern, victim, || {});
            scene.victim.until_peers(2);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| flood(&socket.0, &stop));
                }
                let _stop = Stop(&stop);
                scene.goes_on();
                mortal.kill();
                if victim == Role::Reader {
                    scene.victim.expect_death_of(mortal.id());
                }
                scene.victim.until_peers(1);
                scene.goes_on();
            });
            drop(socket);
        });
    }
}

/// A process that meets the victim, and gives the test its socket. The victim is driven by `drive`, if nobody else
/// does so.
pub(super) fn handed_over(
    base: &Path,
    pattern: Pattern,
    victim: Role,
    mut drive: impl FnMut(),
) -> (Child, Raw) {
    let path = base.join("handed-over");
    let address = Address::Path(path.clone());
    let permissions = switchboard_kernel::Permissions::new();
    let listener = unix_socket::listen_at(Kind::Seqpacket, &address, permissions, 4, true);
    let listener = listener.expect("a listener");
    let pattern = if pattern == Pattern::Topic { "topic" } else { "queue" };
    let role = if victim == Role::Reader { "writer" } else { "reader" };
    let base = base.display().to_string();
    let mortal = Child::role("shm-hands-over", &[base.as_str(), pattern, role]);
    let until = Deadline::after(DEADLINE);
    let connection = loop {
        drive();
        let moment = until.min(Deadline::after(Duration::from_millis(1)));
        if wait_for(&listener, Interest::Readable, moment) == Ok(true) {
            break unix_socket::accept(&listener, false).expect("a connection");
        }
        assert!(!until.passed(), "nobody gives a socket away");
    };
    let received = unix_socket::recv_with_fds(&connection, &mut [0; 8], 1);
    let (_, mut descriptors) = received.expect("a socket");
    unix_socket::unlink(&path).expect("removed");
    (mortal, Raw(descriptors.remove(0)))
}

/// Role: meets the victim, and gives its socket away.
pub(in crate::transport::shm::tests) fn hands_over(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let pattern = if arguments[1] == "topic" { Pattern::Topic } else { Pattern::Queue };
    let victim = if arguments[2] == "writer" { Role::Reader } else { Role::Writer };
    let mut liar = Liar::open(&base, pattern, victim);
    let address = Address::Path(base.join("handed-over"));
    let to = unix_socket::connect_to(Kind::Seqpacket, &address, false).expect("connected");
    unix_socket::send_with_fds(&to, b"take it", &[liar.raw().0.as_fd()]).expect("sent");
    loop {
        liar.follow();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Each has another name, and each is turned away: the 3072 links are for those who are there.
#[test]
fn a_crowd_that_is_turned_away_takes_nobody_s_place() {
    let mut scene = Scene::of(Pattern::Topic, Role::Reader, "");
    scene.begin("4200 liars");
    let (bell, ring) = (EventFd::new(0).expect("a counter"), memory::ring(TOPIC).make());
    let mut waiting = VecDeque::new();
    for _ in 0..4200 {
        let raw = dial(scene.base(), Pattern::Topic, Role::Reader);
        say_hello(&raw, &hello(Pattern::Topic, Role::Writer), &[bell.as_fd(), ring.as_fd()]);
        waiting.push_back(raw);
        // Who hangs up before is nobody.
        if waiting.len() > 30
            && let Some(first) = waiting.pop_front()
        {
            first.until_refused("it gave no memory that can be trusted");
        }
    }
    waiting.iter().for_each(|raw| raw.until_refused("it gave no memory that can be trusted"));
    scene.victim.until_quiet("no memory that can be trusted");
    let mut new = Honest::start(&scene.scratch, Pattern::Topic, Role::Writer, "of nobody", "");
    new.until_more(20);
    scene.victim.until_peers(2);
    let pid = new.child.id();
    drop(new);
    scene.victim.expect_death_of(pid);
    scene.end();
}

/// Nobody asks it for what it has to tell, and peers lie and die.
#[test]
fn what_is_to_be_told_is_bounded() {
    both(Role::Reader, "", |scene| {
        scene.begin("many that nobody hears of");
        scene.victim.ask("deaf");
        for round in 0..600 {
            let liar = LyingWriter::open(scene.base(), scene.pattern, false);
            if round % 2 == 0 {
                liar.raw.say(&WAKE, 3);
                liar.raw.until_refused("too many descriptors");
            }
        }
        scene.victim.until_peers(1);
        let resources = scene.victim.resources();
        assert!(resources.descriptors < 60, "{resources:?}");
        scene.victim.ask("hear");
        scene.victim.until_said(257);
    });
}

/// One that waits for the first who writes does not take a liar for it.
#[test]
fn a_liar_that_brought_nothing_does_not_end_who_waits() {
    for pattern in [Pattern::Topic, Pattern::Queue] {
        let scratch = own_scratch();
        let address = format!("shm:channel?scope={}", scratch.path().display());
        let mut reader: Receiver<Bytes> = if pattern == Pattern::Queue {
            Queue::open(&address).and_then(|queue| queue.receiver()).expect("a receiver")
        } else {
            let topic = Topic::open(&address).expect("a topic");
            topic.subscriber(Start::New).expect("a subscriber").into()
        };
        let liar = LyingWriter::open(scratch.path(), pattern, false);
        liar.put(0, u64::MAX);
        let told = reader.recv_timeout(DEADLINE).map(drop);
        assert!(matches!(told, Err(RecvError::PeerMisbehaved { .. })), "{told:?}");
        let told = reader.recv_timeout(Duration::from_millis(20)).map(drop);
        assert!(matches!(told, Err(RecvError::Empty)), "{told:?}");
        // Somebody honest comes and goes.
        let mut liar = LyingWriter::open(scratch.path(), pattern, false);
        liar.messages(1);
        let heard = reader.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(heard.message.0, b"a liar's message");
        reader.acknowledge(heard).expect("acknowledged");
        liar.frame(END, b"");
        let told = reader.recv_timeout(DEADLINE).map(drop);
        assert!(matches!(told, Err(RecvError::Ended)), "{told:?}");
    }
}
