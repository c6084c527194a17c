//! What every row of the table of transports has to keep, between processes.

use std::time::Duration;

use switchboard::transport::{TABLE, Transport};
use switchboard::{Bytes, Queue, RecvError};
use switchboard_testkit::child::{Child, report};
use switchboard_testkit::{Scratch, unique};

/// An address of a row that nobody else uses, and what removes it.
fn address_of(row: &Transport, scratch: &Scratch) -> Option<String> {
    let path = scratch.join("a");
    let path = path.display();
    Some(match row.scheme {
        "fd" => return None,
        "mq" => format!("mq:/{}", unique("mq")),
        "sysv" => {
            std::fs::write(scratch.join("a"), "").expect("a file for a key");
            format!("sysv:{path}")
        }
        "tcp" | "udp" => format!("{}:127.0.0.1:{}", row.scheme, free_port()),
        scheme => format!("{scheme}:{path}"),
    })
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn message(n: u64) -> Vec<u8> {
    format!("message {n}").into_bytes()
}

/// Receives and reports everything: address, count.
pub(crate) fn receiver(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    let count: u64 = arguments[1].parse().expect("a count");
    let mut receiver = queue.receiver().expect("a receiver");
    report("ready");
    for _ in 0..count {
        match receiver.recv_timeout(Duration::from_secs(20)) {
            Ok(delivery) => {
                let bytes = receiver.acknowledge(delivery).expect("acknowledged");
                report(String::from_utf8_lossy(&bytes));
            }
            Err(RecvError::Ended) => break,
            Err(error) => {
                report(format!("error: {error}"));
                break;
            }
        }
    }
}

/// Sends so many numbered messages: address, count.
pub(crate) fn sender(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    let count: u64 = arguments[1].parse().expect("a count");
    let mut sender = queue.sender().expect("a sender");
    for n in 0..count {
        sender.send_bytes(&message(n)).expect("sent");
    }
    match sender.close() {
        Ok(()) => report("closed"),
        Err(error) => report(format!("error: {error}")),
    }
}

#[test]
fn messages_arrive_in_order() {
    for row in TABLE {
        let scratch = Scratch::new();
        let Some(address) = address_of(row, &scratch) else { continue };
        let mut receiver = Child::role("receiver", &[address.as_str(), "100"]);
        receiver.expect("ready");
        let mut sender = Child::role("sender", &[address.as_str(), "100"]);
        for n in 0..100 {
            let line = receiver.line();
            assert_eq!(
                line.as_deref().map(str::as_bytes),
                Some(message(n).as_slice()),
                "{address}"
            );
        }
        sender.expect("closed");
        assert!(sender.wait().success() && receiver.wait().success(), "{address}");
        let _ = switchboard::object::unlink(&address.parse().expect("an address"));
    }
}
