//! Peers that lie: to a server, and to a client. The test is the liar.

use std::time::Instant;

use switchboard::{CallError, Progress};
use switchboard_testkit::DEADLINE;

use super::{call, client_at, start_worker, text};
use crate::conformance::Meeting;
use crate::conformance::hostile::{SCHEMES, accept, listen};
use crate::conformance::liar::{
    END, HELLO, Liar, MESSAGE, PREFACE, RECEIVER, SENDER, frame, frame_of, hello_of, opened,
};

const SERVICE: u8 = 3;
const CALL: u8 = 10;
const STARTED: u8 = 11;
const PART: u8 = 12;
const REPLY: u8 = 13;
const DONE: u8 = 14;
const FAIL: u8 = 15;
const CANCEL: u8 = 16;
const GRANT: u8 = 17;

/// How long the preface and a hello are.
const HELLO_BYTES: usize = PREFACE.len() + 16 + 39;

/// The preface, a good hello of a service in this role, and more.
fn met(role: u8, window: u32, more: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(HELLO, 0, &hello_of(1, SERVICE, role, window)));
    bytes.extend(more.concat());
    bytes
}

/// A call of this number that says no time.
fn called(id: u64, request: &str) -> Vec<u8> {
    frame(CALL, id, &[&[0; 8], request.as_bytes()].concat())
}

fn lies_to_a_server() -> Vec<(&'static str, Vec<u8>)> {
    let says = |frames: &[Vec<u8>]| met(SENDER, 4096, frames);
    let many: Vec<Vec<u8>> = (1..=5).map(|id| called(id, "later")).collect();
    vec![
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a sender of a queue", opened(&frame(HELLO, 0, &hello_of(1, 1, SENDER, 10)))),
        ("another server", met(RECEIVER, 10, &[])),
        ("a client that takes nothing", met(SENDER, 0, &[])),
        ("no pattern", opened(&frame(HELLO, 0, &hello_of(1, 77, SENDER, 10)))),
        ("a call before its hello", opened(&called(1, "pid"))),
        ("call 0", says(&[called(0, "pid")])),
        ("call 2", says(&[called(2, "pid")])),
        ("the last call", says(&[called(u64::MAX, "pid")])),
        ("a call twice", says(&[called(1, "later"), called(1, "later")])),
        ("a call without its time", says(&[frame(CALL, 1, b"short")])),
        ("an endless call", says(&[frame_of(u32::MAX, CALL, 1, b"x")])),
        ("one byte more", says(&[frame_of((16 << 20) + 9, CALL, 1, b"x")])),
        ("more calls than it may", says(&many)),
        ("more bytes than it may", says(&[called(1, "later"), called(2, &"x".repeat(5 << 20))])),
        ("a cancel of nothing", says(&[frame(CANCEL, 1, b"")])),
        ("a cancel of the future", says(&[called(1, "later"), frame(CANCEL, 9, b"")])),
        ("a grant of nothing", says(&[frame(GRANT, 1, &[0; 8])])),
        ("a grant of what was not sent", says(&[called(1, "later"), frame(GRANT, 1, &[9; 8])])),
        ("a grant too short", says(&[called(1, "later"), frame(GRANT, 1, b"")])),
        ("a message", says(&[frame(MESSAGE, 1, b"x")])),
        ("a reply", says(&[frame(REPLY, 1, b"x")])),
        ("a start", says(&[frame(STARTED, 1, b"")])),
        ("an end that counts more", says(&[frame(END, 5, b"")])),
        ("a call after the end", says(&[frame(END, 0, b""), called(1, "pid")])),
        ("two ends", says(&[frame(END, 0, b""), frame(END, 0, b"")])),
        ("an unknown kind", says(&[frame(200, 1, b"")])),
    ]
}

#[test]
fn a_server_survives_lying_clients() {
    for scheme in SCHEMES {
        let meeting = Meeting::of(scheme);
        let mut worker = start_worker(meeting.address(), 4);
        let client = client_at(meeting.address());
        for (lie, bytes) in lies_to_a_server() {
            let liar = Liar::connect(&meeting);
            // A packet before the hello may be no longer than a hello.
            let (hello, rest) = bytes.split_at(bytes.len().min(HELLO_BYTES));
            liar.say(hello);
            liar.say(rest);
            let said = worker
                .line_within(DEADLINE)
                .unwrap_or_else(|| panic!("{scheme}: {lie}: nothing said"));
            let told = ["error PeerMisbehaved", "error PeerRefused"];
            assert!(told.iter().any(|start| said.starts_with(start)), "{scheme}: {lie}: {said}");
            liar.hear_the_end();
            assert_eq!(call(&client, "echo on").expect("a reply"), "on", "{scheme}: {lie}");
        }
    }
}

/// A client that asks and reads nothing is not worked for without end, and holds nobody up.
#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let meeting = Meeting::of("unix");
    let _worker = start_worker(meeting.address(), 4);
    let client = client_at(meeting.address());
    let greedy: Vec<Liar> = (0..10)
        .map(|_| {
            let liar = Liar::connect(&meeting);
            let calls: Vec<Vec<u8>> = (1..=4).map(|id| called(id, "size 900000")).collect();
            liar.say(&met(SENDER, 1 << 20, &calls));
            liar
        })
        .collect();
    for n in 0..100 {
        assert_eq!(call(&client, &format!("echo {n}")).expect("a reply"), n.to_string());
    }
    drop(greedy);
    assert_eq!(call(&client, "echo on").expect("a reply"), "on");
}

fn lies_to_a_client() -> Vec<(&'static str, Vec<u8>)> {
    let says = |frames: &[Vec<u8>]| met(RECEIVER, 4096, frames);
    let long_text = [&[2, 0, 255, 255][..], b"no"].concat();
    let parts: Vec<Vec<u8>> = (0..70).map(|_| frame(PART, 1, b"part")).collect();
    vec![
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a receiver of a queue", opened(&frame(HELLO, 0, &hello_of(1, 1, RECEIVER, 10)))),
        ("another client", met(SENDER, 10, &[])),
        ("a server that takes nothing", met(RECEIVER, 0, &[])),
        ("a reply to nothing", says(&[frame(REPLY, 0, b"x")])),
        ("a reply to another", says(&[frame(REPLY, 7, b"x")])),
        ("a start of another", says(&[frame(STARTED, 7, b"")])),
        ("a part of another", says(&[frame(PART, u64::MAX, b"")])),
        ("two starts", says(&[frame(STARTED, 1, b""), frame(STARTED, 1, b"")])),
        ("a failure too short", says(&[frame(FAIL, 1, b"x")])),
        ("a failure with a long text", says(&[frame(FAIL, 1, &long_text)])),
        ("an endless failure", says(&[frame_of(u32::MAX, FAIL, 1, b"")])),
        ("an endless reply", says(&[frame_of(u32::MAX, REPLY, 1, b"x")])),
        ("more parts than it may", says(&parts)),
        ("a call", says(&[called(1, "pid")])),
        ("a message", says(&[frame(MESSAGE, 1, b"x")])),
        ("an end that counts more", says(&[frame(END, 5, b"")])),
        ("two ends", says(&[frame(STARTED, 1, b""), frame(END, 1, b""), frame(END, 1, b"")])),
        ("a cancel", says(&[frame(CANCEL, 1, b"")])),
        ("an unknown kind", says(&[frame(99, 0, b"")])),
    ]
}

#[test]
fn a_client_survives_a_lying_server() {
    for scheme in SCHEMES {
        for (lie, bytes) in lies_to_a_client() {
            let meeting = Meeting::of(scheme);
            let listener = listen(&meeting);
            let client = client_at(meeting.address());
            let liar = accept(&meeting, &listener);
            // The hello alone opens the link; the lie comes once there is a call to lie about.
            let (hello, rest) = bytes.split_at(bytes.len().min(HELLO_BYTES));
            liar.say(hello);
            let asked = client
                .start_timeout(&text("question"), DEADLINE)
                .inspect(|_| liar.say(rest))
                .and_then(|call| call.wait());
            let told = match &asked {
                Err(CallError::PeerMisbehaved { progress, .. }) => {
                    *progress == Progress::Unknown || *progress == Progress::NotStarted
                }
                Err(CallError::Failed(error)) => error.kind() == switchboard::ErrorKind::Mismatch,
                _ => false,
            };
            assert!(told, "{scheme}: {lie}: {asked:?}");
            liar.hear_the_end();
        }
    }
}

/// The second reply to a call: the first one is the caller's, and the liar is found out by the next look.
#[test]
fn a_second_reply_is_found_out() {
    for (more, scheme) in [(REPLY, "unix"), (DONE, "unix"), (PART, "unix"), (FAIL, "tcp")] {
        let meeting = Meeting::of(scheme);
        let listener = listen(&meeting);
        let client = client_at(meeting.address());
        let liar = accept(&meeting, &listener);
        liar.say(&met(RECEIVER, 100, &[]));
        let asked = client.start_timeout(&text("question"), DEADLINE).expect("a call");
        liar.say(&[frame(STARTED, 1, b""), frame(REPLY, 1, b"answer")].concat());
        assert_eq!(asked.wait().expect("a reply").0, "answer");
        let asked = client.start_timeout(&text("another"), DEADLINE).expect("a call");
        liar.say(&frame(more, 1, &[2, 0, 0, 0]));
        let since = Instant::now();
        let second = asked.wait();
        let Err(CallError::PeerMisbehaved { problem, .. }) = &second else { panic!("{second:?}") };
        assert!(problem.contains("call 1"), "{problem}");
        assert!(since.elapsed() < DEADLINE / 2);
        liar.hear_the_end();
    }
}
