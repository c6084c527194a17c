//! A link that hangs up before it is open is none: who dialled dials again.

use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::unix_socket::{self, Address, Kind};
use switchboard_testkit::{DEADLINE, Scratch};

use super::memory;
use super::scene::own_scratch;
use crate::error::RecvError;
use crate::message::Schema;
use crate::options::Options;
use crate::transport::Setup;
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::ends::Opened;
use crate::transport::shm::geometry::{QUEUE, TOPIC};
use crate::transport::shm::hand::{Hand, Manner};
use crate::transport::shm::hello::{Hello, Id, Pattern, Role};
use crate::transport::shm::name::Entry;
use crate::transport::shm::publisher::PublisherCore;
use crate::transport::shm::reading::{ReaderCore, Reading};
use crate::transport::shm::receiver::Reception;
use crate::transport::shm::sender::SenderCore;
use crate::transport::shm::subscriber::Subscription;
use crate::transport::shm::tests::raw::{Listener, Raw};

/// A peer that is there first, so that the end dials it; the test answers for it.
struct Peer {
    scratch: Scratch,
    listener: Listener,
    path: PathBuf,
    hello: Hello,
}

impl Peer {
    fn new(pattern: Pattern, role: Role) -> Self {
        let scratch = own_scratch();
        let folder = scratch.join("shm/channel");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).expect("a folder");
        let hello = Hello { id: Id([9; 16]), ..super::peer::hello(pattern, role) };
        let path = folder.join(Entry { pattern, role, id: hello.id }.to_string());
        let permissions = switchboard_kernel::Permissions::new();
        let address = Address::Path(path.clone());
        let listener = unix_socket::listen_at(Kind::Seqpacket, &address, permissions, 16, true);
        Self { scratch, listener: Listener(listener.expect("a listener")), path, hello }
    }

    fn open<C: Opened>(&self) -> C {
        let address = format!("shm:channel?scope={}", self.scratch.path().display());
        let address = address.parse().expect("an address");
        C::open(Setup::new(address, Options::default(), Schema::bytes())).expect("an end")
    }

    /// The end dials, and is answered, with what belongs to that. What else it says first is taken.
    fn answer<C: Opened>(&self, end: &mut C) -> Raw {
        let raw = self.dialled(end).expect("it dials");
        let _ = raw.take();
        let (pattern, role) = (self.hello.pattern, self.hello.role);
        let given = match (role, pattern) {
            (Role::Reader, _) => vec![memory::page().make()],
            (Role::Writer, Pattern::Topic) => {
                vec![memory::bell().make(), memory::ring(TOPIC).make()]
            }
            (Role::Writer, _) => vec![memory::bell().make()],
        };
        let given: Vec<_> = given.iter().map(AsFd::as_fd).collect();
        assert!(raw.say_it(&Datagram::Hello(self.hello.clone()), &given));
        raw
    }

    /// Whether the end dials in time.
    fn dialled<C: Opened>(&self, end: &mut C) -> Option<Raw> {
        let deadline = Deadline::after(DEADLINE);
        while !deadline.passed() {
            end.control();
            if let Some(raw) = self.listener.accept() {
                return Some(raw);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// The end does not dial, for longer than it would wait before it does.
    fn is_let_be<C: Opened>(&self, end: &mut C) {
        let deadline = Deadline::after(Duration::from_millis(100));
        while !deadline.passed() {
            end.control();
            assert!(self.listener.accept().is_none(), "it dials again");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn until<C: Opened>(end: &mut C, what: &str, holds: impl Fn(&C) -> bool) {
    let deadline = Deadline::after(DEADLINE);
    while !holds(end) {
        assert!(!deadline.passed(), "{what}");
        end.control();
    }
}

#[test]
fn a_writer_that_hangs_up_before_its_welcome_is_dialled_again() {
    before_its_welcome::<Subscription>(0);
    before_its_welcome::<Reception>(1);
}

fn before_its_welcome<P: Reading>(with: usize) {
    let peer = Peer::new(P::PATTERN, Role::Writer);
    let mut end: ReaderCore<P> = peer.open();
    for _ in 0..3 {
        let raw = peer.answer(&mut end);
        until(&mut end, "they have met", |end| end.control_path().wanted() == 0);
        drop(raw);
        until(&mut end, "it is wanted again", |end| end.control_path().wanted() == 1);
    }
    let raw = peer.answer(&mut end);
    let ring = memory::ring(QUEUE).make();
    let welcome = Datagram::Welcome { slot: 0, position: 0, number: 0 };
    assert!(raw.say_it(&welcome, &[ring.as_fd()][..with]));
    until(&mut end, "it is welcomed", |end| end.peers() == 1);
    // That was a link: now it ends, as a death, and the only one.
    drop(raw);
    until(&mut end, "it is gone", |end| end.peers() == 0);
    let mut hand = Hand::default();
    let told = end.take(Manner::Copied, &mut hand, 0);
    assert!(matches!(told, Err(RecvError::PeerDied { received: 0, .. })), "{told:?}");
    let told = end.take(Manner::Copied, &mut hand, 0);
    assert!(matches!(told, Err(RecvError::Ended)), "{told:?}");
    peer.is_let_be(&mut end);
}

#[test]
fn a_reader_that_hangs_up_is_dialled_again_unless_it_leaves() {
    unless_it_leaves::<PublisherCore>(Pattern::Topic);
    unless_it_leaves::<SenderCore>(Pattern::Queue);
}

fn unless_it_leaves<C: Opened>(pattern: Pattern) {
    let peer = Peer::new(pattern, Role::Reader);
    let mut end: C = peer.open();
    for _ in 0..3 {
        let raw = peer.answer(&mut end);
        until(&mut end, "it has joined", |end| end.peers() == 1);
        // Whether it has read its welcome is not to be told from here.
        drop(raw);
        until(&mut end, "it is gone", |end| end.peers() == 0);
    }
    let raw = peer.answer(&mut end);
    until(&mut end, "it has joined", |end| end.peers() == 1);
    assert!(raw.say_it(&Datagram::Leave, &[]));
    until(&mut end, "it has left", |end| end.peers() == 0);
    peer.is_let_be(&mut end);
    // One that lies is let be, too.
    let peer = Peer::new(pattern, Role::Reader);
    let mut end: C = peer.open();
    let raw = peer.answer(&mut end);
    until(&mut end, "it has joined", |end| end.peers() == 1);
    raw.say(&[0], 0);
    until(&mut end, "it is turned away", |end| end.peers() == 0);
    peer.is_let_be(&mut end);
}

/// Whose name is gone is not dialled, however its link ended.
#[test]
fn one_that_is_not_there_any_more_is_not_dialled_again() {
    let peer = Peer::new(Pattern::Topic, Role::Writer);
    let mut end: ReaderCore<Subscription> = peer.open();
    let raw = peer.answer(&mut end);
    until(&mut end, "they have met", |end| end.control_path().wanted() == 0);
    unix_socket::unlink(&peer.path).expect("removed");
    drop(raw);
    until(&mut end, "it is wanted again", |end| end.control_path().wanted() == 1);
    until(&mut end, "it is given up", |end| end.control_path().wanted() == 0);
}
