//! The read-write lock: readers and writers that die.

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{RwLock, Shared};

use super::{Peer, kept, name_of, obey_each, opened, repaired, shortly, soon};

pub(super) fn obey(memory: &SharedWords) {
    let lock: RwLock = opened(memory);
    let mut written = None;
    let mut read = None;
    obey_each(|command| match command {
        "read" | "try read" | "timed read" => {
            let found = match command {
                "read" => lock.read(),
                "try read" => lock.try_read(),
                _ => lock.read_until(shortly()),
            };
            found.map_or_else(
                |error| error.name().to_owned(),
                |guard| {
                    read = Some(guard);
                    "ok".to_owned()
                },
            )
        }
        "write" => kept(lock.write(), &mut written),
        "try write" => kept(lock.try_write(), &mut written),
        "timed write" => kept(lock.write_until(shortly()), &mut written),
        "repair" => repaired(&mut written),
        _ => {
            (read, written) = (None, None);
            "ok".to_owned()
        }
    });
    drop(read);
}

fn lock_of(readers: u32) -> RwLock {
    RwLock::anonymous(readers).expect("a lock")
}

fn peers<const N: usize>(lock: &RwLock) -> [Peer; N] {
    std::array::from_fn(|_| Peer::start("rw_lock", lock.memory()))
}

#[test]
fn readers_share_and_writers_do_not() {
    let lock = lock_of(RwLock::READERS);
    let [mut one, mut two] = peers(&lock);
    one.told("read", "ok");
    two.told("read", "ok");
    assert_eq!(name_of(lock.try_write()), "EBUSY");
    assert_eq!(name_of(lock.write_until(shortly())), "ETIMEDOUT");
    one.told("unlock", "ok");
    two.told("unlock", "ok");
    let writing = lock.write().expect("locked");
    for command in ["try read", "try write"] {
        one.told(command, "EBUSY");
    }
    for command in ["timed read", "timed write"] {
        one.told(command, "ETIMEDOUT");
    }
    one.told_and_waits("read");
    two.told_and_waits("read");
    drop(writing);
    one.expect("read", "ok");
    two.expect("read", "ok");
    one.told("unlock", "ok");
    two.told("unlock", "ok");
}

#[test]
fn a_writer_that_waits_keeps_new_readers_out_and_lets_them_in_when_it_gives_up() {
    let lock = lock_of(RwLock::READERS);
    let [mut reader, mut writer, mut late] = peers(&lock);
    reader.told("read", "ok");
    writer.told_and_waits("write");
    late.told("try read", "EBUSY");
    late.told_and_waits("read");
    reader.told("unlock", "ok");
    writer.expect("write", "ok");
    writer.told("unlock", "ok");
    late.expect("read", "ok");
    writer.told("timed write", "ETIMEDOUT");
    reader.told("read", "ok");
}

#[test]
fn a_killed_reader_is_not_waited_for() {
    let lock = lock_of(RwLock::READERS);
    let [mut one, mut two, mut writer] = peers(&lock);
    one.told("read", "ok");
    two.told("read", "ok");
    writer.told_and_waits("write");
    one.kill();
    two.kill();
    writer.expect("write", "ok");
    writer.told("unlock", "ok");
    assert_eq!(name_of(lock.read()), "ok");
}

#[test]
fn a_killed_writer_is_told_of_until_somebody_puts_things_right() {
    let lock = lock_of(RwLock::READERS);
    let [mut dead, mut waiting, mut writer] = peers(&lock);
    dead.told("write", "ok");
    waiting.told_and_waits("read");
    dead.kill();
    waiting.expect("read", "EOWNERDEAD");
    waiting.told("try read", "EOWNERDEAD");
    // Another dies repairing it.
    writer.told("write", "EOWNERDEAD");
    writer.kill();
    let locked = lock.write().expect("locked");
    assert!(locked.owner_died());
    drop(locked.or_repair(|| ()).expect("marked"));
    waiting.told("read", "ok");
    waiting.told("unlock", "ok");
    assert!(!lock.write().expect("locked").owner_died());
}

#[test]
fn what_nobody_repairs_is_of_no_use() {
    let lock = lock_of(2);
    let [mut dead, mut other] = peers(&lock);
    dead.told("write", "ok");
    dead.kill();
    drop(lock.write().expect("locked"));
    for command in ["read", "write", "try read", "try write"] {
        other.told(command, "ENOTRECOVERABLE");
    }
}

#[test]
fn a_writer_that_dies_waiting_leaves_the_door_open() {
    let lock = lock_of(RwLock::READERS);
    let [mut reader, mut writer] = peers(&lock);
    reader.told("read", "ok");
    writer.told_and_waits("write");
    writer.kill();
    assert_eq!(name_of(lock.read_until(soon())), "ok");
    reader.told("unlock", "ok");
    assert!(!lock.write_until(soon()).expect("locked").owner_died());
}

#[test]
fn one_reader_too_many_waits() {
    let lock = lock_of(1);
    let [mut reader, mut late] = peers(&lock);
    reader.told("read", "ok");
    late.told("try read", "EBUSY");
    late.told("timed read", "ETIMEDOUT");
    late.told_and_waits("read");
    reader.told("unlock", "ok");
    late.expect("read", "ok");
}

#[test]
fn one_reader_too_many_takes_any_place() {
    let lock = lock_of(2);
    let [mut stays, mut leaves, mut late] = peers(&lock);
    stays.told("read", "ok");
    leaves.told("read", "ok");
    late.told_and_waits("read");
    leaves.kill();
    late.expect("read", "ok");
    late.kill();
    leaves = Peer::start("rw_lock", lock.memory());
    leaves.told("read", "ok");
    late = Peer::start("rw_lock", lock.memory());
    late.told_and_waits("read");
    stays.told("unlock", "ok");
    late.expect("read", "ok");
}

#[test]
fn locking_twice_is_an_error() {
    let lock = lock_of(RwLock::READERS);
    let reading = lock.read().expect("locked");
    assert_eq!(name_of(lock.read()), "EDEADLK");
    assert_eq!(name_of(lock.write()), "EDEADLK");
    drop(reading);
    let writing = lock.write().expect("locked");
    assert_eq!(name_of(lock.read()), "EDEADLK");
    assert_eq!(name_of(lock.write()), "EDEADLK");
    drop(writing);
    assert_eq!(name_of(lock.write()), "ok");
}

#[test]
fn it_is_made_for_some_readers_and_not_too_many() {
    for readers in [0, RwLock::MAX_READERS + 1] {
        assert_eq!(name_of(RwLock::anonymous(readers)), "EINVAL");
    }
    assert_eq!(name_of(RwLock::anonymous(RwLock::MAX_READERS)), "ok");
}
