//! Services, over every row of the table that carries them, between processes.

mod balance;
mod deaths;
mod farewell;
mod liars;
mod little;
pub(crate) mod torture;
mod turns;
mod worker;

use std::time::{Duration, Instant};

use switchboard::transport::TABLE;
use switchboard::{
    CallError, CallState, Client, Code, Options, Progress, RecvError, Service, Text,
};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::Child;

use crate::conformance::{Meeting, each_service};
pub(crate) use deaths::ledger;
pub(crate) use turns::{crowded, starter};
use worker::Words;
pub(crate) use worker::{client, crowd, worker};

/// A server process, open.
fn start_worker(address: &str, prefetch: u32) -> Child {
    let mut child = Child::role("service-worker", &[address, &prefetch.to_string()]);
    child.expect("open");
    child
}

fn client_at(address: &str) -> Client<Text, Text> {
    Words::open(address).and_then(|words| words.client()).expect("a client")
}

fn call(client: &Client<Text, Text>, request: &str) -> Result<String, CallError> {
    client.call_timeout(&text(request), DEADLINE).map(|reply| reply.0)
}

fn text(words: &str) -> Text {
    Text(words.to_owned())
}

#[test]
fn each_request_gets_its_reply() {
    each_service(|meeting| {
        // Either side may start first.
        let client = client_at(meeting.address());
        assert!(matches!(client.try_start(&text("pid")), Err(CallError::Full)));
        let worker = start_worker(meeting.address(), 64);
        assert_eq!(call(&client, "pid").expect("a reply"), worker.id().to_string());
        for n in 0..500 {
            let word = format!("number {n}");
            assert_eq!(call(&client, &format!("echo {word}")).expect("a reply"), word);
        }
        assert_eq!(call(&client, "echo ").expect("a reply"), "");
        for len in [1, 31, 32, 33, 4096, 65_536, 1 << 20, 5_000_000] {
            assert_eq!(call(&client, &format!("size {len}")).expect("a reply").len(), len);
            let long = "y".repeat(len);
            assert_eq!(call(&client, &format!("echo {long}")).expect("a reply"), long);
        }
    });
}

#[test]
fn calls_under_way_may_end_in_any_order() {
    each_service(|meeting| {
        let _worker = start_worker(meeting.address(), 64);
        let client = client_at(meeting.address());
        let start = |words: &str| client.start(&text(words)).expect("a call");
        let (mut first, second) = (start("later"), start("later"));
        assert_eq!(call(&client, "echo between").expect("a reply"), "between");
        assert!(matches!(first.try_wait(), Err(CallError::Full)));
        let wait = first.wait_timeout(Duration::from_millis(1));
        assert!(matches!(wait, Err(CallError::TimedOut { .. })), "{wait:?}");
        let release = start("release");
        assert_eq!(second.wait().expect("a reply").0, "late");
        assert_eq!(release.wait().expect("a reply").0, "released");
        assert_eq!(first.wait().expect("a reply").0, "late");
        // More than the server takes ahead: the others wait here.
        let many: Vec<_> = (0..64).map(|n| start(&format!("echo {n}"))).collect();
        let more = client.start(&text("echo more")).expect("a call");
        for (n, pending) in many.into_iter().enumerate().rev() {
            assert_eq!(pending.wait().expect("a reply").0, n.to_string());
        }
        assert_eq!(more.wait().expect("a reply").0, "more");
    });
}

/// A server with an event loop of its own sleeps on its descriptor, which does not tell again of what was read.
#[test]
fn a_call_that_was_read_by_the_way_is_known() {
    each_service(|meeting| {
        let server = Words::open(meeting.address()).and_then(|words| words.server());
        let server = server.expect("a server");
        let [mut first, mut second] = [0, 1].map(|_| {
            let mut child = Child::role("service-client", &[meeting.address()]);
            child.expect("open");
            child
        });
        first.tell("one");
        let call = server.recv_call_timeout(DEADLINE).expect("a call");
        assert!(!server.has_call());
        let (_, ticket) = call.into_parts();
        second.tell("two");
        let until = Instant::now() + DEADLINE;
        while !server.has_call() {
            assert!(Instant::now() < until, "it was not read");
            server.drive().expect("nothing to report");
            assert_eq!(server.state_of(ticket), CallState::Wanted);
        }
        let (words, other) = server.try_recv_call().expect("a call").into_parts();
        assert_eq!((words.0.as_str(), server.has_call()), ("two", false));
        server.reply_to(ticket, &text("1")).expect("a reply");
        server.reply_to(other, &text("2")).expect("a reply");
        first.expect("Ok(\"1\")");
        second.expect("Ok(\"2\")");
    });
}

#[test]
fn a_servers_error_arrives_as_it_is() {
    each_service(|meeting| {
        let _worker = start_worker(meeting.address(), 64);
        let client = client_at(meeting.address());
        for number in 1..=16 {
            let error = call(&client, &format!("fail {number} no such \u{1b}[2J row"));
            let Err(CallError::Status(status)) = error else { panic!("{error:?}") };
            assert_eq!(status.code as u16, number);
            assert_eq!(status.message, "no such \u{fffd}[2J row");
            assert_eq!(status.details, b"why");
        }
        let long = call(&client, &format!("fail 5 {}", "long ".repeat(1000)));
        let Err(CallError::Status(status)) = long else { panic!("{long:?}") };
        assert_eq!((status.code, status.message.len()), (Code::NotFound, 1024));
        let unknown = call(&client, "dance");
        assert!(matches!(unknown, Err(CallError::Status(s)) if s.code == Code::Unimplemented));
        assert_eq!(call(&client, "echo on").expect("a reply"), "on");
    });
}

#[test]
fn replies_come_in_parts_as_fast_as_they_are_taken() {
    each_service(|meeting| {
        let mut worker = start_worker(meeting.address(), 64);
        let client = client_at(meeting.address());
        for (request, count) in [("parts 0", 0), ("parts 1", 1), ("parts 1000", 1000)] {
            let replies = client.call_streaming(&text(request)).expect("a call");
            let parts: Vec<String> = replies.map(|part| part.expect("a part").0).collect();
            let expected: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            assert_eq!(parts, expected);
        }
        let replies = client.call_streaming(&text("last 2")).expect("a call");
        let parts: Vec<String> = replies.map(|part| part.expect("a part").0).collect();
        assert_eq!(parts, ["0", "1", "last"]);
        // One reply is a stream of one part; several are no reply.
        let mut one = client.call_streaming(&text("echo alone")).expect("a call");
        assert_eq!(one.next().expect("a part").expect("a part").0, "alone");
        assert!(one.next().is_none());
        let parts = call(&client, "parts 2");
        assert!(matches!(parts, Err(CallError::BadReply { .. })), "{parts:?}");
        let parts = call(&client, "parts 0");
        assert!(matches!(parts, Err(CallError::BadReply { .. })), "{parts:?}");
        // A client that stops taking parts stops the server; one that goes away ends its work.
        let mut stopped = client.call_streaming(&text("parts 1000000")).expect("a call");
        assert_eq!(stopped.next().expect("a part").expect("a part").0, "0");
        drop(stopped);
        let said = worker.line().expect("a line");
        let sent = said.strip_prefix("stopped ").and_then(|rest| rest.split_once(' '));
        let (sent, why) = sent.unwrap_or_else(|| panic!("{said}"));
        assert_eq!(why, "Cancelled");
        assert!(sent.parse::<u32>().expect("a number") <= 65, "{sent} parts ahead");
        assert_eq!(call(&client, "echo on").expect("a reply"), "on");
    });
}

#[test]
fn deadlines_and_cancellation_reach_the_server() {
    each_service(|meeting| {
        let mut worker = start_worker(meeting.address(), 64);
        let client = client_at(meeting.address());
        let (since, time) = (Instant::now(), Duration::from_secs(10));
        let late = client.start_timeout(&text("hold"), time).expect("a call");
        worker.expect("holding");
        let late = late.wait();
        let Err(CallError::TimedOut { progress: Progress::Unknown }) = late else {
            panic!("{late:?}")
        };
        let took = since.elapsed();
        assert!(took >= time && took < time + DEADLINE / 2, "{took:?}");
        let held = worker.line().expect("a line");
        assert!(held == "held DeadlinePassed" || held == "held Cancelled", "{held}");
        // A call that is dropped is cancelled at once.
        let pending = client.start(&text("hold")).expect("a call");
        worker.expect("holding");
        drop(pending);
        while worker.line().expect("a line") != "held Cancelled" {}
        // What is cancelled, or over, before it begins never begins.
        let busy = client.start(&text("hold")).expect("a call");
        while worker.line().expect("a line") != "holding" {}
        drop(client.start(&text("hold")).expect("a call"));
        let never = client.call_timeout(&text("hold"), Duration::from_millis(20));
        assert!(matches!(never, Err(CallError::TimedOut { .. })), "{never:?}");
        drop(busy);
        while worker.line().expect("a line") != "held Cancelled" {}
        assert_eq!(call(&client, "echo on").expect("a reply"), "on");
        worker.kill();
        assert!(!worker.remaining_lines().iter().any(|line| line == "holding"));
    });
}

#[test]
fn nobody_there_is_no_call() {
    each_service(|meeting| {
        let client = client_at(meeting.address());
        let none = client.call_timeout(&text("pid"), Duration::from_millis(30));
        let Err(CallError::TimedOut { progress: Progress::NotStarted }) = none else {
            panic!("{none:?}")
        };
    });
}

/// What is told of calls whose server dies: those that it worked on, and those that it had not begun.
#[test]
fn a_servers_death_is_told_with_what_is_known() {
    each_service(|meeting| {
        let mut worker = start_worker(meeting.address(), 64);
        let client = client_at(meeting.address());
        let busy = client.start(&text("hold")).expect("a call");
        worker.expect("holding");
        let waiting = client.start(&text("echo never")).expect("a call");
        let since = Instant::now();
        worker.kill();
        let broken = waiting.wait();
        // Over TCP a reset may have swallowed that it began.
        let doubtful = meeting.row.capabilities.crosses_hosts;
        match broken {
            Err(CallError::ServerGone { progress: Progress::NotStarted, .. }) => {}
            Err(CallError::ServerGone { progress: Progress::Unknown, .. }) if doubtful => {}
            other => panic!("{other:?}"),
        }
        let Err(CallError::ServerGone { peer, progress: Progress::Unknown }) = busy.wait() else {
            panic!("it was begun")
        };
        assert!(since.elapsed() < DEADLINE / 2);
        if meeting.row.capabilities.peer_identity {
            assert!(peer.contains(&worker.id().to_string()), "{peer}");
        }
        // The next server answers the next call.
        let worker = start_worker(meeting.address(), 64);
        assert_eq!(call(&client, "pid").expect("a reply"), worker.id().to_string());
    });
}

#[test]
fn a_reply_that_was_sent_before_its_server_died_counts() {
    each_service(|meeting| {
        let server = Words::open(meeting.address()).and_then(|words| words.server()).expect("one");
        let mut child = Child::role("service-client", &[meeting.address()]);
        child.expect("open");
        child.tell("question");
        let asked = server.recv_call_timeout(DEADLINE).expect("a call");
        child.signal(rustix::process::Signal::STOP);
        asked.reply(&text("answer")).expect("sent");
        drop(server);
        child.signal(rustix::process::Signal::CONT);
        child.expect("Ok(\"answer\")");
    });
}

#[test]
fn a_clients_death_is_told_to_who_works_for_it() {
    each_service(|meeting| {
        let server = Words::open(meeting.address()).and_then(|words| words.server()).expect("one");
        let mut doomed = Child::role("service-client", &[meeting.address()]);
        doomed.expect("open");
        doomed.tell("question");
        let mut asked = server.recv_call_timeout(DEADLINE).expect("a call");
        assert_eq!(asked.state(), CallState::Wanted);
        doomed.kill();
        let since = Instant::now();
        while asked.state() != CallState::ClientGone {
            assert!(since.elapsed() < DEADLINE, "{:?}", asked.state());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(asked.is_cancelled());
        assert!(asked.send(&text("part")).is_err());
        assert!(asked.reply(&text("answer")).is_err());
        // Others are served.
        let mut other = Child::role("service-client", &[meeting.address()]);
        other.expect("open");
        other.tell("another question");
        let asked = server.recv_call_timeout(DEADLINE).expect("a call");
        assert_eq!(asked.request.0, "another question");
        asked.reply(&text("another answer")).expect("sent");
        other.expect("Ok(\"another answer\")");
    });
}

#[test]
fn a_call_that_is_dropped_unanswered_fails() {
    each_service(|meeting| {
        let server = Words::open(meeting.address()).and_then(|words| words.server()).expect("one");
        let mut child = Child::role("service-client", &[meeting.address()]);
        child.expect("open");
        child.tell("question");
        drop(server.recv_call_timeout(DEADLINE).expect("a call"));
        let said = child.line().expect("a line");
        assert!(said.contains("Internal") && said.contains("unanswered"), "{said}");
    });
}

#[test]
fn a_server_that_closes_gives_back_what_it_did_not_begin() {
    each_service(|meeting| {
        let mut worker = start_worker(meeting.address(), 64);
        let client = client_at(meeting.address());
        let free = meeting.scratch.join("free");
        let start = |words: &str| client.start(&text(words)).expect("a call");
        let busy = start(&format!("hold {}", free.display()));
        worker.expect("holding");
        let (leave, never) = (start("leave"), start("echo never"));
        std::fs::write(&free, "").expect("a file");
        assert_eq!(busy.wait().expect("a reply").0, "held");
        assert_eq!(leave.wait().expect("a reply").0, "left");
        let never = never.wait();
        let not_started = Progress::NotStarted;
        assert!(
            matches!(&never, Err(CallError::ServerGone { progress, .. }) if *progress == not_started),
            "{never:?}"
        );
        worker.expect("closed");
        let next = start_worker(meeting.address(), 64);
        assert_eq!(call(&client, "pid").expect("a reply"), next.id().to_string());
    });
}

#[test]
fn what_does_not_fit_is_an_error_that_names_both() {
    each_service(|meeting| {
        let numbers = Service::<u64, u32>::open(meeting.address()).expect("a service");
        let server = numbers.server().expect("a server");
        let address = meeting.address().to_owned();
        let client = std::thread::spawn(move || {
            let words = Service::<u32, u32>::open(&address).and_then(|words| words.client());
            words.expect("a client").call_timeout(&1, DEADLINE)
        });
        let refused = server.recv_call_timeout(DEADLINE).map(|call| call.request);
        let Err(RecvError::PeerRefused { problem, .. }) = refused else { panic!("{refused:?}") };
        assert!(problem.contains("u64") && problem.contains("u32"), "{problem}");
        drop(server);
        let told = client.join().expect("a client").expect_err("no reply").to_string();
        assert!(told.contains("does not fit") || told.contains("turned"), "{told}");
    });
}

/// The address, where messages of so many bytes are taken.
fn limited(meeting: &Meeting, most_bytes: usize) -> String {
    let separator = if meeting.address().contains('?') { '&' } else { '?' };
    let small = format!(
        "{}{separator}max-message={most_bytes}",
        meeting.address().replace("?max-message=16MiB", "")
    );
    small.replacen("&max", "?max", usize::from(!small.contains('?')))
}

#[test]
fn too_long_is_said_before_it_is_sent() {
    each_service(|meeting| {
        let small = limited(meeting, 1000);
        let _worker = start_worker(&small, 64);
        let client = client_at(meeting.address());
        assert_eq!(call(&client, "echo on").expect("a reply"), "on");
        let long = call(&client, &"x".repeat(2000));
        assert!(matches!(long, Err(CallError::TooLarge { limit_bytes: 1000, .. })), "{long:?}");
        // A reply that is too long fails, rather than never come.
        let long = call(&client, "size 2000");
        let Err(CallError::Status(status)) = long else { panic!("{long:?}") };
        assert!(status.code == Code::Internal && status.message.contains("2000 bytes"), "{status}");
        assert_eq!(call(&client, "echo on").expect("a reply"), "on");
    });
}

#[test]
fn other_rows_say_what_carries_a_service() {
    for row in TABLE.iter().filter(|row| !row.patterns().contains(&"service")) {
        let error = Words::at(row.example.parse().expect("an address"), Options::default())
            .client()
            .expect_err("it carries none");
        let advice = error.advice().unwrap_or_default();
        assert!(advice.contains("unix") && advice.contains("tcp"), "{}: {advice}", row.scheme);
    }
    let framed = Words::open("unix:/tmp/x?framing=lines").and_then(|words| words.client());
    assert!(framed.expect_err("no link").to_string().contains("a service goes over links"));
}

fn meeting_of(scheme: &str) -> Meeting {
    Meeting::of(scheme)
}
