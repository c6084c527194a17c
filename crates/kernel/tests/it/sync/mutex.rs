//! The mutex: told of deaths, shared with C.

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Mutex, MutexOptions, Shared};

use super::{Peer, kept, name_of, obey_each, opened, repaired, shortly, soon};
use crate::c_program;
use crate::shared_words::path_of;

pub(super) fn obey(memory: &SharedWords) {
    let mutex: Mutex = opened(memory);
    let mut held = None;
    obey_each(|command| match command {
        "lock" => kept(mutex.lock(), &mut held),
        "try" => kept(mutex.try_lock(), &mut held),
        "timed" => kept(mutex.lock_until(shortly()), &mut held),
        "repair" => repaired(&mut held),
        "unlock and try" => {
            held = None;
            kept(mutex.try_lock(), &mut held)
        }
        _ => {
            held = None;
            "ok".to_owned()
        }
    });
}

fn with_peer(options: MutexOptions) -> (Mutex, Peer) {
    let mutex = Mutex::anonymous(options).expect("a mutex");
    let peer = Peer::start("mutex", mutex.memory());
    (mutex, peer)
}

#[test]
fn one_has_it_at_a_time() {
    for inherit in [false, true] {
        let (mutex, mut peer) = with_peer(MutexOptions::new().priority_inheritance(inherit));
        let guard = mutex.lock().expect("locked");
        peer.told("try", "EBUSY");
        peer.told("timed", "ETIMEDOUT");
        peer.told_and_waits("lock");
        drop(guard);
        peer.expect("lock", "ok");
        assert_eq!(name_of(mutex.try_lock()), "EBUSY");
        peer.told("unlock", "ok");
        assert_eq!(name_of(mutex.lock_until(soon())), "ok");
    }
}

#[test]
fn a_killed_holder_is_told_of_and_what_nobody_repairs_is_of_no_use() {
    let (mutex, mut peer) = with_peer(MutexOptions::new());
    peer.told("lock", "ok");
    assert!(!mutex.is_orphaned());
    peer.kill();
    assert!(mutex.is_orphaned());
    let locked = mutex.lock().expect("locked");
    assert!(locked.owner_died() && !mutex.is_orphaned());
    drop(locked.or_repair(|| ()).expect("marked"));
    assert!(!mutex.lock().expect("locked").owner_died());

    let (mutex, mut peer) = with_peer(MutexOptions::new());
    let mut heir = Peer::start("mutex", mutex.memory());
    peer.told("lock", "ok");
    heir.told_and_waits("lock");
    peer.kill();
    heir.expect("lock", "EOWNERDEAD");
    heir.told("unlock", "ok");
    assert_eq!(name_of(mutex.lock()), "ENOTRECOVERABLE");
}

#[test]
fn locking_twice_is_an_error() {
    let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
    let _guard = mutex.lock().expect("locked");
    for again in [mutex.lock(), mutex.lock_until(soon()), mutex.try_lock()] {
        let error = again.expect_err("a second time");
        assert_eq!(error.name(), "EDEADLK");
        assert!(error.to_string().starts_with("lock: this thread holds it already: "), "{error}");
    }
}

/// A C program that locks the mutex at offset 64 for each line it reads, and says what came of it.
const C: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDWR);
    char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    pthread_mutex_t *mutex = (pthread_mutex_t *)(memory + 64);
    char line[32];
    while (fgets(line, sizeof line, stdin)) {
        int result = 0;
        if (!strncmp(line, "lock", 4)) result = pthread_mutex_lock(mutex);
        else if (!strncmp(line, "try", 3)) result = pthread_mutex_trylock(mutex);
        else if (!strncmp(line, "consistent", 10)) result = pthread_mutex_consistent(mutex);
        else result = pthread_mutex_unlock(mutex);
        printf("%s\n", result ? strerrorname_np(result) : "ok");
        fflush(stdout);
    }
    return 0;
}
"#;

#[test]
fn a_c_program_shares_it() {
    let Some(program) = c_program::compile("a_c_program_shares_it", C) else { return };
    let mutex = Mutex::anonymous(MutexOptions::new()).expect("a mutex");
    let mut c = program.start(&[&path_of(mutex.memory())]);
    let mut told = |command: &str, result: &str| {
        c.tell(command);
        c.expect(result);
    };

    let guard = mutex.lock().expect("locked");
    told("try", "EBUSY");
    drop(guard);
    told("lock", "ok");
    assert_eq!(name_of(mutex.try_lock()), "EBUSY");
    told("unlock", "ok");

    let mut ours = Peer::start("mutex", mutex.memory());
    ours.told("lock", "ok");
    ours.kill();
    told("lock", "EOWNERDEAD");
    told("consistent", "ok");
    c.kill();
    assert!(mutex.lock_until(soon()).expect("locked").owner_died());
}
