//! Permits: so many at a time, and those of the dead come back.

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Permits, Shared};

use super::{Peer, name_of, obey_each, opened, shortly, soon};

pub(super) fn obey(memory: &SharedWords) {
    let permits: Permits = opened(memory);
    let mut held = Vec::new();
    obey_each(|command| {
        let found = match command {
            "acquire" => permits.acquire(),
            "try" => permits.try_acquire(),
            "timed" => permits.acquire_until(shortly()),
            _ => {
                held.pop();
                return "ok".to_owned();
            }
        };
        found.map_or_else(
            |error| error.name().to_owned(),
            |permit| {
                held.push(permit);
                "ok".to_owned()
            },
        )
    });
}

fn peers<const N: usize>(permits: &Permits) -> [Peer; N] {
    std::array::from_fn(|_| Peer::start("permits", permits.memory()))
}

#[test]
fn there_are_so_many() {
    let permits = Permits::anonymous(3).expect("permits");
    let [mut one, mut two] = peers(&permits);
    // A thread may have more than one.
    one.told("acquire", "ok");
    one.told("acquire", "ok");
    let own = permits.acquire().expect("the third");
    two.told("try", "EBUSY");
    two.told("timed", "ETIMEDOUT");
    two.told_and_waits("acquire");
    drop(own);
    two.expect("acquire", "ok");
    assert_eq!(name_of(permits.try_acquire()), "EBUSY");
    one.told("release", "ok");
    assert_eq!(name_of(permits.try_acquire()), "ok");
}

#[test]
fn those_of_the_dead_come_back() {
    let permits = Permits::anonymous(2).expect("permits");
    let [mut dead, mut waiting, mut queued] = peers(&permits);
    dead.told("acquire", "ok");
    dead.told("acquire", "ok");
    waiting.told_and_waits("acquire");
    queued.told_and_waits("acquire");
    dead.kill();
    waiting.expect("acquire", "ok");
    queued.expect("acquire", "ok");
    waiting.kill();
    assert_eq!(name_of(permits.try_acquire()), "ok");
}

#[test]
fn a_waiter_that_dies_is_not_waited_for() {
    let permits = Permits::anonymous(1).expect("permits");
    let [mut first, mut second] = peers(&permits);
    let own = permits.acquire().expect("the only one");
    first.told_and_waits("acquire");
    second.told_and_waits("acquire");
    first.kill();
    drop(own);
    second.expect("acquire", "ok");
    second.told("release", "ok");
    assert_eq!(name_of(permits.acquire_until(soon())), "ok");
}

#[test]
fn there_are_some_and_not_too_many() {
    for count in [0, Permits::MAX + 1] {
        assert_eq!(name_of(Permits::anonymous(count)), "EINVAL");
    }
    let permits = Permits::anonymous(Permits::MAX).expect("permits");
    let all: Vec<_> = (0..Permits::MAX).map(|_| permits.try_acquire().expect("one")).collect();
    assert_eq!(name_of(permits.try_acquire()), "EBUSY");
    drop(all);
    assert_eq!(permits.count(), Permits::MAX);
}
