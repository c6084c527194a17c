//! The memory of large messages comes on the control path, whoever looks there first.

use switchboard_kernel::io::Deadline;
use switchboard_testkit::Scratch;

use crate::error::SendError;
use crate::message::Schema;
use crate::options::Options;
use crate::transport::Setup;
use crate::transport::shm::endpoint::Core;
use crate::transport::shm::ends::Opened;
use crate::transport::shm::hand::{Hand, Manner};
use crate::transport::shm::publisher::PublisherCore;
use crate::transport::shm::reading::{ReaderCore, Reading};
use crate::transport::shm::receiver::Reception;
use crate::transport::shm::sender::SenderCore;
use crate::transport::shm::subscriber::Subscription;

#[test]
fn a_segment_may_come_between_two_calls() {
    check::<SenderCore, Reception>(|sender, payload| sender.try_send(payload, 0));
    check::<PublisherCore, Subscription>(PublisherCore::try_send);
}

/// A batch ends at a message whose segment has not come; then the I/O thread takes the segment.
fn check<W: Opened, P: Reading>(send: impl Fn(&mut W, &[u8]) -> Result<(), SendError>) {
    let scratch = Scratch::new();
    let mut writer = W::open(setup(&scratch)).expect("a writer");
    let mut reader = ReaderCore::<P>::open(setup(&scratch)).expect("a reader");
    let deadline = Deadline::after(std::time::Duration::from_secs(10));
    while writer.peers() == 0 || reader.peers() == 0 {
        assert!(!deadline.passed(), "they do not meet");
        Core::control(&mut writer);
        Core::control(&mut reader);
    }
    let large = vec![7; 64 << 10];
    for manner in [Manner::Copied, Manner::Lent] {
        let mut hand = Hand::default();
        send(&mut writer, b"first").expect("room");
        assert!(reader.take(manner, &mut hand, 0).expect("no report"));
        assert_eq!(hand.bytes(), b"first");
        send(&mut writer, &large).expect("room");
        if manner == Manner::Copied {
            assert!(!reader.take_more(manner, &mut hand), "its segment has not come");
        }
        Core::control(&mut reader);
        assert!(reader.take(manner, &mut hand, 0).expect("no report"));
        assert_eq!(hand.bytes(), large);
        assert!(!reader.take(manner, &mut hand, 0).expect("no report"));
    }
}

fn setup(scratch: &Scratch) -> Setup {
    let address = format!("shm:large?scope={}/scope", scratch.path().display());
    let address = address.parse().expect("an address");
    Setup::new(address, Options::default(), Schema::bytes())
}
