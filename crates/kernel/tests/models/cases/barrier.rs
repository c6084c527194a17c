//! All go on together, and see what the others wrote before they came.

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::Shared;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::barrier::{Barrier, Member};

struct Meeting {
    barrier: Barrier,
    arrived: Vec<Plain>,
    came: AtomicU32,
    opened: AtomicU32,
}

impl Meeting {
    fn new(members: u32) -> Arc<Self> {
        Arc::new(Self {
            barrier: Barrier::anonymous(members).expect("a barrier"),
            arrived: (0..members).map(|_| Plain::new(0)).collect(),
            came: AtomicU32::new(0),
            opened: AtomicU32::new(0),
        })
    }

    fn cross(&self, member: &Member<'_>, me: u32, round: u32) {
        self.arrived[me as usize].set(round);
        let crossed = member.wait().expect("the other side");
        self.opened.fetch_add(u32::from(crossed.opened), Ordering::Relaxed);
        // Those who are ahead may be in the next round by now.
        assert!(self.arrived.iter().all(|one| one.get() >= round), "somebody was not waited for");
    }
}

fn check(name: &str, bounds: Bounds, members: u32, rounds: u32) {
    explore(name, bounds, move || {
        let meeting = Meeting::new(members);
        let other = Arc::clone(&meeting);
        let act = move || {
            let me = other.came.fetch_add(1, Ordering::Relaxed);
            let member = other.barrier.join().expect("a place");
            for round in 1..=rounds {
                other.cross(&member, me, round);
            }
        };
        let others = threads(members as usize - 1, act.clone());
        act();
        join(others);
        assert_eq!(meeting.opened.load(Ordering::Relaxed), rounds, "one opens each round");
    });
}

#[test]
fn two_once() {
    check("barrier, 2 members", Bounds { quick: 2, all: Some(3) }, 2, 1);
}

#[test]
fn two_twice() {
    check("barrier, 2 members, 2 rounds", Bounds { quick: 1, all: Some(2) }, 2, 2);
}

#[test]
fn three_once() {
    check("barrier, 3 members", Bounds { quick: 0, all: Some(1) }, 3, 1);
}

/// Who leaves is not waited for, whatever the others do at that time.
#[test]
fn one_leaves() {
    explore("barrier, 1 of 2 leaves", Bounds { quick: 2, all: Some(3) }, || {
        let meeting = Meeting::new(2);
        let other = Arc::clone(&meeting);
        let leaving = threads(1, move || {
            let member = other.barrier.join().expect("a place");
            member.wait().expect("the other side");
            drop(member);
        });
        let member = meeting.barrier.join().expect("a place");
        for _ in 0..3 {
            member.wait().expect("the other side");
        }
        join(leaving);
    });
}
