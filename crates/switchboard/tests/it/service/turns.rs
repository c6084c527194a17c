//! Which call is begun next, and which one is not: a client that floods, a server that is slow, a call that came
//! too late.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use switchboard::{Options, Pending, RecvError, Server, Text};
use switchboard_kernel::io;
use switchboard_kernel::process::set_file_limit;
use switchboard_kernel::unix_socket::{self, Kind};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use super::balance::several;
use super::worker::Words;
use super::{call, client_at, start_worker, text};
use crate::conformance::{Meeting, each_service};

/// Role: a client that starts calls, and waits for them when it is told to. Argument: the address. Instructions:
/// `start COUNT MILLISECONDS WORDS`, with 0 for no deadline; `wait`, which says the end of each.
pub(crate) fn starter(arguments: &[String]) {
    let client = Words::open(&arguments[0]).and_then(|words| words.client()).expect("a client");
    let mut pending: Vec<Pending<'_, Text, Text>> = Vec::new();
    while let Some(line) = instruction() {
        if line == "wait" {
            for call in pending.drain(..) {
                report(format!("{:?}", call.wait().map(|reply| reply.0)));
            }
            continue;
        }
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [_, count, millis, words] = words[..] else { panic!("{line}") };
        let millis: u64 = millis.parse().expect("a number");
        for _ in 0..count.parse().expect("a number") {
            pending.push(match millis {
                0 => client.start(&text(words)).expect("a call"),
                _ => {
                    let time = Duration::from_millis(millis);
                    client.start_timeout(&text(words), time).expect("a call")
                }
            });
        }
        report("started");
    }
}

/// A server in this process, which takes so many calls of a client ahead.
fn server(meeting: &Meeting, prefetch: u32) -> Server<Text, Text> {
    let options = Options::default().prefetch(prefetch);
    Words::open_with(meeting.address(), options).and_then(|words| words.server()).expect("a server")
}

/// A client that was answered once.
fn met(meeting: &Meeting, server: &Server<Text, Text>) -> Child {
    let mut child = Child::role("service-starter", &[meeting.address()]);
    child.tell("start 1 0 hello");
    answer(server, "hello");
    child.expect("started");
    child.tell("wait");
    child.expect("Ok(\"hello\")");
    child
}

/// Takes the next call, which says this, and answers it.
fn answer(server: &Server<Text, Text>, expected: &str) {
    let call = server.recv_call_timeout(DEADLINE).expect("a call");
    assert_eq!(call.request.0, expected);
    call.reply(&text(expected)).expect("a reply");
}

/// One client has all its calls there before another one comes: the server takes turns, after the 16 calls at most
/// that it hands out without a look at the others.
#[test]
fn a_client_that_floods_keeps_no_other_from_being_served() {
    const FLOOD: usize = 64;
    const OTHERS: usize = 8;
    each_service(|meeting| {
        let server = server(meeting, FLOOD as u32);
        // Who was answered last is looked at first.
        let (mut other, mut flood) = (met(meeting, &server), met(meeting, &server));
        flood.tell(&format!("start {FLOOD} 0 flood"));
        flood.expect("started");
        other.tell(&format!("start {OTHERS} 0 other"));
        other.expect("started");
        let mut places = Vec::new();
        for place in 0..FLOOD + OTHERS {
            let call = server.recv_call_timeout(DEADLINE).expect("a call");
            if call.request.0 == "other" {
                places.push(place);
            }
            call.reply(&text("done")).expect("a reply");
        }
        assert_eq!(places.len(), OTHERS);
        assert!(places[0] <= 17, "{places:?}");
        // From then on each is served once a turn.
        assert!(places[OTHERS - 1] <= places[0] + 2 * OTHERS, "{places:?}");
        for (child, count) in [(&mut flood, FLOOD), (&mut other, OTHERS)] {
            child.tell("wait");
            (0..count).for_each(|_| child.expect("Ok(\"done\")"));
        }
    });
}

/// Of two servers one has a call that takes long: no further call goes to it while the other has none.
#[test]
fn a_slow_server_gets_no_call_that_another_can_take() {
    each_service(|meeting| {
        let (clients, servers) = several(meeting);
        let client = client_at(&clients);
        let _workers = [start_worker(&servers, 64), start_worker(&servers, 64)];
        client.wait_for_peers(2, Some(DEADLINE)).expect("two servers");
        // These stay open, and their servers answer others meanwhile: two at the one, one at the other.
        let start = || client.start(&text("later")).expect("a call");
        let open = [start(), start(), start()];
        let least = call(&client, "pid").expect("a reply");
        for n in 0..40 {
            let by = call(&client, "pid").expect("a reply");
            assert_eq!(by, least, "call {n} went to the server that has more to do");
        }
        // Two at each: both are called again.
        let fourth = start();
        let mut by: Vec<String> = (0..4).map(|_| call(&client, "pid").expect("a reply")).collect();
        by.sort_unstable();
        by.dedup();
        assert_eq!(by.len(), 2, "{by:?}");
        drop((open, fourth));
    });
}

/// Its client is stopped, so that nothing but the server's own clock says that nobody waits any more.
#[test]
fn a_call_whose_time_is_over_before_it_begins_is_not_begun() {
    each_service(|meeting| {
        let server = server(meeting, 64);
        let mut client = met(meeting, &server);
        client.tell("start 1 0 first");
        client.expect("started");
        let busy = server.recv_call_timeout(DEADLINE).expect("a call");
        client.tell("start 1 400 late");
        client.expect("started");
        client.tell("start 1 0 patient");
        client.expect("started");
        client.stop();
        // From its arrival here its time is counted.
        let since = Instant::now();
        while !server.has_call() {
            assert!(since.elapsed() < DEADLINE, "it was not read");
            server.drive().expect("nothing to report");
        }
        let read = Instant::now();
        while read.elapsed() <= Duration::from_millis(400) {
            std::thread::sleep(Duration::from_millis(401).saturating_sub(read.elapsed()));
        }
        busy.reply(&text("first")).expect("a reply");
        let next = server.recv_call_timeout(DEADLINE).expect("a call");
        assert_eq!(next.request.0, "patient", "what is too late was begun");
        next.reply(&text("patient")).expect("a reply");
        let none = server.try_recv_call().map(|call| call.request.0);
        assert!(matches!(none, Err(RecvError::Empty)), "{none:?}");
        client.signal(rustix::process::Signal::CONT);
        client.tell("wait");
        client.expect("Ok(\"first\")");
        let late = client.line().expect("a line");
        assert!(late.contains("TimedOut") || late.contains("DeadlineExceeded"), "{late}");
        client.expect("Ok(\"patient\")");
    });
}

/// Connections that an end has at most.
const MOST: usize = 4096;

/// Role: a server, more silent connections than it has room for, and then a client. Argument: a socket's path.
pub(crate) fn crowded(arguments: &[String]) {
    let needed = 3 * MOST as u64;
    if set_file_limit(needed).is_err() {
        return report(format!("may open no {needed} descriptors"));
    }
    let server = Words::open(&format!("unix:{}", arguments[0])).and_then(|words| words.server());
    let server = server.expect("a server");
    let path = unix_socket::Address::Path(arguments[0].clone().into());
    let mut silent = Vec::new();
    while silent.len() < MOST + 100 {
        match unix_socket::connect_to(Kind::Stream, &path, true) {
            Ok(socket) => silent.push(socket),
            // The queue of those that are not accepted yet is full.
            Err(error) => assert_eq!(error.name(), "EAGAIN"),
        }
        if silent.len().is_multiple_of(32) || silent.len() > MOST {
            server.drive().expect("nothing to report");
        }
    }
    let address = format!("unix:{}", arguments[0]);
    let client = std::thread::spawn(move || call(&client_at(&address), "hello"));
    answer(&server, "hello");
    assert_eq!(client.join().expect("a client").expect("a reply"), "hello");
    // Hung up on: not those that came last, but those that were there first.
    let is_over = |socket: &OwnedFd| {
        let mut bytes = [0; 4096];
        loop {
            match io::read(socket, &mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.name() != "EAGAIN",
            }
        }
    };
    let over: Vec<bool> = silent.iter().map(is_over).collect();
    report(format!("first {}, last {}", over[0], over[over.len() - 1]));
}

/// Connections that say nothing make way for one that does.
#[test]
fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let scratch = Scratch::new();
    let path = scratch.join("service").display().to_string();
    let mut child = Child::role("service-crowded", &[path]);
    match child.line_within(DEADLINE * 2).expect("an end").as_str() {
        "first true, last false" => assert!(child.wait().success()),
        short if short.starts_with("may open no") => {
            let test = "service::turns::a_crowd_that_says_nothing_keeps_nobody_out";
            switchboard_testkit::skip::skip(test, short);
        }
        other => panic!("{other}"),
    }
}
