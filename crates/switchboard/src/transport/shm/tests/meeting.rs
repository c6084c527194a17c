//! Endpoints of one process, driven step by step, in orders that chance makes.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use switchboard_kernel::io::Deadline;
use switchboard_testkit::Scratch;

use super::ends::{End, are_linked, hello, names};
use super::raw::{Heard, Listener, Raw};
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::meeting::MOST_ACCEPTS;
use crate::transport::shm::name::Entry;

/// Turns for all, until nothing happens any more; time goes on by more than any backoff.
fn settle(ends: &mut [End], now: &mut Instant) {
    for _ in 0..40 {
        *now += Duration::from_millis(200);
        for end in &mut *ends {
            end.turn(*now);
        }
    }
}

#[test]
fn two_meet_in_either_order() {
    for (first, second) in [(Role::Writer, Role::Reader), (Role::Reader, Role::Writer)] {
        for pattern in [Pattern::Queue, Pattern::Topic] {
            let scratch = Scratch::new();
            let mut one = End::open(scratch.path(), pattern, first);
            let mut other = End::open(scratch.path(), pattern, second);
            assert_eq!((one.meeting.wanted(), other.meeting.wanted()), (0, 1));
            let now = Instant::now();
            other.turn(now);
            assert_eq!(other.meeting.unanswered().count(), 1);
            one.turn(now);
            other.turn(now);
            assert!(are_linked(&one, &other), "{one:?} {other:?}");
            for end in [&one, &other] {
                let peer = &end.met[0].peer;
                assert_eq!(peer.pid, Some(std::process::id()));
                assert!(!peer.program.is_empty());
                assert_eq!(end.said, Vec::<String>::new());
                assert_eq!(end.tokens.made, 1);
            }
            drop((one, other));
            let shm = scratch.join("switchboard/shm");
            assert_eq!(std::fs::read_dir(shm).unwrap().count(), 0, "the folder is gone");
        }
    }
}

/// Connections that come to nothing, and keep an endpoint from accepting others for a turn.
fn distract(base: &Path, end: &End) {
    for _ in 0..MOST_ACCEPTS {
        drop(Raw::dial(base, end));
    }
}

#[test]
fn who_dialled_each_other_meets_once() {
    for lower in [Role::Writer, Role::Reader] {
        // Who has the next turn when both have dialled.
        for next in [0, 1] {
            let scratch = Scratch::new();
            let base = scratch.path();
            let open = |role| {
                let id = Id([if role == lower { 1 } else { 2 }; 16]);
                End::with(base, Hello { id, ..hello(Pattern::Topic, role) }).expect("an end")
            };
            let mut ends = [open(Role::Writer), open(Role::Reader)];
            let mut now = Instant::now();
            ends[0].meeting.look_around(now).expect("a scan");
            ends.iter().for_each(|end| distract(base, end));
            ends.iter_mut().for_each(|end| end.turn(now));
            for end in &ends {
                assert_eq!(end.meeting.unanswered().count(), 1, "each has dialled");
            }
            ends[next].turn(now);
            settle(&mut ends, &mut now);
            assert!(are_linked(&ends[0], &ends[1]), "{lower:?} {next}");
            for end in &ends {
                assert_eq!((end.met.len(), end.said.len(), end.meeting.wanted()), (1, 0, 0));
            }
        }
    }
}

#[test]
fn the_connection_of_the_lower_one_stays() {
    for (own, peers) in [(1, 2), (2, 1)] {
        let scratch = Scratch::new();
        let base = scratch.path();
        let own = Hello { id: Id([own; 16]), ..hello(Pattern::Topic, Role::Writer) };
        let peer = Hello { id: Id([peers; 16]), ..hello(Pattern::Topic, Role::Reader) };
        let is_lower = own.id < peer.id;
        let mut end = End::with(base, own).expect("an end");
        let entry = Entry { pattern: peer.pattern, role: peer.role, id: peer.id };
        let listener = Listener::at(base, entry);
        let mut now = Instant::now();
        end.meeting.look_around(now).expect("a scan");
        end.turn(now);
        let dialled = listener.accept().expect("it dials");
        assert!(matches!(dialled.hear(), Heard::Hello(_)));
        // The peer has dialled, too.
        let dials = Raw::dial(base, &end);
        dials.say_hello(&peer);
        end.turn(now);
        let (stays, goes) = if is_lower { (&dialled, &dials) } else { (&dials, &dialled) };
        assert_eq!(goes.hear_next(), Heard::End);
        if is_lower {
            assert_eq!(stays.hear(), Heard::Nothing, "it waits for the answer");
            assert_eq!(end.met.len(), 0);
            // The one that was to stay fails: what the peer dials next is taken.
            drop(dialled);
            end.turn(now);
            let again = Raw::dial(base, &end);
            again.say_hello(&peer);
            end.turn(now);
            assert!(matches!(again.hear(), Heard::Hello(_)));
        } else {
            assert!(matches!(stays.hear(), Heard::Hello(_)));
        }
        assert_eq!((end.met.len(), end.meeting.wanted()), (1, 0));
        now += Duration::from_secs(5);
        end.turn(now);
        assert!(listener.accept().is_none());
    }
}

#[test]
fn who_leaves_is_not_found_and_keeps_its_links() {
    let scratch = Scratch::new();
    let mut ends = [
        End::open(scratch.path(), Pattern::Topic, Role::Writer),
        End::open(scratch.path(), Pattern::Topic, Role::Reader),
    ];
    let mut now = Instant::now();
    settle(&mut ends, &mut now);
    // One more has dialled, and is not answered; it learns that nobody is there any more.
    let mut late = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    late.turn(now);
    assert_eq!(late.meeting.unanswered().count(), 1);
    ends[0].meeting.leave();
    assert_eq!(names(scratch.path()).len(), 2);
    settle(&mut ends, &mut now);
    let deadline = Deadline::after(switchboard_testkit::DEADLINE);
    // Another test may just be starting a process, which has copies of all descriptors for a moment.
    while late.meeting.wanted() > 0 {
        assert!(!deadline.passed(), "it waits for who has left: {:?}", late.said);
        settle(std::slice::from_mut(&mut late), &mut now);
    }
    assert!(are_linked(&ends[0], &ends[1]));
    assert_eq!((late.met.len(), late.said.len(), late.meeting.wanted()), (0, 0, 0));
    let later = End::open(scratch.path(), Pattern::Topic, Role::Reader);
    assert_eq!(later.meeting.wanted(), 0);
    // Leaving again changes nothing.
    ends[0].meeting.leave();
    drop(ends);
    assert_eq!(names(scratch.path()).len(), 2);
}

/// One step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// This end comes, or has a turn if it is there.
    Turn(usize),
    /// It looks into the folder as if it had only now come.
    Look(usize),
    /// Others connect to it, and go.
    Distract(usize),
    Time(u64),
}

const ENDS: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..ENDS).prop_map(Step::Turn),
        1 => (0..ENDS).prop_map(Step::Look),
        2 => (0..ENDS).prop_map(Step::Distract),
        1 => (0_u64..1200).prop_map(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However turns and looks follow one another, each pair has one link in the end.
    #[test]
    fn each_pair_has_one_link(
        writers in 1..ENDS,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let scratch = Scratch::new();
        let mut now = Instant::now();
        let role = |end| if end < writers { Role::Writer } else { Role::Reader };
        let open = |end| End::open(scratch.path(), Pattern::Queue, role(end));
        let mut ends: Vec<Option<End>> = (0..ENDS).map(|_| None).collect();
        for step in steps {
            match step {
                Step::Turn(end) => match &mut ends[end] {
                    Some(end) => end.turn(now),
                    none => *none = Some(open(end)),
                },
                Step::Look(end) => {
                    if let Some(end) = &mut ends[end] {
                        end.meeting.look_around(now).unwrap();
                    }
                }
                Step::Distract(end) => {
                    if let Some(end) = &ends[end] {
                        distract(scratch.path(), end);
                    }
                }
                Step::Time(ms) => now += Duration::from_millis(ms),
            }
        }
        let mut ends: Vec<End> =
            ends.into_iter().enumerate().map(|(at, end)| end.unwrap_or_else(|| open(at))).collect();
        settle(&mut ends, &mut now);
        for end in &ends {
            prop_assert_eq!(&end.said, &Vec::<String>::new());
            let complements =
                ends.iter().filter(|peer| peer.meeting.hello().role != end.meeting.hello().role);
            prop_assert_eq!(end.met.len(), complements.count());
        }
        for (at, one) in ends.iter().enumerate() {
            for (other_at, other) in ends.iter().enumerate().skip(at + 1) {
                prop_assert_eq!(are_linked(one, other), role(at) != role(other_at));
            }
        }
    }
}
