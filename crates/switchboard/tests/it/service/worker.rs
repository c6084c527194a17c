//! Child processes of the tests of services: a server that does what its requests say, and a client that
//! does what it is told.

use std::path::Path;
use std::time::{Duration, Instant};

use switchboard::{CallState, CallTicket, Code, Options, RecvError, Server, Service, Status, Text};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{instruction, report};

pub(super) type Words = Service<Text, Text>;

/// Role: serves for ever. Arguments: the address, how many calls of each client it takes ahead.
pub(crate) fn worker(arguments: &[String]) {
    let prefetch = arguments[1].parse().expect("a number");
    let options = Options::default().prefetch(prefetch);
    let server = Words::open_with(&arguments[0], options).and_then(|words| words.server());
    let server = server.expect("a server");
    report("open");
    let mut later = Vec::new();
    loop {
        match server.recv_call().map(switchboard::Call::into_parts) {
            Ok((request, ticket)) => {
                if request.0 == "leave" {
                    server.reply_to(ticket, &Text("left".to_owned())).expect("replied");
                    server.close().expect("closed");
                    return report("closed");
                }
                work(&server, &request.0, ticket, &mut later);
            }
            Err(error @ (RecvError::PeerMisbehaved { .. } | RecvError::PeerRefused { .. })) => {
                report(format!("error {error:?}"));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn work(
    server: &Server<Text, Text>,
    request: &str,
    ticket: CallTicket,
    later: &mut Vec<CallTicket>,
) {
    let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
    let number = || rest.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0_usize);
    let answered = match verb {
        "echo" => server.reply_to(ticket, &Text(rest.to_owned())),
        "pid" => server.reply_to(ticket, &Text(std::process::id().to_string())),
        "size" => server.reply_to(ticket, &Text("x".repeat(number()))),
        "fail" => {
            let (_, words) = rest.split_once(' ').unwrap_or_default();
            let code = Code::from_number(u16::try_from(number()).unwrap_or(0));
            server.fail_to(ticket, &Status::new(code, words).with_details(*b"why"))
        }
        "parts" | "last" => {
            for part in 0..number() {
                if let Err(error) = server.send_to(ticket, &Text(part.to_string()), None) {
                    report(format!("stopped {part} {error:?}"));
                    return;
                }
            }
            match verb {
                "last" => server.reply_to(ticket, &Text("last".to_owned())),
                _ => server.finish_to(ticket),
            }
        }
        "later" => return later.push(ticket),
        "release" => {
            for ticket in later.drain(..).rev() {
                let _ = server.reply_to(ticket, &Text("late".to_owned()));
            }
            server.reply_to(ticket, &Text("released".to_owned()))
        }
        "hold" => {
            report("holding");
            let since = Instant::now();
            loop {
                let state = server.state_of(ticket);
                if state != CallState::Wanted {
                    report(format!("held {state:?}"));
                    if state == CallState::DeadlinePassed {
                        // Its client may be a moment behind, and would take the answer.
                        return;
                    }
                    return drop(server.reply_to(ticket, &Text("in vain".to_owned())));
                }
                if !rest.is_empty() && Path::new(rest).exists() {
                    break server.reply_to(ticket, &Text("held".to_owned()));
                }
                assert!(since.elapsed() < DEADLINE, "held for ever");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        _ => server.fail_to(ticket, &Status::new(Code::Unimplemented, verb)),
    };
    if let Err(error) = answered {
        report(format!("unanswered {error:?}"));
    }
}

/// Role: calls what it is told, and says what came of it. Argument: the address.
pub(crate) fn client(arguments: &[String]) {
    let client = Words::open(&arguments[0]).and_then(|words| words.client()).expect("a client");
    report("open");
    while let Some(line) = instruction() {
        let reply = client.call_timeout(&Text(line), DEADLINE);
        report(format!("{:?}", reply.map(|reply| reply.0)));
    }
}

/// Role: so many clients, a thread each, that keep a few calls under way for a while. Arguments: the
/// address, how many, for how many milliseconds. Says how many calls each of them made.
pub(crate) fn crowd(arguments: &[String]) {
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let (count, millis) = (number(1), number(2));
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let client = Words::open(&arguments[0]).and_then(|words| words.client());
            let client = client.expect("a client");
            client.call_timeout(&Text("echo ready".into()), DEADLINE * 2).expect("a first reply");
            client
        })
        .collect();
    report("ready");
    let _ = instruction();
    let until = Instant::now() + Duration::from_millis(millis);
    let threads: Vec<_> = clients
        .into_iter()
        .map(|client| {
            std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
                let mut calls = 0_u64;
                while Instant::now() < until {
                    let text = Text("echo again and again".into());
                    let two = [client.start(&text), client.start(&text)];
                    for pending in two {
                        let reply = pending.and_then(|mut call| call.wait_timeout(DEADLINE));
                        assert_eq!(reply.expect("a reply").0, "again and again");
                        calls += 1;
                    }
                }
                calls
            })
        })
        .collect();
    for thread in threads {
        let calls = thread.expect("a thread").join().expect("a client");
        report(format!("made {calls}"));
    }
}
