//! Servers that are killed at any moment, while calls are under way: each call ends with its reply, or with an
//! honest word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use switchboard::{CallError, Options, Progress};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{Child, report};

use super::balance::several;
use super::worker::Words;
use super::{client_at, text};
use crate::conformance::contents::Random;
use crate::conformance::{death, each_service};

/// Role: writes each request down before it answers it. Arguments: the address, the file.
pub(crate) fn ledger(arguments: &[String]) {
    let words = Words::open_with(&arguments[0], Options::default()).expect("a service");
    let server = words.server().expect("a server");
    let mut ledger = OpenOptions::new().append(true).open(&arguments[1]).expect("a file");
    report("open");
    let _ = server.serve(|request| {
        // One write, so that lines of several servers stay whole.
        ledger.write_all(format!("{}\n", request.0).as_bytes()).expect("written");
        Ok(request)
    });
}

#[test]
fn whenever_servers_are_killed_each_call_ends_honestly() {
    each_service(|meeting| {
        let seed = death::Seed(Random::seed());
        let mut random = Random::new(seed.0);
        let file = meeting.scratch.join("ledger");
        std::fs::write(&file, "").expect("a file");
        let path = file.to_str().expect("a path").to_owned();
        let (clients, servers) = several(meeting);
        let client = client_at(&clients);
        let start = || Child::role("service-ledger", &[servers.as_str(), path.as_str()]);
        let mut workers = vec![start(), start()];
        let mut ends: BTreeMap<u64, Result<(), Progress>> = BTreeMap::new();
        let mut number = 0;
        let mut kills = 0;
        let begun = Instant::now();
        let mut next_kill = Instant::now() + Duration::from_millis(200);
        // For a while, and on a slow machine until there was something to see.
        while begun.elapsed() < Duration::from_secs(2)
            || (kills <= 5 || ends.len() <= 40) && begun.elapsed() < DEADLINE
        {
            let calls: Vec<_> = (0..1 + random.below(6))
                .map(|_| {
                    number += 1;
                    (number, client.start_timeout(&text(&number.to_string()), DEADLINE))
                })
                .collect();
            if Instant::now() >= next_kill {
                let at = random.below(2) as usize;
                workers[at].kill();
                workers[at] = start();
                kills += 1;
                next_kill = Instant::now() + Duration::from_millis(20 + random.below(60));
            }
            for (number, call) in calls {
                let end = match call.and_then(|call| call.wait()) {
                    Ok(reply) => {
                        assert_eq!(reply.0, number.to_string());
                        Ok(())
                    }
                    Err(CallError::ServerGone { progress, .. }) => Err(progress),
                    Err(error) => panic!("call {number}: {error:?}"),
                };
                ends.insert(number, end);
            }
        }
        drop(workers);
        let ledger = std::fs::read_to_string(&file).expect("the ledger");
        let mut done = BTreeSet::new();
        for line in ledger.lines() {
            let number: u64 = line.parse().expect("a number");
            assert!(done.insert(number), "call {number} was begun twice");
        }
        for (number, end) in &ends {
            match end {
                Ok(()) => assert!(done.contains(number), "call {number} was answered, not done"),
                Err(Progress::NotStarted) => {
                    assert!(!done.contains(number), "call {number} was begun");
                }
                Err(Progress::Unknown) => {}
            }
        }
        let replies = ends.values().filter(|end| end.is_ok()).count();
        assert!(replies > 20 && kills > 5, "{replies} replies, {kills} kills");
    });
}
