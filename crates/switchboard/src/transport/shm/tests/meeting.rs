//! Endpoints of one process, driven step by step, in orders that chance makes.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use switchboard_testkit::Scratch;

use super::ends::{End, are_linked};
use crate::transport::shm::hello::{Pattern, Role};

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

#[test]
fn who_dialled_each_other_meets_once() {
    let scratch = Scratch::new();
    let mut ends = [
        End::open(scratch.path(), Pattern::Topic, Role::Writer),
        End::open(scratch.path(), Pattern::Topic, Role::Reader),
    ];
    let mut now = Instant::now();
    ends[0].meeting.look_around(now).unwrap();
    settle(&mut ends, &mut now);
    assert!(are_linked(&ends[0], &ends[1]));
    assert_eq!(ends[0].met.len(), 1);
    assert_eq!(ends[1].met.len(), 1);
}

/// One step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// This end comes, or has a turn if it is there.
    Turn(usize),
    /// It looks into the folder as if it had only now come.
    Look(usize),
    Time(u64),
}

const ENDS: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..ENDS).prop_map(Step::Turn),
        1 => (0..ENDS).prop_map(Step::Look),
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
