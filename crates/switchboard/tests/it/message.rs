//! Messages: what arrives is what was sent, or an error that names both types.

use serde::{Deserialize, Serialize};
use switchboard::{Bytes, ErrorKind, Json, Message, Queue, RecvError, SendError, Text};
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
