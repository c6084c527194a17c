//! What is an object and what is not: versions, foreign bytes, other namespaces.

use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{
    Barrier, Condvar, Monitor, Mutex, MutexOptions, Name, Once, Permits, RwLock, Semaphore, Shared,
};
use switchboard_testkit::child::report;
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, Scratch};

use super::name_of;

#[test]
fn each_is_told_from_all_others() {
    let memories = [
        Mutex::anonymous(MutexOptions::new()).map(|one| one.memory().clone()),
        Condvar::anonymous(()).map(|one| one.memory().clone()),
        RwLock::anonymous(4).map(|one| one.memory().clone()),
        Permits::anonymous(4).map(|one| one.memory().clone()),
        Semaphore::anonymous(4).map(|one| one.memory().clone()),
        Barrier::anonymous(4).map(|one| one.memory().clone()),
        Once::anonymous(()).map(|one| one.memory().clone()),
        Monitor::anonymous(4_u64).map(|one| one.memory().clone()),
    ];
    for (index, memory) in memories.into_iter().enumerate() {
        let memory = memory.expect("an object");
        let results = [
            name_of(Mutex::from_fd(&memory)),
            name_of(Condvar::from_fd(&memory)),
            name_of(RwLock::from_fd(&memory)),
            name_of(Permits::from_fd(&memory)),
            name_of(Semaphore::from_fd(&memory)),
            name_of(Barrier::from_fd(&memory)),
            name_of(Once::from_fd(&memory)),
            name_of(Monitor::<u64>::from_fd(&memory)),
        ];
        for (other, result) in results.iter().enumerate() {
            assert_eq!(result, if other == index { "ok" } else { "EINVAL" }, "{index} as {other}");
        }
    }
}

#[test]
fn each_word_of_the_header_counts() {
    // What it is, its version and kind, whether it is ready, where it was made, its length.
    for (index, expected) in
        [(0, "EINVAL"), (1, "EINVAL"), (3, "EINVAL"), (4, "EXDEV"), (5, "EINVAL")]
    {
        let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
        let memory = mutex.memory().clone();
        drop(mutex);
        let slot = memory.slot(0, memory.len_bytes()).expect("a slot");
        let word = &slot.words()[index];
        word.store(word.load(Relaxed) ^ 0x4000_0000, Relaxed);
        assert_eq!(name_of(Mutex::open_in(slot)), expected, "word {index}");
    }
}

#[test]
fn foreign_bytes_are_refused_whatever_they_are() {
    let all: [fn(&SharedWords) -> String; 8] = [
        |memory| name_of(Mutex::from_fd(memory)),
        |memory| name_of(Condvar::from_fd(memory)),
        |memory| name_of(RwLock::from_fd(memory)),
        |memory| name_of(Permits::from_fd(memory)),
        |memory| name_of(Semaphore::from_fd(memory)),
        |memory| name_of(Barrier::from_fd(memory)),
        |memory| name_of(Once::from_fd(memory)),
        |memory| name_of(Monitor::<u64>::from_fd(memory)),
    ];
    for fill in [1, 2, 3, 0x5953_4253, u32::MAX] {
        let memory = SharedWords::create(8192).expect("memory");
        let slot = memory.slot(0, 8192).expect("a slot");
        slot.words().iter().for_each(|word| word.store(fill, Relaxed));
        drop(slot);
        for open in all {
            let expected = if fill == 1 { "EAGAIN" } else { "EINVAL" };
            assert_eq!(open(&memory), expected, "{fill}");
        }
    }
    // A number that the object cannot have been made with, and a length that the memory does not have.
    let barrier = Barrier::anonymous(2).expect("a barrier");
    let memory = barrier.memory().clone();
    drop(barrier);
    let slot = memory.slot(0, memory.len_bytes()).expect("a slot");
    for members in [0, 3, Barrier::MAX, u32::MAX] {
        slot.words()[2].store(members, Relaxed);
        assert_eq!(all[5](&memory), "EINVAL", "{members}");
    }
    drop(slot);
    let made: [(usize, SharedWords); 2] = [
        (2, RwLock::anonymous(2).expect("a lock").memory().clone()),
        (3, Permits::anonymous(2).expect("permits").memory().clone()),
    ];
    for (kind, memory) in made {
        let slot = memory.slot(0, memory.len_bytes()).expect("a slot");
        for number in [0, 3, 1025, u32::MAX] {
            slot.words()[2].store(number, Relaxed);
            assert_eq!(all[kind](&memory), "EINVAL", "{number}");
        }
    }
}

#[test]
fn it_is_made_once_in_a_place() {
    let memory = SharedWords::create(8192).expect("memory");
    let slot = || memory.slot(64, 128).expect("a slot");
    assert_eq!(name_of(Once::open_in(slot())), "ENOENT");
    assert_eq!(name_of(Once::create_in(slot(), ())), "ok");
    assert_eq!(name_of(Once::create_in(slot(), ())), "EEXIST");
    assert_eq!(name_of(Semaphore::create_in(slot(), 1)), "EEXIST");
    assert_eq!(name_of(Once::open_in(slot())), "ok");
    slot().clear();
    assert_eq!(name_of(Semaphore::create_in(slot(), 1)), "ok");
    let short = memory.slot(1024, 64).expect("a slot");
    assert_eq!(name_of(Once::create_in(short, ())), "EINVAL");
}

/// Role: opens a mutex by its name, and says what came of it.
pub(crate) fn opener(arguments: &[String]) {
    let name = Name::new(&arguments[0]).expect("a name");
    report(name_of(Mutex::named(&name, MutexOptions::new())));
}

#[test]
fn it_is_of_one_pid_namespace() {
    const TEST: &str = "it_is_of_one_pid_namespace";
    let scratch = Scratch::new();
    let path = scratch.join("mutex");
    let path = path.to_str().expect("a path");
    let mutex = Mutex::named(&Name::new(path).expect("a name"), MutexOptions::new());
    // Still under the /proc of the old one.
    let starter = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    let works = std::process::Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip(TEST, "no PID namespace can be made");
        return;
    }
    let mut same = Child::role("sync_opener", &[path]);
    same.expect("ok");
    let mut other = Child::role_under(&starter, "sync_opener", &[path]);
    other.expect("EXDEV");
    drop(mutex);
}
