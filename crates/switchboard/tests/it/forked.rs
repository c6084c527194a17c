//! A child of `fork` that lets go of its copies of its parent's ends: nothing that the parent has is said, given back or
//! removed. What only one transport does is with its tests (`log/fork.rs`, `shm/fork.rs`).

use std::time::{Duration, Instant};

use switchboard::{Bytes, Queue, Receiver, RecvError, Sender, State};
use switchboard_testkit::child::report;
use switchboard_testkit::fork::in_child;
use switchboard_testkit::{Child, DEADLINE};

use super::place::Place;

/// Both ends of a queue, in one thread.
struct Both {
    sender: Sender<Bytes>,
    receiver: Receiver<Bytes>,
    received: Vec<u8>,
}

impl Both {
    fn send(&mut self, number: u8) {
        let until = Instant::now() + DEADLINE;
        while let Err(error) = self.sender.try_send(&Bytes(vec![number; 8])) {
            assert!(Instant::now() < until, "{number}: {error}");
            self.receive();
        }
    }

    fn receive(&mut self) {
        drop(self.sender.drive());
        match self.receiver.recv_timeout(Duration::from_millis(1)) {
            Ok(delivery) => {
                assert_eq!(delivery.message.0, [delivery.message.0[0]; 8]);
                self.received.push(delivery.message.0[0]);
                self.receiver.acknowledge(delivery).expect("acknowledged");
            }
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn receive_until(&mut self, count: usize) {
        let until = Instant::now() + DEADLINE;
        while self.received.len() < count {
            assert!(Instant::now() < until, "only {:?}", self.received);
            self.receive();
        }
    }
}

/// Role: has both ends of a queue, forks a child that drops its copies, and goes on.
pub(crate) fn queue(arguments: &[String]) {
    let [address] = arguments else { panic!("{arguments:?}") };
    let queue = Queue::<Bytes>::open(address).expect("a queue");
    let receiver = queue.receiver().expect("a receiver");
    let sender = queue.sender().expect("a sender");
    let mut both = Some(Both { sender, receiver, received: Vec::new() });
    let parents = both.as_mut().expect("it");
    (1..=4).for_each(|number| parents.send(number));
    parents.receive_until(2);
    assert!(in_child(|| {
        drop(both.take());
        true
    }));
    let parents = both.as_mut().expect("it");
    (5..=8).for_each(|number| parents.send(number));
    parents.receive_until(8);
    // Whoever comes finds it; what the first one says is its own once more.
    parents.sender = queue.sender().expect("a sender");
    parents.send(9);
    parents.receive_until(9);
    (0..20).for_each(|_| parents.receive());
    assert_eq!(parents.received, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    report("done");
}

/// Role: writes a state, and forks a child that drops its copy of the writer.
pub(crate) fn state(arguments: &[String]) {
    let [address] = arguments else { panic!("{arguments:?}") };
    let state = State::open(address).expect("a state");
    let mut writer = Some(state.writer().expect("a writer"));
    writer.as_mut().expect("it").set(b"one").expect("set");
    assert!(in_child(|| {
        drop(writer.take());
        true
    }));
    let second = Child::role("forked-second", &[address]).line();
    assert!(second.as_deref().is_some_and(|said| said.starts_with("refused")), "{second:?}");
    writer.as_mut().expect("it").set(b"two").expect("set");
    report("done");
}

/// Role: another writer of the same state.
pub(crate) fn second(arguments: &[String]) {
    let writer = State::open(&arguments[0]).and_then(|state| state.writer());
    // Over shared memory each key has its writer.
    let set = writer.and_then(|mut writer| writer.set(b"three"));
    report(set.map_or_else(|error| format!("refused: {error}"), |()| "set".to_owned()));
}

fn each(role: &str, schemes: &[&str]) {
    for scheme in schemes {
        let place = Place::of(scheme);
        let mut child = Child::role(role, std::slice::from_ref(&place.address));
        let said = child.line();
        assert_eq!(said.as_deref(), Some("done"), "{scheme}");
    }
}

#[test]
fn a_child_of_fork_drops_ends_of_queues_without_a_word() {
    each("forked-queue", &["unix", "unix-seqpacket", "unix-dgram", "tcp", "fifo", "file"]);
}

#[test]
fn a_child_of_fork_drops_writers_of_states_without_a_word() {
    each("forked-state", &["mmap", "posix-shm", "sysv-shm", "unix", "tcp", "shm"]);
}
