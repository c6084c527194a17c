//! Peers that lie, over each transport whose peers speak a protocol. The test is the liar; the
//! endpoint is a process of its own. It neither panics nor hangs nor takes memory without end, says
//! who did what, and goes on serving a good peer.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self as unix, Address};
use switchboard_kernel::{Permissions, tcp};
use switchboard_testkit::DEADLINE;

use super::contents::Random;
use super::liar::{
    ACK_ONE, ACK_THROUGH, END, END_SEEN, HELLO, Liar, MESSAGE, RECEIVER, REFUSE, REJECT, SENDER,
    both, frame, frame_of, hello_body, kind_of, met, opened,
};
use super::{End, Meeting};

/// The rows whose peers say hello.
pub(crate) const SCHEMES: &[&str] = &["unix", "unix-seqpacket", "tcp"];

const MISBEHAVED: &str = "error PeerMisbehaved";
const REFUSED: &str = "error PeerRefused";

/// What a lying sender says, and what the receiver reports.
fn lies_to_a_receiver() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let message = |sequence| frame(MESSAGE, sequence, b"payload");
    let mut flags = message(1);
    flags[5] = 2;
    let mut long_name = hello_body(1, SENDER, 100);
    let len = long_name.len();
    long_name[len - 3] = 200;
    vec![
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), REFUSED),
        ("zeroes", vec![0; 1000], REFUSED),
        ("another version", opened(&frame(HELLO, 0, &hello_body(2, SENDER, 100))), REFUSED),
        ("both receive", met(RECEIVER, b""), REFUSED),
        ("no role", opened(&frame(HELLO, 0, &hello_body(1, 9, 100))), REFUSED),
        ("a hello too short", opened(&frame(HELLO, 0, &[1, 0, 1, 1])), REFUSED),
        ("a name beyond its hello", opened(&frame(HELLO, 0, &long_name)), REFUSED),
        ("an endless hello", opened(&frame_of(u32::MAX, HELLO, 0, b"")), MISBEHAVED),
        ("a message first", opened(&message(1)), MISBEHAVED),
        ("an end first", opened(&frame(END, 0, b"")), MISBEHAVED),
        ("message 0", met(SENDER, &message(0)), MISBEHAVED),
        ("message 2", met(SENDER, &message(2)), MISBEHAVED),
        ("the last message", met(SENDER, &message(u64::MAX)), MISBEHAVED),
        ("an endless message", met(SENDER, &frame_of(u32::MAX, MESSAGE, 1, b"x")), MISBEHAVED),
        ("one byte more", met(SENDER, &frame_of((16 << 20) + 1, MESSAGE, 1, b"x")), MISBEHAVED),
        ("no kind", met(SENDER, &frame(0, 1, b"")), MISBEHAVED),
        ("an unknown kind", met(SENDER, &frame(200, 1, b"")), MISBEHAVED),
        ("an unknown flag", met(SENDER, &flags), MISBEHAVED),
        ("an answer", met(SENDER, &frame(ACK_THROUGH, 1, b"")), MISBEHAVED),
        ("a rejection", met(SENDER, &frame(REJECT, 1, b"")), MISBEHAVED),
        ("end seen", met(SENDER, &frame(END_SEEN, 0, b"")), MISBEHAVED),
        ("two hellos", met(SENDER, &frame(HELLO, 0, &hello_body(1, SENDER, 1))), MISBEHAVED),
        ("an end that counts more", met(SENDER, &frame(END, 5, b"")), MISBEHAVED),
        ("a long reason", met(SENDER, &frame_of(2000, REFUSE, 0, &[0x1b; 2000])), MISBEHAVED),
        ("a refusal", met(SENDER, &frame(REFUSE, 0, b"\x1b[2J no")), REFUSED),
        ("a message after the end", met(SENDER, &both(frame(END, 0, b""), message(1))), MISBEHAVED),
    ]
}

/// A good sender and its receiver, with which liars interfere.
pub(crate) fn good_still_served(sender: &mut End, receiver: &mut End, n: u64, lie: &str) {
    sender.tell(&format!("send 1 {n} 300"));
    let haul = receiver.recv(1);
    assert_eq!(haul.of(1), [n], "after {lie}: {:?}", haul.errors);
    sender.expect("sent");
}

#[test]
fn a_receiver_survives_lying_senders() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        good_still_served(&mut sender, &mut receiver, 0, "nothing");
        let before = receiver.resident_kib();
        for (n, (lie, bytes, reported)) in (1..).zip(lies_to_a_receiver()) {
            let liar = Liar::connect(&meeting);
            liar.say(&bytes);
            let said = receiver.ask("timeout 15000");
            assert!(said.starts_with(reported), "{scheme}: {lie}: {said}");
            assert!(!said.contains('\u{1b}'), "{scheme}: {lie}: control characters");
            if *scheme != "tcp" {
                let pid = format!("process {} (", std::process::id());
                assert!(said.contains(&pid), "{scheme}: {lie}: who? {said}");
            }
            liar.hear_the_end();
            good_still_served(&mut sender, &mut receiver, n, lie);
        }
        let grown = receiver.resident_kib().saturating_sub(before);
        assert!(grown < 16 * 1024, "{scheme}: {grown} KiB more");
        meeting.finish(&mut sender, &mut receiver);
    }
}

/// What is not finished is not reported: it could be a probe, or a peer that died at once.
#[test]
fn a_receiver_survives_senders_that_stop_in_the_middle() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        good_still_served(&mut sender, &mut receiver, 0, "nothing");
        let whole = met(SENDER, &frame(MESSAGE, 1, b"payload"));
        for (n, cut) in (1..).zip([0, 1, 7, 8, 20, 24, 40, whole.len() - 30]) {
            let liar = Liar::connect(&meeting);
            liar.say(&whole[..cut]);
            drop(liar);
            good_still_served(&mut sender, &mut receiver, n, "a cut");
        }
        // From here on it said hello, so its death is one.
        let liar = Liar::connect(&meeting);
        liar.say(&whole[..whole.len() - 3]);
        drop(liar);
        let said = receiver.ask("timeout 15000");
        assert!(said.starts_with("error PeerDied") && said.contains("received: 0"), "{said}");
        good_still_served(&mut sender, &mut receiver, 90, "a message cut short");
        // A message that is announced and never comes holds nobody up, and takes no memory.
        let before = receiver.resident_kib();
        let waiting: Vec<Liar> = (0..20)
            .map(|_| {
                let liar = Liar::connect(&meeting);
                liar.say(&met(SENDER, &frame_of(16 << 20, MESSAGE, 1, &[1; 100])));
                liar
            })
            .collect();
        for n in 91..95 {
            good_still_served(&mut sender, &mut receiver, n, "an announcement");
        }
        let grown = receiver.resident_kib().saturating_sub(before);
        assert!(grown < 20 * 1024, "{scheme}: {grown} KiB more for 20 announcements");
        drop(waiting);
    }
}

#[test]
fn a_receiver_survives_random_bytes() {
    for scheme in SCHEMES {
        let seed = super::death::Seed(Random::seed());
        let mut random = Random::new(seed.0);
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        good_still_served(&mut sender, &mut receiver, 0, "nothing");
        for n in 1..30 {
            let liar = Liar::connect(&meeting);
            let noise: Vec<u8> = (0..random.below(500)).map(|_| random.next() as u8).collect();
            let mut bytes = match n % 3 {
                0 => noise,
                1 => opened(&noise),
                _ => met(SENDER, &noise),
            };
            // So much that any announced frame is whole, or too long.
            bytes.extend([0xff; 2000]);
            liar.say(&bytes);
            let said = receiver.ask("timeout 15000");
            assert!(said.starts_with(MISBEHAVED) || said.starts_with(REFUSED), "{n}: {said}");
            liar.hear_the_end();
            good_still_served(&mut sender, &mut receiver, n, "noise");
        }
        meeting.finish(&mut sender, &mut receiver);
    }
}

#[test]
fn a_sender_that_never_reads_its_answers_is_turned_away() {
    let mut meeting = Meeting::of("unix");
    let mut receiver = meeting.receiver("");
    receiver.tell("recv 1000000 3000");
    let liar = Liar::connect(&meeting);
    let mut flood = met(SENDER, b"");
    for sequence in 1..=20_000 {
        flood.extend(frame(MESSAGE, sequence, b""));
    }
    liar.say(&flood);
    let haul = receiver.haul();
    assert!(haul.errors[0].starts_with(MISBEHAVED), "{:?}", haul.errors);
    assert!(haul.got.len() < 20_000);
}

#[test]
fn a_peer_that_says_nothing_is_turned_away_in_time() {
    let mut meeting = Meeting::of("unix");
    let mut receiver = meeting.receiver("");
    let mut sender = meeting.sender("");
    good_still_served(&mut sender, &mut receiver, 0, "nothing");
    let liar = Liar::connect(&meeting);
    let said = receiver.ask("timeout 15000");
    assert!(said.starts_with(MISBEHAVED) && said.contains("no hello within 10 s"), "{said}");
    liar.hear_the_end();
    good_still_served(&mut sender, &mut receiver, 1, "silence");
}

/// What a lying receiver says once it got message 1.
fn lies_to_a_sender() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("both send", met(SENDER, b"")),
        ("an endless hello", opened(&frame_of(u32::MAX, HELLO, 0, b""))),
        ("a window of nothing", opened(&frame(HELLO, 0, &hello_body(1, RECEIVER, 0)))),
        ("an answer to nothing", met(RECEIVER, &frame(ACK_THROUGH, 0, b""))),
        ("answers to what was not sent", met(RECEIVER, &frame(ACK_THROUGH, 1000, b""))),
        ("an answer to the last", met(RECEIVER, &frame(ACK_ONE, u64::MAX, b""))),
        ("a rejection of what was not sent", met(RECEIVER, &frame(REJECT, 1000, b""))),
        ("a message", met(RECEIVER, &frame(MESSAGE, 1, b"payload"))),
        ("an end", met(RECEIVER, &frame(END, 0, b""))),
        ("an end seen early", met(RECEIVER, &frame(END_SEEN, 0, b""))),
        ("an unknown kind", met(RECEIVER, &frame(99, 0, b""))),
    ]
}

/// Binds where a sender will connect.
pub(crate) fn listen(meeting: &Meeting) -> OwnedFd {
    let target = meeting.address().split_once(':').expect("a scheme").1;
    match meeting.row.scheme {
        "tcp" => TcpListener::bind(target).expect("a listener").into(),
        scheme => {
            let address = Address::Path(target.into());
            unix::listen_at(kind_of(scheme), &address, Permissions::new(), 16, false)
                .expect("a listener")
        }
    }
}

/// A test that starts a child at this moment can keep a copy of the listener open until the child
/// runs its program.
fn until_nobody_listens(meeting: &Meeting) {
    let target = meeting.address().split_once(':').expect("a scheme").1;
    let since = std::time::Instant::now();
    loop {
        let connected = match meeting.row.scheme {
            "tcp" => TcpStream::connect(target).is_ok(),
            scheme => {
                unix::connect_to(kind_of(scheme), &Address::Path(target.into()), true).is_ok()
            }
        };
        if !connected {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "somebody keeps the listener");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn accept(meeting: &Meeting, listener: &OwnedFd) -> Liar {
    let until = Deadline::after(DEADLINE);
    assert!(wait_for(listener, Interest::Readable, until).expect("a poll"), "nobody connects");
    Liar(match meeting.row.scheme {
        "tcp" => tcp::accept(listener.as_fd(), false).expect("a connection").0,
        _ => unix::accept(listener, false).expect("a connection"),
    })
}

#[test]
fn a_sender_survives_a_lying_receiver_that_it_connected_to() {
    for scheme in SCHEMES {
        for (lie, bytes) in lies_to_a_sender() {
            let mut meeting = Meeting::of(scheme);
            let listener = listen(&meeting);
            let mut sender = meeting.sender("");
            let liar = accept(&meeting, &listener);
            sender.tell("stream 1 0 3 100");
            liar.say(&bytes);
            // It may have sent all before it heard the lie; then it hears it at the next look.
            let mut said = sender.line();
            let since = std::time::Instant::now();
            while said == "streamed" || said == "driven" {
                assert!(since.elapsed() < DEADLINE, "{scheme}: {lie}: it never notices");
                said = sender.ask("drive");
            }
            let expected = ["error PeerMisbehaved", "error Failed(Error { kind: Mismatch"];
            assert!(
                expected.iter().any(|start| said.starts_with(start)),
                "{scheme}: {lie}: {said}"
            );
            liar.hear_the_end();
            drop((liar, listener));
            until_nobody_listens(&meeting);
            // A good one comes: what the liar never acknowledged goes to it.
            let mut receiver = meeting.receiver("");
            receiver.tell("until 9:9 15000");
            sender.tell("send 9 9 100");
            let mut answer = sender.line();
            let since = std::time::Instant::now();
            while answer.starts_with("error") {
                // The sender may have met the liar once more before it was gone.
                assert!(since.elapsed() < DEADLINE, "{scheme}: {lie}: {answer}");
                answer = sender.ask("send 9 9 100");
            }
            assert_eq!(answer, "sent");
            let haul = receiver.haul();
            assert_eq!(haul.of(9), [9], "{scheme}: {lie}: {haul:?}");
        }
    }
}

#[test]
fn a_sender_that_binds_survives_lying_receivers() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let mut sender = meeting.sender_at("?bind", "");
        let mut receiver = meeting.receiver_at("?connect", "");
        good_still_served(&mut sender, &mut receiver, 0, "nothing");
        let mut n = 1;
        for (lie, bytes) in lies_to_a_sender() {
            let liar = Liar::connect(&meeting);
            liar.say(&bytes);
            receiver.tell("recv 20 15000");
            sender.must(&format!("stream 1 {n} {} 100", n + 20), "streamed");
            let haul = receiver.haul();
            let mut numbers = haul.of(1);
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(n..n + 20), "{scheme}: {lie}: {haul:?}");
            n += 20;
        }
        let before = sender.resident_kib();
        // One that takes everything, answers nothing and offers an endless window.
        let liar = Liar::connect(&meeting);
        liar.say(&opened(&frame(HELLO, 0, &hello_body(1, RECEIVER, u32::MAX))));
        sender.must("drive", "driven");
        let swallow = std::thread::spawn(move || liar.hear_the_end());
        let filled = sender.must("fill 1 100000", "full ");
        let grown = sender.resident_kib().saturating_sub(before);
        assert!(grown < 160 * 1024, "{scheme}: {filled}: {grown} KiB more");
        sender.kill();
        let _ = swallow.join();
    }
}

#[test]
fn foreign_framings_survive_what_does_not_fit_them() {
    for (query, bytes) in [
        ("?framing=length", &b"\xff\xff\xff\xff"[..]),
        ("?framing=length&max-message=100", b"\0\0\0\x65"),
        ("?framing=lines&max-message=100", &[b'x'; 300]),
    ] {
        for scheme in ["unix", "tcp"] {
            let mut meeting = Meeting::of(scheme);
            let mut receiver = meeting.receiver_at(query, "follow");
            let liar = Liar::connect(&meeting);
            liar.say(bytes);
            let said = receiver.ask("timeout 15000");
            assert!(said.starts_with(MISBEHAVED), "{scheme}{query}: {said}");
            liar.hear_the_end();
            let mut sender = meeting.sender_at(query, "");
            sender.must("send 1 0 50", "sent");
            assert_eq!(receiver.recv(1).of(1), [0], "{scheme}{query}");
        }
    }
}

/// A name that is bound by nobody's protocol: a listener that never accepts.
#[test]
fn a_sender_is_not_held_up_by_a_listener_that_never_accepts() {
    for scheme in SCHEMES {
        let mut meeting = Meeting::of(scheme);
        let _listener = listen(&meeting);
        let mut sender = meeting.sender("");
        let late = sender.must("timeout 1 0 100 100", "full ");
        let took: u64 = late["full ".len()..].parse().expect("a number");
        assert!(Duration::from_millis(took) < Duration::from_secs(5), "{scheme}: {took} ms");
    }
}
