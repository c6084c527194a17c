//! Clients that take little: what a server says of their calls fits, and nobody else waits for that.

use std::time::Duration;

use switchboard::{CallError, Client, Code, Progress, RecvError, ReplyError, Server, Status, Text};
use switchboard_testkit::DEADLINE;

use super::worker::Words;
use super::{client_at, limited, meeting_of, text};
use crate::conformance::each_service;

const LITTLE_BYTES: usize = 10;

/// Goes on with the server until a client has met it.
fn until_met(server: &Server<Text, Text>) {
    while server.peers() == 0 {
        server.drive().expect("driven");
    }
}

/// The request of the next call is answered.
fn answer_next(server: &Server<Text, Text>, with: &str) -> Result<(), ReplyError> {
    let call = server.recv_call_timeout(DEADLINE).expect("a call");
    call.reply(&text(with))
}

fn in_thread<R: Send + 'static>(
    address: String,
    act: impl FnOnce(&Client<Text, Text>) -> R + Send + 'static,
) -> std::thread::JoinHandle<(R, Client<Text, Text>)> {
    std::thread::spawn(move || {
        let client = client_at(&address);
        (act(&client), client)
    })
}

#[test]
fn who_takes_little_is_told_of_failures() {
    each_service(|meeting| {
        let words = Words::open(meeting.address()).expect("a service");
        let server = words.server().expect("a server");
        let client = in_thread(limited(meeting, LITTLE_BYTES), |client| {
            [(); 4].map(|()| client.call_timeout(&text("x"), DEADLINE))
        });
        let call = server.recv_call_timeout(DEADLINE).expect("a call");
        let long = Status::new(Code::NotFound, "n".repeat(500));
        call.fail(&long).expect("told");
        for len in [500, LITTLE_BYTES + 1] {
            let refused = answer_next(&server, &"r".repeat(len));
            assert!(
                matches!(&refused, Err(ReplyError::TooLarge { len_bytes, limit_bytes, .. })
                    if (*len_bytes, *limit_bytes) == (len, LITTLE_BYTES)),
                "{refused:?}"
            );
        }
        answer_next(&server, &"r".repeat(LITTLE_BYTES)).expect("replied");
        let (told, _) = client.join().expect("a client");
        let [failed, long, longer, fitting] = told;
        let expected = [Code::NotFound, Code::Internal, Code::Internal];
        for (told, code) in [failed, long, longer].into_iter().zip(expected) {
            let Err(CallError::Status(status)) = told else { panic!("{told:?}") };
            assert_eq!(status.code, code, "{status}");
        }
        assert_eq!(fitting.expect("a reply"), text(&"r".repeat(LITTLE_BYTES)));
        drop(server);
    });
}

#[test]
fn a_late_call_of_who_takes_little_holds_nobody_up() {
    each_service(|meeting| {
        let words = Words::open(meeting.address()).expect("a service");
        let server = words.server().expect("a server");
        let late = in_thread(limited(meeting, LITTLE_BYTES), |client| {
            client.wait_for_peers(1, Some(DEADLINE)).expect("a server");
            client.call_timeout(&text("x"), Duration::from_millis(20))
        });
        until_met(&server);
        let (told, late) = late.join().expect("a client");
        assert!(matches!(told, Err(CallError::TimedOut { .. })), "{told:?}");
        // It was given up, and nothing of it was begun.
        // Over packets a look reads one of them.
        (0..10).for_each(|_| server.drive().expect("driven"));
        let empty = server.try_recv_call().map(|call| call.request);
        assert!(matches!(empty, Err(RecvError::Empty)), "{empty:?}");
        let next = in_thread(meeting.address().to_owned(), |client| {
            client.call_timeout(&text("y"), DEADLINE)
        });
        answer_next(&server, "z").expect("replied");
        let (reply, _) = next.join().expect("a client");
        assert_eq!(reply.expect("a reply"), text("z"));
        drop((late, server));
    });
}

#[test]
fn a_call_that_comes_back_and_fits_no_other_server_is_told_of() {
    let meeting = meeting_of("shm");
    let server = |address: &str| Words::open(address).and_then(|words| words.server());
    let large = server(meeting.address()).expect("a server");
    let small = server(&limited(&meeting, LITTLE_BYTES)).expect("a server");
    let client = in_thread(meeting.address().to_owned(), |client| {
        client.wait_for_peers(2, Some(DEADLINE)).expect("both servers");
        let long = client.call_timeout(&text(&"x".repeat(1000)), DEADLINE);
        (long, client.call_timeout(&text("y"), DEADLINE))
    });
    until_met(&small);
    while !large.has_call() {
        large.drive().expect("driven");
    }
    drop(large);
    answer_next(&small, "z").expect("replied");
    let ((long, short), _) = client.join().expect("a client");
    let not_started =
        matches!(long, Err(CallError::ServerGone { progress: Progress::NotStarted, .. }));
    assert!(not_started, "{long:?}");
    assert_eq!(short.expect("a reply"), text("z"));
}
