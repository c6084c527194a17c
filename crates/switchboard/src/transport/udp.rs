//! `udp:HOST:PORT`: UDP datagrams, numbered so that gaps are seen.
//!
//! Source: `udp(7)`. A datagram may be lost, come twice or out of order; the receiver is told how many
//! are missing. Nothing is encrypted: anything but a loopback address needs `?plaintext`.
//!
//! ```text
//! 0   4 bytes  53 57 55 01      8   u64  sender: random, little-endian
//! 4   u32      0 message, 1 end 16  u64  sequence, from 1; at the end: one more than the last
//! ```

use std::os::fd::OwnedFd;

use switchboard_kernel as kernel;
use switchboard_kernel::udp;

use super::packet::{PacketReceiver, PacketSender};
use super::tcp::{holder_of, resolve};
use super::{ReceiverFlavor, SenderFlavor, Setup};
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;

/// The largest numbered message: the largest datagram over IPv4 less the header.
pub(crate) const LARGEST_MESSAGE_BYTES: u32 =
    udp::LARGEST_PAYLOAD as u32 - Numbering::HEADER_BYTES as u32;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let numbered = numbered(setup)?;
    Ok(SenderFlavor::Packet(PacketSender::new(setup.again(), dial, numbered)?))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let numbered = numbered(setup)?;
    let addr = resolve(&setup.address)?;
    let fd = udp::bind(addr, true).map_err(|error| {
        if error.kind() == kernel::ErrorKind::AddressInUse {
            let holder = holder_of("udp", "07", addr);
            let problem = format!("address in use: {holder} has bound it");
            return Error::new(ErrorKind::AddressInUse, &setup.address, problem)
                .hint("choose another port, or port 0 for any free one");
        }
        setup.system("cannot bind", error)
    })?;
    let local = kernel::tcp::local_address(&fd).ok().map(|addr| format!("udp:{addr}"));
    Ok(ReceiverFlavor::Packet(PacketReceiver::new(setup.again(), fd, local, numbered, None)))
}

fn dial(setup: &Setup) -> Result<Option<OwnedFd>, Error> {
    let addr = resolve(&setup.address)?;
    udp::connect(addr, true).map(Some).map_err(|error| setup.system("cannot connect", error))
}

fn numbered(setup: &Setup) -> Result<bool, Error> {
    match setup.address.query.framing {
        None => Ok(true),
        Some(Framing::Raw) => Ok(false),
        Some(other) => Err(Error::new(
            ErrorKind::BadAddress,
            &setup.address,
            format!("udp: numbers its datagrams, or takes ?framing=raw; not {other}"),
        )),
    }
}

/// The header of numbered datagrams, and a sender's count.
#[derive(Debug)]
pub(super) struct Numbering {
    sender: u64,
    next: u64,
}

/// A header that was read and checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) sender: u64,
    pub(super) sequence: u64,
    pub(super) end: bool,
}

const MAGIC: [u8; 4] = *b"SWU\x01";

impl Numbering {
    pub(super) const HEADER_BYTES: usize = 24;

    pub(super) fn new() -> Self {
        Self { sender: super::hub::random(), next: 1 }
    }

    pub(super) fn write_message(&self, frame: &mut Vec<u8>, payload: &[u8]) {
        self.write(frame, 0);
        frame.extend_from_slice(payload);
    }

    pub(super) fn write_end(&self, frame: &mut Vec<u8>) {
        self.write(frame, 1);
    }

    /// The message was given to the kernel: the next one has the next number.
    pub(super) fn sent(&mut self) {
        self.next += 1;
    }

    fn write(&self, frame: &mut Vec<u8>, kind: u32) {
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(&self.sender.to_le_bytes());
        frame.extend_from_slice(&self.next.to_le_bytes());
    }

    pub(super) fn read(datagram: &[u8]) -> Option<Number> {
        let (magic, rest) = datagram.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (sender, rest) = rest.split_first_chunk::<8>()?;
        let (sequence, _) = rest.split_first_chunk::<8>()?;
        let kind = u32::from_le_bytes(*kind);
        let sequence = u64::from_le_bytes(*sequence);
        (*magic == MAGIC && kind <= 1 && sequence > 0 && sequence < u64::MAX).then(|| Number {
            sender: u64::from_le_bytes(*sender),
            sequence,
            end: kind == 1,
        })
    }
}
