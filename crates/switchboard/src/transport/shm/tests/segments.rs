//! The memory of large messages comes on the control path, whoever looks there first.

use switchboard_kernel::io::Deadline;
use switchboard_testkit::Scratch;

use crate::error::SendError;
use crate::message::Schema;
use crate::options::Options;
use crate::transport::shm::endpoint::Core;
use crate::transport::shm::ends::Opened;
use crate::transport::shm::publisher::PublisherCore;
use crate::transport::shm::reading::{ReaderCore, Reading};
use crate::transport::shm::receiver::Reception;
use crate::transport::shm::sender::SenderCore;
use crate::transport::shm::subscriber::Subscription;
use crate::transport::{Raw, Setup};

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
    let mut lengths = Vec::new();
    let mut with = |raw: Raw<'_>| lengths.push(raw.payload.len());
    send(&mut writer, b"first").expect("room");
    assert!(reader.take(&mut with).expect("no report"));
    send(&mut writer, &large).expect("room");
    assert_eq!(reader.take_more(8, &mut with), 0);
    Core::control(&mut reader);
    assert!(reader.take(&mut with).expect("no report"));
    assert!(!reader.take(&mut with).expect("no report"));
    assert_eq!(lengths, [5, large.len()]);
}

fn setup(scratch: &Scratch) -> Setup {
    let address = format!("shm:large?scope={}/scope", scratch.path().display());
    let address = address.parse().expect("an address");
    Setup { address, options: Options::default(), schema: Schema::bytes() }
}
