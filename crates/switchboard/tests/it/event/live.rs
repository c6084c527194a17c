//! Events over links and shared memory: every listener is told, and what was not looked at is counted by id.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard::{ErrorKind, Event, Notifier, Options, RecvError, WaitError};
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::Child;

use super::{ask, listening, notifying};
use crate::place::{Place, each_row_that, meets};

fn each_live_row(check: fn(&Place)) {
    each_row_that("event", meets, check);
}

/// Whether all is with the kernel, or in memory, in time.
pub(super) fn all_out(notifier: &mut Notifier) -> Result<(), WaitError> {
    let deadline = Deadline::after(DEADLINE);
    while !notifier.drive()? {
        assert!(!deadline.passed(), "it stays");
        std::thread::yield_now();
    }
    Ok(())
}

/// Waits until so many listeners are there.
pub(super) fn met(notifier: &mut Notifier, wanted: usize) -> String {
    let deadline = Deadline::after(DEADLINE);
    while notifier.peers() != Some(wanted) {
        notifier.drive().expect("driven");
        assert!(!deadline.passed(), "{:?} listeners", notifier.peers());
        std::thread::sleep(Duration::from_millis(1));
    }
    "met".to_owned()
}

/// Takes events until so many of each id came.
fn takes(listener: &mut Child, expected: &[(u64, u64)]) {
    let mut left: Vec<(u64, u64)> = expected.to_vec();
    while !left.is_empty() {
        let said = ask(listener, "take 20000");
        let numbers: Vec<u64> = said
            .strip_prefix("took ")
            .expect(&said)
            .split(' ')
            .map(|n| n.parse().unwrap())
            .collect();
        let at = left.iter().position(|(id, _)| *id == numbers[0]);
        let (_, count) = &mut left[at.unwrap_or_else(|| panic!("{said} of {expected:?}"))];
        *count = count.checked_sub(numbers[1]).unwrap_or_else(|| panic!("{said}: {expected:?}"));
        left.retain(|(_, count)| *count > 0);
    }
    assert_eq!(ask(listener, "take 0"), "TimedOut");
}

#[test]
fn what_was_not_looked_at_is_counted_by_id() {
    each_live_row(|place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        for order in ["notify", "id 7 3", "many 4", "id 18446744073709551615 2", "id 7"] {
            assert_eq!(ask(&mut notifier, order), "done");
        }
        assert_eq!(ask(&mut notifier, "drive"), "Ok(())");
        takes(&mut listener, &[(0, 5), (7, 4), (u64::MAX, 2)]);
        assert_eq!(ask(&mut notifier, "id 7 2"), "done");
        takes(&mut listener, &[(7, 2)]);
    });
}

#[test]
fn one_that_is_not_looked_at_costs_its_notifier_nothing() {
    each_live_row(|place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        assert_eq!(ask(&mut notifier, "notify"), "done");
        takes(&mut listener, &[(0, 1)]);
        // More than any socket holds, one by one, while nobody looks.
        for _ in 0..3000 {
            assert_eq!(ask(&mut notifier, "id 1 1"), "done");
            assert_eq!(ask(&mut notifier, "id 2 5"), "done");
        }
        notifier.tell("drive");
        takes(&mut listener, &[(1, 3000), (2, 15_000)]);
        notifier.expect("Ok(())");
    });
}

#[test]
fn a_sleeping_listener_is_woken_each_time() {
    each_live_row(|place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        for round in 0..200_u64 {
            listener.tell("take 20000");
            assert_eq!(ask(&mut notifier, &format!("id {round}")), "done");
            listener.expect(&format!("took {round} 1"));
        }
        listener.tell("poll 20000");
        assert_eq!(ask(&mut notifier, "notify"), "done");
        assert!(listener.line().is_some_and(|line| line.starts_with("event merged=false")));
    });
}

#[test]
fn several_notifiers_are_counted_together() {
    each_live_row(|place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifiers: Vec<Child> = (0..4).map(|_| notifying(&address)).collect();
        for notifier in &mut notifiers {
            assert_eq!(ask(notifier, "id 9 25"), "done");
            assert_eq!(ask(notifier, "drive"), "Ok(())");
        }
        takes(&mut listener, &[(9, 100)]);
    });
}

#[test]
fn every_listener_is_told() {
    each_live_row(|place| {
        // Over links, the one of whom there is one binds.
        let links = place.row.scheme != "shm";
        let (bind, connect) = if links { ("?bind", "?connect") } else { ("", "") };
        let mut notifier = notifying(&place.with(bind));
        // What nobody was there for is the first one's.
        assert_eq!(ask(&mut notifier, "id 5 2"), "done");
        let address = place.with(connect);
        let mut listeners: Vec<Child> = Vec::new();
        for count in 1..=3 {
            listeners.push(listening(&address).0);
            assert_eq!(ask(&mut notifier, &format!("peers {count}")), "met");
        }
        assert_eq!(ask(&mut notifier, "id 6 7"), "done");
        assert_eq!(ask(&mut notifier, "drive"), "Ok(())");
        takes(&mut listeners[0], &[(5, 2), (6, 7)]);
        takes(&mut listeners[1], &[(6, 7)]);
        listeners[1].kill();
        takes(&mut listeners[2], &[(6, 7)]);
        assert_eq!(ask(&mut notifier, "peers 2"), "met");
        assert_eq!(ask(&mut notifier, "id 6"), "done");
        assert_eq!(ask(&mut notifier, "drive"), "Ok(())");
        takes(&mut listeners[0], &[(6, 1)]);
        takes(&mut listeners[2], &[(6, 1)]);
    });
}

#[test]
fn either_side_starts_first() {
    each_live_row(|place| {
        let mut notifier = notifying(&place.address);
        assert_eq!(ask(&mut notifier, "id 3 4"), "done");
        notifier.tell("drive");
        let (mut listener, _) = listening(&place.address);
        takes(&mut listener, &[(3, 4)]);
        notifier.expect("Ok(())");
    });
}

#[test]
fn what_a_killed_notifier_notified_is_there() {
    each_live_row(|place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        assert_eq!(ask(&mut notifier, "notify"), "done");
        takes(&mut listener, &[(0, 1)]);
        assert_eq!(ask(&mut notifier, "id 8 11"), "done");
        assert_eq!(ask(&mut notifier, "id 9 1"), "done");
        notifier.kill();
        takes(&mut listener, &[(8, 11), (9, 1)]);
        let mut next = notifying(&address);
        assert_eq!(ask(&mut next, "id 8"), "done");
        takes(&mut listener, &[(8, 1)]);
    });
}

#[test]
fn a_listener_that_comes_again_goes_on() {
    each_live_row(|place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        assert_eq!(ask(&mut notifier, "notify"), "done");
        takes(&mut listener, &[(0, 1)]);
        assert_eq!(ask(&mut notifier, "peers 1"), "met");
        listener.kill();
        assert_eq!(ask(&mut notifier, "peers 0"), "met");
        assert_eq!(ask(&mut notifier, "id 4 6"), "done");
        notifier.tell("drive");
        let (mut listener, _) = listening(&place.address);
        takes(&mut listener, &[(4, 6)]);
        notifier.expect("Ok(())");
    });
}

#[test]
fn waits_end_by_their_deadline_and_by_cancel() {
    each_live_row(|place| {
        let (mut listener, _) = listening(&place.address);
        for timeout in [0, 1, 70] {
            assert_eq!(ask(&mut listener, &format!("wait {timeout}")), "TimedOut");
        }
        assert_eq!(ask(&mut listener, "try"), "none");
        let answer = ask(&mut listener, "cancel 30");
        let took = answer.strip_prefix("Interrupted ").expect(&answer).parse::<u64>();
        assert!((30..5000).contains(&took.expect("a number")), "{answer}");
    });
}

#[test]
fn without_waiting_somebody_has_to_be_there() {
    each_live_row(|place| {
        let options = Options::default().wait_for_peer(false);
        let event = Event::open_with(&place.address, options).expect("an event");
        // A connection that is under way is decided a little later.
        let opened = event.notifier().map(|end| end.close(Some(DEADLINE)));
        let refused = match opened {
            Ok(Err(WaitError::Failed(error))) | Err(error) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    });
}

#[test]
fn ids_and_numbers_where_they_are_not_carried() {
    let place = Place::of("sem");
    let mut notifier = Event::open(&place.address).and_then(|event| event.notifier());
    let notifier = notifier.as_mut().expect("a notifier");
    let refused = notifier.notify_id(1).expect_err("no ids");
    assert_eq!(refused.kind(), ErrorKind::NotSupported, "{refused}");
    notifier.notify_many_of(0, 2).expect("counted");
    assert_eq!(notifier.peers(), None);
    each_live_row(|place| {
        let mut notifier = Event::open(&place.address).and_then(|event| event.notifier());
        let refused = notifier.as_mut().expect("a notifier").notify_with(1);
        assert_eq!(refused.expect_err("no numbers").kind(), ErrorKind::NotSupported);
    });
}

#[test]
fn a_queue_there_is_told() {
    each_live_row(|place| {
        let queue = switchboard::Queue::<switchboard::Bytes>::open(&place.address);
        let queue = queue.expect("an address");
        let over = AtomicBool::new(false);
        let receiver = std::thread::scope(|scope| {
            let over = &over;
            let mut receiver = queue.receiver().expect("a receiver");
            let event = Event::open(&place.address).expect("an event");
            let running = scope.spawn(move || {
                let (mut told, mut last) = (false, false);
                while !last {
                    last = over.load(Ordering::Relaxed);
                    let said = receiver.recv_timeout(Duration::from_millis(10));
                    told |= !matches!(said, Err(RecvError::Empty));
                }
                (told, receiver)
            });
            let tell = || {
                let mut notifier = event.notifier()?;
                notifier.notify()?;
                match notifier.close(Some(DEADLINE)) {
                    Err(WaitError::Failed(error)) => Err(error),
                    // It did not say so soon.
                    other => other.map_err(|error| panic!("{error}")),
                }
            };
            let until = Instant::now() + DEADLINE;
            let refused = loop {
                match tell() {
                    Ok(()) => assert!(Instant::now() < until, "nobody says that it is a queue"),
                    Err(refused) => break refused,
                }
            };
            assert_eq!(refused.kind(), ErrorKind::Mismatch, "{refused}");
            over.store(true, Ordering::Relaxed);
            let (told, receiver) = running.join().expect("told");
            // Over `shm:` it is told nothing: the notifier is refused before it meets anybody.
            assert_eq!(told, place.row.scheme != "shm");
            receiver
        });
        drop(receiver);
    });
}

/// The descriptor alone tells.
#[test]
fn the_descriptor_tells() {
    each_live_row(|place| {
        let event = Event::open(&place.address).expect("an event");
        let mut listener = event.listener().expect("a listener");
        assert!(listener.try_wait().expect("looked").is_none());
        let mut notifier = notifying(&place.address);
        assert_eq!(ask(&mut notifier, "id 1 2"), "done");
        let deadline = Deadline::after(DEADLINE);
        let took = loop {
            if let Some(occurrence) = listener.try_wait().expect("looked") {
                break (occurrence.id, occurrence.count);
            }
            let fd = std::os::fd::AsFd::as_fd(&listener);
            assert!(io::wait_for(fd, Interest::Readable, deadline).expect("a wait"));
        };
        assert_eq!(took, (1, 2));
    });
}
