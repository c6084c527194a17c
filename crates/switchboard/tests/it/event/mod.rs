//! Events: what every row that carries them has to keep, between processes.

mod foreign;
mod liars;
mod limits;
mod live;
mod signal;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::{Error, Event, Listener, Occurrence, Options, WaitError};
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;
use switchboard_testkit::child::{Child, instruction, report};

use crate::place::{Place, become_ordinary_user, each_row_of};

pub(crate) use limits::{few_objects, limited_listener, stranger};

fn failed(error: &Error) -> String {
    format!("error {:?} {error} {}", error.kind(), error.advice().unwrap_or_default())
}

fn told(result: Result<Occurrence, WaitError>) -> String {
    match result {
        Ok(Occurrence { merged, value, from, .. }) => {
            let from = from.map(|from| (from.pid, from.verified));
            format!("event merged={merged} value={value:?} from={from:?}")
        }
        Err(WaitError::Failed(error)) => failed(&error),
        Err(error) => format!("{error:?}"),
    }
}

/// Role: listens at an address, as told: `wait MILLISECONDS`, `forever`, `try`, `poll MILLISECONDS`,
/// `cancel MILLISECONDS`.
pub(crate) fn listener(arguments: &[String]) {
    let (cancel, trip) = pipe::pipe().expect("a pipe");
    let options = Options::default().cancel(Some(Arc::new(cancel)));
    let event = Event::open_with(&arguments[0], options).expect("an event");
    let mut listener = match event.listener() {
        Ok(listener) => listener,
        Err(error) => return report(failed(&error)),
    };
    let local = listener.local_address();
    report(format!("open {}", local.as_deref().unwrap_or(&arguments[0])));
    let mut trip = Some(trip);
    while let Some(order) = instruction() {
        let (what, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let time = Duration::from_millis(number.parse().expect("milliseconds"));
        let since = Instant::now();
        match what {
            "wait" => report(told(listener.wait_timeout(time))),
            "forever" => {
                report("waiting");
                report(told(listener.wait()));
            }
            "try" => report(match listener.try_wait() {
                Ok(Some(occurrence)) => told(Ok(occurrence)),
                Ok(None) => "none".to_owned(),
                Err(error) => failed(&error),
            }),
            "poll" => report(polled(&mut listener, time)),
            "take" => report(match listener.wait_timeout(time) {
                Ok(Occurrence { id, count, .. }) => format!("took {id} {count}"),
                other => told(other),
            }),
            "cancel" => {
                let trip = trip.take();
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    drop(trip);
                });
                let result = told(listener.wait());
                report(format!("{result} {}", since.elapsed().as_millis()));
            }
            other => panic!("{other}"),
        }
    }
}

/// Waits by the wake-up descriptor alone.
fn polled(listener: &mut Listener, time: Duration) -> String {
    let deadline = Deadline::after(time);
    loop {
        match listener.try_wait() {
            Ok(Some(occurrence)) => return told(Ok(occurrence)),
            Ok(None) => {}
            Err(error) => return failed(&error),
        }
        if !io::wait_for(listener.as_fd(), Interest::Readable, deadline).expect("a wait") {
            return "nothing".to_owned();
        }
    }
}

/// Role: notifies at an address, as told: `notify`, `many NUMBER`, `value NUMBER`.
pub(crate) fn notifier(arguments: &[String]) {
    let event = Event::open(&arguments[0]).expect("an event");
    let mut notifier = match event.notifier() {
        Ok(notifier) => notifier,
        Err(error) => return report(failed(&error)),
    };
    report("open");
    while let Some(order) = instruction() {
        let (what, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let result = match what {
            "notify" => notifier.notify(),
            "many" => notifier.notify_many(number.parse().expect("a number")),
            "value" => notifier.notify_with(number.parse().expect("a number")),
            "id" => {
                let (id, count) = number.split_once(' ').unwrap_or((number, "1"));
                let [id, count] = [id, count].map(|text| text.parse().expect("a number"));
                notifier.notify_many_of(id, count)
            }
            "drive" => match live::all_out(&mut notifier) {
                Err(WaitError::Failed(error)) => Err(error),
                result => {
                    report(format!("{result:?}"));
                    continue;
                }
            },
            "peers" => {
                report(live::met(&mut notifier, number.parse().expect("a number")));
                continue;
            }
            other => panic!("{other}"),
        };
        report(result.map_or_else(|error| failed(&error), |()| "done".to_owned()));
    }
}

/// A listener, and the address that notifiers use.
fn listening(address: &str) -> (Child, String) {
    // All threads of a process that takes signals have them blocked.
    let starter = ["env", "--block-signal=USR1,USR2,RTMIN+1,RTMIN+2"];
    let mut child = Child::role_under(&starter, "listener", &[address]);
    let said = child.line().expect("an answer");
    let local = said.strip_prefix("open ").unwrap_or_else(|| panic!("{said}")).to_owned();
    (child, local)
}

fn notifying(address: &str) -> Child {
    let mut child = Child::role("notifier", &[address]);
    child.expect("open");
    child
}

fn ask(child: &mut Child, order: &str) -> String {
    child.tell(order);
    child.line().expect("an answer")
}

fn ask_event(child: &mut Child, order: &str) {
    let answer = ask(child, order);
    assert!(answer.starts_with("event "), "{order}: {answer}");
}

#[test]
fn a_waiting_listener_is_woken() {
    each_row_of("event", |place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        for _ in 0..5 {
            assert_eq!(ask(&mut listener, "forever"), "waiting");
            assert_eq!(ask(&mut notifier, "notify"), "done");
            assert!(listener.line().is_some_and(|line| line.starts_with("event merged=false")));
        }
        assert_eq!(ask(&mut listener, "try"), "none");
    });
}

#[test]
fn each_notification_is_counted() {
    each_row_of("event", |place| {
        let (mut listener, address) = listening(&place.address);
        assert_eq!(ask(&mut notifying(&address), "many 20"), "done");
        for order in ["try", "wait 15000", "poll 15000", "try"] {
            for _ in 0..5 {
                ask_event(&mut listener, order);
            }
        }
        assert_eq!(ask(&mut listener, "try"), "none");
    });
}

#[test]
fn the_wake_up_descriptor_tells() {
    each_row_of("event", |place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        assert_eq!(ask(&mut listener, "poll 0"), "nothing");
        listener.tell("poll 15000");
        assert_eq!(ask(&mut notifier, "notify"), "done");
        assert!(listener.line().is_some_and(|line| line.starts_with("event ")));
    });
}

#[test]
fn waits_end_by_their_deadline_and_by_cancel() {
    each_row_of("event", |place| {
        let (mut listener, _) = listening(&place.address);
        for timeout in [0, 1, 70] {
            let since = Instant::now();
            assert_eq!(ask(&mut listener, &format!("wait {timeout}")), "TimedOut");
            assert!(since.elapsed() >= Duration::from_millis(timeout), "{timeout}");
        }
        let answer = ask(&mut listener, "cancel 30");
        let took = answer.strip_prefix("Interrupted ").expect(&answer).parse::<u64>();
        assert!((30..5000).contains(&took.expect("a number")), "{answer}");
    });
}

#[test]
fn a_killed_notifier_leaves_what_it_notified() {
    each_row_of("event", |place| {
        let (mut listener, address) = listening(&place.address);
        let mut notifier = notifying(&address);
        assert_eq!(ask(&mut notifier, "many 3"), "done");
        notifier.kill();
        for _ in 0..3 {
            ask_event(&mut listener, "wait 15000");
        }
        assert_eq!(ask(&mut listener, "try"), "none");
        assert_eq!(ask(&mut notifying(&address), "notify"), "done");
        ask_event(&mut listener, "wait 15000");
    });
}

#[test]
fn a_killed_listener_leaves_the_rest_to_others() {
    each_row_of("event", |place| {
        // Signals go with their process: that has a test of its own.
        if !place.row.capabilities.outlives_processes {
            return;
        }
        let (mut first, _) = listening(&place.address);
        let mut notifier = notifying(&place.address);
        assert_eq!(ask(&mut notifier, "many 2"), "done");
        ask_event(&mut first, "try");
        // Killed with one taken and one left, then another while it sleeps.
        first.kill();
        let (mut second, _) = listening(&place.address);
        ask_event(&mut second, "try");
        assert_eq!(ask(&mut second, "forever"), "waiting");
        second.kill();
        let (mut third, _) = listening(&place.address);
        assert_eq!(ask(&mut third, "try"), "none");
        assert_eq!(ask(&mut third, "forever"), "waiting");
        assert_eq!(ask(&mut notifier, "notify"), "done");
        assert!(third.line().is_some_and(|line| line.starts_with("event ")));
    });
}

#[test]
fn each_notification_goes_to_one_listener() {
    each_row_of("event", |place| {
        if !place.row.capabilities.outlives_processes {
            return;
        }
        let mut listeners: Vec<Child> = (0..3).map(|_| listening(&place.address).0).collect();
        for listener in &mut listeners {
            listener.tell("forever");
            listener.expect("waiting");
        }
        let mut notifier = notifying(&place.address);
        assert_eq!(ask(&mut notifier, "many 3"), "done");
        for listener in &mut listeners {
            assert!(listener.line().is_some_and(|line| line.starts_with("event ")));
        }
        assert_eq!(ask(&mut listeners[0], "try"), "none");
    });
}

#[test]
fn without_waiting_nothing_is_made() {
    each_row_of("event", |place| {
        if !place.row.capabilities.outlives_processes {
            return;
        }
        let options = Options::default().wait_for_peer(false);
        let event = Event::open_with(&place.address, options).expect("an event");
        let refused = event.notifier().expect_err("nothing there");
        assert_eq!(refused.kind(), switchboard::ErrorKind::NotFound, "{refused}");
        let refused = event.listener().expect_err("nothing there");
        assert_eq!(refused.kind(), switchboard::ErrorKind::NotFound, "{refused}");
    });
}

#[test]
fn other_patterns_are_refused() {
    let event = Event::open("mq:/jobs").expect("an address");
    let refused = event.notifier().expect_err("a queue");
    assert_eq!(refused.kind(), switchboard::ErrorKind::NotSupported);
    assert!(refused.to_string().contains("it carries queue"), "{refused}");
    assert!(refused.advice().is_some_and(|advice| advice.contains("signal, sem, sysv-sem")));
}
