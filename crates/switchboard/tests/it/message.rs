//! Messages: what arrives is what was sent, or an error that names both types.

use serde::{Deserialize, Serialize};
use switchboard::{
    Bytes, ErrorKind, Json, Message, Named, Plain, Queue, RecvError, SendError, Text,
};
use switchboard_testkit::Scratch;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Reading {
    celsius: f64,
    sensor: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Order {
    price: u64,
    amount: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    steps: Vec<u32>,
}

fn there_and_back<T: Message + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = value.encode(<[u8]>::to_vec).expect("bytes");
    assert_eq!(&T::decode(&bytes).expect("a value"), value);
}

#[test]
fn values_survive_their_encoding() {
    there_and_back(&Reading { celsius: -1.5, sensor: u64::MAX });
    there_and_back(&Bytes(vec![0, 255, b'\n']));
    there_and_back(&Text("Zürich\n".into()));
    there_and_back(&Json(Job { name: "press".into(), steps: vec![1, 2] }));
    assert!(Reading::decode(&[0; 15]).is_err() && Reading::decode(&[0; 17]).is_err());
    assert!(Text::decode(&[0xff]).is_err());
    assert!(Json::<Job>::decode(b"{\"name\":1}").is_err());
}

#[test]
fn plain_types_of_the_same_size_are_told_apart() {
    let (reading, order) = (Reading::schema(), Order::schema());
    assert_ne!(reading.fingerprint, order.fingerprint);
    assert!(reading.name.contains("Reading") && reading.name.contains("16 bytes"));
    assert_eq!(Bytes::schema().fingerprint, 0);
}

/// The same message as another program might define it.
mod elsewhere {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub(super) struct Measured {
        pub(super) celsius: f64,
        pub(super) from: u64,
    }

    impl Named for Measured {
        const NAME: &'static str = "reading/1";
    }
}

impl Named for Reading {
    const NAME: &'static str = "reading/1";
}

impl Named for Order {
    const NAME: &'static str = "reading/2";
}

#[test]
fn a_plain_type_may_give_itself_a_name() {
    assert_ne!(Reading::schema(), elsewhere::Measured::schema(), "the paths differ");
    assert_eq!(Plain::<Reading>::schema(), Plain::<elsewhere::Measured>::schema());
    assert_ne!(Plain::<Reading>::schema().fingerprint, Plain::<Order>::schema().fingerprint);
    there_and_back(&Plain(Reading { celsius: -1.5, sensor: u64::MAX }));
    let scratch = Scratch::new();
    let address = format!("unix:{}", scratch.join("s").display());
    let queue = Queue::<Plain<elsewhere::Measured>>::open(&address).expect("a queue");
    let mut receiver = queue.receiver().expect("a receiver");
    let sending = std::thread::spawn(move || {
        let queue = Queue::<Plain<Reading>>::open(&address).expect("a queue");
        let mut sender = queue.sender().expect("a sender");
        sender.send(&Plain(Reading { celsius: 21.5, sensor: 7 })).expect("sent");
        sender.close().expect("closed");
    });
    let delivery = receiver.recv_timeout(switchboard_testkit::DEADLINE).expect("a message");
    let Plain(measured) = receiver.acknowledge(delivery).expect("acknowledged");
    assert_eq!(measured, elsewhere::Measured { celsius: 21.5, from: 7 });
    assert!(matches!(receiver.recv_timeout(switchboard_testkit::DEADLINE), Err(RecvError::Ended)));
    sending.join().expect("the sender");
}

#[test]
fn a_mismatch_is_an_error_that_names_both() {
    let scratch = Scratch::new();
    let address = format!("unix:{}", scratch.join("s").display());
    let receiving = address.clone();
    let receiver = std::thread::spawn(move || {
        let queue = Queue::<Order>::open(&receiving).expect("a queue");
        let mut receiver = queue.receiver().expect("a receiver");
        let error = receiver.recv_timeout(switchboard_testkit::DEADLINE).expect_err("no orders");
        let RecvError::PeerRefused { problem, .. } = error else { panic!("{error}") };
        assert!(problem.contains("Order") && problem.contains("Reading"), "{problem}");
    });
    let mut sender = Queue::<Reading>::open(&address).expect("a queue").sender().expect("a sender");
    let error = sender.send(&Reading { celsius: 1.0, sensor: 1 }).expect_err("no readings");
    let SendError::Failed(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    assert!(text.contains("Order") && text.contains("Reading"), "{text}");
    receiver.join().expect("the receiver");
    // Closing does not wait for one that fits.
    let error = sender.finish().expect_err("no receiver fits");
    assert_eq!(error.unacknowledged, 0);
    assert!(error.to_string().contains("Order"), "{error}");
}
