//! Every count that is raised is found by one who waits, with what was written before.

use super::{Arc, Bounds, Plain, explore, join, threads};
use crate::sync::Shared;
use crate::sync::semaphore::Semaphore;

fn check(name: &str, bounds: Bounds, first: u32, waiters: usize, posters: usize) {
    explore(name, bounds, move || {
        let count = Arc::new(Semaphore::anonymous(first).expect("a semaphore"));
        let [waiter, poster] = [Arc::clone(&count), Arc::clone(&count)];
        let waiting = threads(waiters, move || waiter.wait().expect("a wait"));
        let posting = threads(posters - 1, move || poster.post().expect("a post"));
        count.post().expect("a post");
        join(posting);
        join(waiting);
        assert_eq!(count.value() as usize + waiters, first as usize + posters);
    });
}

#[test]
fn one_waits() {
    check("semaphore, 1 waits, 1 posts", Bounds { quick: 4, all: None }, 0, 1, 1);
}

#[test]
fn two_wait_for_two() {
    check("semaphore, 2 wait, 2 post", Bounds { quick: 1, all: Some(3) }, 0, 2, 2);
}

#[test]
fn two_wait_for_what_is_there() {
    check("semaphore of 1, 2 wait, 1 posts", Bounds { quick: 3, all: None }, 1, 2, 1);
}

/// What was written before a count is raised is seen by who lowers it.
#[test]
fn what_was_written_is_seen() {
    explore("semaphore, a message", Bounds { quick: 4, all: None }, || {
        let shared = Arc::new((Semaphore::anonymous(0).expect("a semaphore"), Plain::new(0)));
        let waiter = Arc::clone(&shared);
        let waiting = threads(1, move || {
            waiter.0.wait().expect("a wait");
            assert_eq!(waiter.1.get(), 1);
        });
        shared.1.set(1);
        shared.0.post().expect("a post");
        join(waiting);
    });
}

/// As a lock: who tries takes the count away from who waits for it.
#[test]
fn one_tries_and_one_waits() {
    explore("semaphore as a lock, 1 tries, 2 wait", Bounds { quick: 2, all: Some(4) }, || {
        let shared = Arc::new((Semaphore::anonymous(1).expect("a semaphore"), Plain::new(0)));
        let waiter = Arc::clone(&shared);
        let waiting = threads(2, move || {
            waiter.0.wait().expect("a wait");
            waiter.1.add(1);
            waiter.0.post().expect("a post");
        });
        let tried = shared.0.try_wait().is_ok();
        if tried {
            shared.1.add(1);
            shared.0.post().expect("a post");
        }
        join(waiting);
        assert_eq!(shared.1.get(), 2 + u32::from(tried));
    });
}
