//! A peer that says whatever the test wants, byte by byte.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_testkit::DEADLINE;

use super::Meeting;

pub(crate) const PREFACE: &[u8] = b"\x89SWB\r\n\x1a\n";
pub(crate) const HELLO: u8 = 1;
pub(crate) const MESSAGE: u8 = 2;
pub(crate) const ACK_THROUGH: u8 = 3;
pub(crate) const ACK_ONE: u8 = 4;
pub(crate) const REJECT: u8 = 5;
pub(crate) const END: u8 = 6;
pub(crate) const END_SEEN: u8 = 7;
pub(crate) const REFUSE: u8 = 8;
pub(crate) const BEGIN: u8 = 9;

/// A frame that says it is `len` bytes long, with this body.
pub(crate) fn frame_of(len: u32, kind: u8, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend([kind, 0, 0, 0]);
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(body);
    bytes
}

pub(crate) fn frame(kind: u8, sequence: u64, body: &[u8]) -> Vec<u8> {
    frame_of(u32::try_from(body.len()).expect("a length"), kind, sequence, body)
}

/// A hello of a queue's end.
pub(crate) fn hello_body(version: u16, role: u8, window: u32) -> Vec<u8> {
    hello_of(version, QUEUE, role, window)
}

/// A hello that says this pattern and role.
pub(crate) fn hello_of(version: u16, pattern: u8, role: u8, window: u32) -> Vec<u8> {
    let mut body = version.to_le_bytes().to_vec();
    body.extend([pattern, role, 0, 0, 0, 0]);
    body.extend(7_u64.to_le_bytes());
    body.extend(0_u64.to_le_bytes());
    body.extend((1_u32 << 20).to_le_bytes());
    body.extend(window.to_le_bytes());
    body.extend(window.to_le_bytes());
    body.extend([0, 0, 0]);
    body
}

pub(crate) const QUEUE: u8 = 1;
pub(crate) const TOPIC: u8 = 2;
/// Where messages come from, and where they go to.
pub(crate) const SENDER: u8 = 1;
pub(crate) const RECEIVER: u8 = 2;

/// The preface, a good hello in this role, and more.
pub(crate) fn met(role: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(HELLO, 0, &hello_body(1, role, 100)));
    bytes.extend(more);
    bytes
}

/// Preface and a frame.
pub(crate) fn opened(frame: &[u8]) -> Vec<u8> {
    [PREFACE, frame].concat()
}

pub(crate) fn both(one: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
    [one, other].concat()
}

/// A connection of the test's own.
pub(crate) struct Liar(pub(crate) OwnedFd);

pub(crate) fn kind_of(scheme: &str) -> Kind {
    if scheme == "unix" { Kind::Stream } else { Kind::Seqpacket }
}

impl Liar {
    pub(crate) fn connect(meeting: &Meeting) -> Self {
        let target = meeting.address().split_once(':').expect("a scheme").1;
        Self(match meeting.row.scheme {
            "tcp" => TcpStream::connect(target).expect("a connection").into(),
            scheme => {
                let address = Address::Path(target.into());
                unix::connect_to(kind_of(scheme), &address, false).expect("a connection")
            }
        })
    }

    /// Says everything, as far as the other side listens.
    pub(crate) fn say(&self, mut bytes: &[u8]) {
        io::set_nonblocking(&self.0, true).expect("a mode");
        while !bytes.is_empty() {
            match unix::send(&self.0, &bytes[..bytes.len().min(60_000)]) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == switchboard_kernel::ErrorKind::WouldBlock => {
                    let until = Deadline::after(DEADLINE);
                    assert!(wait_for(&self.0, Interest::Writable, until).expect("a poll"), "stuck");
                }
                Err(_) => return,
            }
        }
    }

    /// Waits until the other side closed, and gives what it said before.
    pub(crate) fn hear_the_end(&self) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            let until = Deadline::after(DEADLINE);
            assert!(wait_for(&self.0, Interest::Readable, until).expect("a poll"), "never closed");
            match io::read(&self.0, &mut buffer) {
                Ok(0) => return heard,
                Ok(n) => heard.extend(&buffer[..n]),
                Err(error) if error.kind() == switchboard_kernel::ErrorKind::WouldBlock => {}
                Err(_) => return heard,
            }
        }
    }
}
