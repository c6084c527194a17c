//! Several servers, many clients.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard::{CallError, Progress};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::Child;

use super::{call, client_at, start_worker, text};
use crate::conformance::{Meeting, each_service};

/// The addresses of a client and of each of several servers: where one side binds, it is the client.
pub(super) fn several(meeting: &Meeting) -> (String, String) {
    let address = meeting.address();
    match meeting.row.options.contains(&"bind") {
        true => (format!("{address}?bind"), format!("{address}?connect")),
        false => (address.to_owned(), address.to_owned()),
    }
}

#[test]
fn calls_go_to_the_server_with_least_to_do() {
    each_service(|meeting| {
        let (clients, servers) = several(meeting);
        let client = client_at(&clients);
        let _workers = [start_worker(&servers, 64), start_worker(&servers, 64)];
        client.wait_for_peers(2, Some(DEADLINE)).expect("two servers");
        let mut done: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..25 {
            let pending: Vec<_> =
                (0..16).map(|_| client.start(&text("pid")).expect("a call")).collect();
            for pending in pending {
                *done.entry(pending.wait().expect("a reply").0).or_default() += 1;
            }
        }
        assert_eq!(done.values().sum::<u32>(), 400);
        assert!(done.len() == 2 && done.values().all(|n| *n >= 100), "{done:?}");
    });
}

/// Clients that call once, and go, come to each server.
#[test]
fn clients_that_call_once_go_to_all_servers() {
    let meeting = super::meeting_of("shm");
    let _workers = [(); 3].map(|()| start_worker(meeting.address(), 64));
    let mut done: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..60 {
        let client = client_at(meeting.address());
        *done.entry(call(&client, "pid").expect("a reply")).or_default() += 1;
    }
    // By chance alone one is left out once in ten thousand million times.
    assert_eq!(done.len(), 3, "{done:?}");
}

/// Of two servers that are busy one dies: what it worked on is unknown, what waited for it goes to the
/// other.
#[test]
fn what_a_dead_server_had_not_begun_goes_to_another() {
    each_service(|meeting| {
        if meeting.row.capabilities.crosses_hosts {
            // A broken connection leaves a doubt, and what may have begun goes nowhere.
            return;
        }
        let (clients, servers) = several(meeting);
        let client = client_at(&clients);
        let mut doomed = start_worker(&servers, 64);
        let mut other = start_worker(&servers, 64);
        client.wait_for_peers(2, Some(DEADLINE)).expect("two servers");
        let free = meeting.scratch.join("free");
        let hold = text(&format!("hold {}", free.display()));
        let busy = [client.start(&hold).expect("a call"), client.start(&hold).expect("a call")];
        doomed.expect("holding");
        other.expect("holding");
        let waiting: Vec<_> = (0..6).map(|_| client.start(&text("pid")).expect("a call")).collect();
        doomed.kill();
        // The client notices when it moves, and the other is free from then on.
        let mut first = client.start(&text("pid")).expect("a call");
        let not_yet = first.wait_timeout(Duration::from_millis(20));
        assert!(matches!(not_yet, Err(CallError::TimedOut { .. })), "{not_yet:?}");
        std::fs::write(&free, "").expect("a file");
        let survivor = other.id().to_string();
        for pending in waiting {
            assert_eq!(pending.wait().expect("a reply").0, survivor);
        }
        assert_eq!(first.wait().expect("a reply").0, survivor);
        let (mut held, mut unknown) = (0, 0);
        for pending in busy {
            match pending.wait() {
                Ok(reply) => held += u32::from(reply.0 == "held"),
                Err(CallError::ServerGone { progress: Progress::Unknown, .. }) => unknown += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((held, unknown), (1, 1));
        assert_eq!(call(&client, "pid").expect("a reply"), survivor);
    });
}

/// A hundred clients of one server, and under `prove torture` a thousand: each gets its share.
fn each_gets_its_share(scheme: &str) {
    let long = std::env::var_os("SWITCHBOARD_TORTURE_SECONDS").is_some();
    let (processes, each) = if long { (20, 50) } else { (4, 25) };
    let meeting = super::meeting_of(scheme);
    let _worker = start_worker(meeting.address(), 64);
    let mut crowds: Vec<Child> = (0..processes)
        .map(|_| {
            let millis = if long { "10000" } else { "1500" };
            Child::role("service-crowd", &[meeting.address(), &each.to_string(), millis])
        })
        .collect();
    for crowd in &mut crowds {
        assert_eq!(crowd.line_within(DEADLINE * 2).as_deref(), Some("ready"));
    }
    for crowd in &mut crowds {
        crowd.tell("go");
    }
    let mut made: Vec<u64> = Vec::new();
    for crowd in &mut crowds {
        for _ in 0..each {
            let line = crowd.line_within(DEADLINE * 2).expect("a line");
            made.push(line.strip_prefix("made ").and_then(|n| n.parse().ok()).expect("a count"));
        }
    }
    made.sort_unstable();
    let (least, most) = (made[0], made[made.len() - 1]);
    let sum: u64 = made.iter().sum();
    switchboard_testkit::skip::say(&format!(
        "{scheme}: {} clients made {sum} calls; the least {least}, the most {most}",
        made.len()
    ));
    assert!(least > 0, "somebody got nothing of {sum}");
    // What the scheduler gives to the threads of few processors is not the server's doing: in a short
    // time, next to other tests, that is more than half of the difference.
    let (low, high) = (made[made.len() / 20], made[made.len() - 1 - made.len() / 20]);
    let times = if long { 2 } else { 5 };
    assert!(high <= low * times + 20, "{low} and {high} of {sum} calls");
}

#[test]
fn torture_of_a_server_by_many_clients_each_of_whom_gets_its_share() {
    each_gets_its_share("unix");
}

#[test]
fn torture_of_a_server_over_shm_by_many_clients_each_of_whom_gets_its_share() {
    each_gets_its_share("shm");
}
