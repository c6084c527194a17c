//! The barrier: a group that goes on without its dead.

use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Barrier, Shared};

use super::{Peer, name_of, obey_each, opened, shortly, soon};

pub(super) fn obey(memory: &SharedWords) {
    let barrier: Barrier = opened(memory);
    let mut member = None;
    obey_each(|command| match (command, &member) {
        ("join", _) => barrier.join().map_or_else(
            |error| error.name().to_owned(),
            |joined| {
                member = Some(joined);
                "ok".to_owned()
            },
        ),
        ("wait", Some(joined)) => joined
            .wait()
            .map_or_else(|error| error.name().to_owned(), |crossed| crossed.died.to_string()),
        ("timed", Some(joined)) => name_of(joined.wait_until(shortly())),
        _ => {
            member = None;
            "ok".to_owned()
        }
    });
}

fn joined<const N: usize>(barrier: &Barrier) -> [Peer; N] {
    std::array::from_fn(|_| {
        let mut peer = Peer::start("barrier", barrier.memory());
        peer.told("join", "ok");
        peer
    })
}

#[test]
fn all_go_on_together_again_and_again() {
    let barrier = Barrier::anonymous(3).expect("a barrier");
    let [mut one, mut two] = joined(&barrier);
    let own = barrier.join().expect("joined");
    assert_eq!(name_of(barrier.join()), "EBUSY");
    for _ in 0..20 {
        one.told_and_waits("wait");
        two.told_and_waits("wait");
        assert_eq!(own.wait_until(soon()).expect("crossed").died, 0);
        one.expect("wait", "0");
        two.expect("wait", "0");
    }
    one.told("timed", "ETIMEDOUT");
    // It has not arrived: the others wait for it.
    two.told_and_waits("wait");
    assert_eq!(name_of(own.wait_until(shortly())), "ETIMEDOUT");
}

#[test]
fn a_dead_member_is_not_waited_for() {
    let barrier = Barrier::anonymous(4).expect("a barrier");
    let [mut one, mut two, mut three] = joined(&barrier);
    let own = barrier.join().expect("joined");
    // Killed waiting, killed on the way.
    one.told_and_waits("wait");
    two.told_and_waits("wait");
    one.kill();
    three.kill();
    assert_eq!(own.wait_until(soon()).expect("crossed").died, 2);
    two.expect("wait", "2");
    // Killed while all others wait.
    let mut late = Peer::start("barrier", barrier.memory());
    late.told("join", "ok");
    two.told_and_waits("wait");
    late.kill();
    assert_eq!(own.wait_until(soon()).expect("crossed").died, 3);
    two.expect("wait", "3");
}

#[test]
fn it_does_not_open_before_all_have_joined_once() {
    let barrier = Barrier::anonymous(3).expect("a barrier");
    let [mut dead] = joined(&barrier);
    let own = barrier.join().expect("joined");
    dead.kill();
    assert_eq!(name_of(own.wait_until(shortly())), "ETIMEDOUT");
    let [mut late, mut last] = joined(&barrier);
    late.told_and_waits("wait");
    // They were all here once: now nobody waits for one that dies.
    last.kill();
    assert_eq!(own.wait_until(soon()).expect("crossed").died, 2);
    late.expect("wait", "2");
}

#[test]
fn who_leaves_is_not_waited_for() {
    let barrier = Barrier::anonymous(2).expect("a barrier");
    let [mut peer] = joined(&barrier);
    let own = barrier.join().expect("joined");
    peer.told_and_waits("wait");
    own.wait_until(soon()).expect("crossed");
    peer.expect("wait", "0");
    peer.told_and_waits("wait");
    drop(own);
    peer.expect("wait", "0");
}

#[test]
fn one_of_a_round_opens_it() {
    let barrier = Barrier::anonymous(4).expect("a barrier");
    let others = std::sync::Barrier::new(4);
    let openers = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let member = barrier.join().expect("joined");
                for round in 1..=200 {
                    let crossed = member.wait_until(soon()).expect("crossed");
                    openers.fetch_add(u32::from(crossed.opened), Relaxed);
                    others.wait();
                    assert_eq!(openers.load(Relaxed), round);
                    others.wait();
                }
            });
        }
    });
}

#[test]
fn there_are_some_members_and_not_too_many() {
    for members in [0, Barrier::MAX + 1] {
        assert_eq!(name_of(Barrier::anonymous(members)), "EINVAL");
    }
    assert_eq!(name_of(Barrier::anonymous(Barrier::MAX)), "ok");
}
