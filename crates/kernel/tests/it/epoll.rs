//! Waiting for many descriptors, of all the kinds that can be watched.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::io::{self, Deadline, Interest, Ready};
use switchboard_kernel::posix_mq::{Access, CreateOptions, MessageQueue, unlink};
use switchboard_kernel::{pidfd, pipe};
use switchboard_testkit::{Child, DEADLINE, unique};

use crate::{hand_over, python};

const READABLE: Ready = Ready { readable: true, writable: false, hung_up: false };

/// What one wait finds, by token.
fn found(epoll: &Epoll, deadline: Deadline) -> BTreeMap<u64, Ready> {
    let mut events = Events::with_capacity(16);
    let count = epoll.wait(&mut events, deadline).expect("a wait");
    assert_eq!(count, events.len());
    events.iter().collect()
}

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

#[test]
fn a_descriptor_is_reported_until_it_is_read() {
    let (epoll, counter) = (Epoll::new().expect("epoll"), EventFd::new(0).expect("a counter"));
    epoll.add(&counter, u64::MAX, Interest::Readable).expect("added");
    assert!(found(&epoll, now()).is_empty());
    counter.add(1).expect("room");
    for _ in 0..2 {
        assert_eq!(found(&epoll, Deadline::NEVER), BTreeMap::from([(u64::MAX, READABLE)]));
    }
    counter.take().expect("the count");
    assert!(found(&epoll, now()).is_empty());
}

#[test]
fn a_deadline_is_kept_and_never_early() {
    let epoll = Epoll::new().expect("epoll");
    for timeout in [Duration::from_micros(300), Duration::from_millis(30)] {
        let start = Instant::now();
        assert!(found(&epoll, Deadline::after(timeout)).is_empty());
        assert!(start.elapsed() >= timeout, "{:?} of {timeout:?}", start.elapsed());
    }
}

#[test]
fn modified_and_deleted() {
    let (epoll, counter) = (Epoll::new().expect("epoll"), EventFd::new(1).expect("a counter"));
    epoll.add(&counter, 1, Interest::Readable).expect("added");
    let again = epoll.add(&counter, 1, Interest::Readable);
    assert_eq!(again.map_err(|error| error.name()), Err("EEXIST"));
    epoll.modify(&counter, 2, Interest::Both).expect("modified");
    let both = Ready { readable: true, writable: true, hung_up: false };
    assert_eq!(found(&epoll, now()), BTreeMap::from([(2, both)]));
    epoll.delete(&counter).expect("deleted");
    assert!(found(&epoll, now()).is_empty());
    assert_eq!(epoll.delete(&counter).map_err(|error| error.name()), Err("ENOENT"));
}

#[test]
fn a_hang_up_alone_is_told_too() {
    let epoll = Epoll::new().expect("epoll");
    let (reader, writer) = pipe::pipe().expect("a pipe");
    epoll.add(&writer, 1, Interest::HangUp).expect("added");
    assert!(found(&epoll, now()).is_empty(), "there is room, which is not asked for");
    assert!(!io::wait_for(&writer, Interest::HangUp, now()).expect("polled"));
    drop(reader);
    // A child that another test starts at this moment has a copy of it until it runs its own program.
    assert!(found(&epoll, Deadline::after(DEADLINE))[&1].hung_up);
    assert!(io::wait_for(&writer, Interest::HangUp, now()).expect("polled"));
}

#[test]
fn more_ready_than_room_come_in_turn() {
    let epoll = Epoll::new().expect("epoll");
    let counters: Vec<EventFd> = (0..10).map(|_| EventFd::new(1).expect("a counter")).collect();
    for (token, counter) in (0..).zip(&counters) {
        epoll.add(counter, token, Interest::Readable).expect("added");
    }
    let mut events = Events::with_capacity(3);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let count = epoll.wait(&mut events, now()).expect("a wait");
        assert!((1..=3).contains(&count), "{count}");
        seen.extend(events.iter().map(|(token, _)| token));
    }
    assert_eq!(seen, (0..10).collect());
}

#[test]
fn a_dead_peer_is_reported_by_pipe_and_pidfd() {
    let mut peer = Child::role::<&str>("process_waiter", &[]);
    peer.expect("waiting");
    let stdin = peer.stdin().expect("its input");
    let pidfd = pidfd::open(peer.id()).expect("a pidfd");
    let epoll = Epoll::new().expect("epoll");
    epoll.add(&pidfd, 1, Interest::Readable).expect("added");
    epoll.add_exclusive(&stdin, 2, Interest::Readable).expect("added");
    assert!(found(&epoll, now()).is_empty());
    peer.kill();
    let hung_up = Ready { readable: false, writable: false, hung_up: true };
    let both = found(&epoll, Deadline::after(DEADLINE));
    assert!(both[&1].readable && both[&2] == hung_up, "{both:?}");
}

#[test]
fn a_message_queue_can_be_watched() {
    let name = format!("/{}", unique("epoll"));
    let options = CreateOptions::new().max_messages(1).message_size_bytes(8);
    let queue = MessageQueue::create(&name, Access::Both, &options).expect("a queue");
    unlink(&name).expect("unlinked");
    let epoll = Epoll::new().expect("epoll");
    epoll.add(&queue, 5, Interest::Both).expect("added");
    assert!(found(&epoll, now())[&5].writable);
    queue.send(b"x", 0).expect("room");
    assert_eq!(found(&epoll, now()), BTreeMap::from([(5, READABLE)]));
}

/// Watches the reading end of one pipe, and has the writing end of another.
const PYTHON: &str = "
import select
watching = select.epoll()
watching.register(fds[0], select.EPOLLIN)
say('watching')
say([event == select.EPOLLHUP for _, event in watching.poll()])
told()
";

#[test]
fn python_sees_our_death_and_we_see_that_of_python() {
    let (theirs, held) = pipe::pipe().expect("a pipe");
    let (ours, by_python) = pipe::pipe().expect("a pipe");
    let test = "epoll::python_sees_our_death_and_we_see_that_of_python";
    let fds = [theirs.as_fd(), by_python.as_fd()];
    let Some(mut python) = python::start_with(test, "select", PYTHON, &fds) else { return };
    let mut holder = hand_over::start("hand-over-holder", &[], &[held.as_fd()]);
    drop((held, by_python));
    holder.expect("holding");
    python.expect("watching");
    holder.kill();
    python.expect("[True]");

    let epoll = Epoll::new().expect("epoll");
    epoll.add(&ours, 1, Interest::Readable).expect("added");
    assert!(found(&epoll, now()).is_empty());
    python.kill();
    let hung_up = Ready { readable: false, writable: false, hung_up: true };
    assert_eq!(found(&epoll, Deadline::after(DEADLINE)), BTreeMap::from([(1, hung_up)]));
}
