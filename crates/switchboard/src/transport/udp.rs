//! `udp:HOST:PORT`: UDP datagrams, numbered so that gaps are seen.
//!
//! Source: `udp(7)`. A datagram may be lost, come twice or out of order; the receiver is told how many
//! are missing. Nothing is encrypted: anything but a loopback address needs `?plaintext`.
//!
//! Anybody who can reach the port can forge a datagram, so what the numbers say is bounded: the counts
//! of [`MOST_SENDERS`] senders are kept, and a known sender's number may go ahead by [`LARGEST_GAP`].
//!
//! ```text
//! 0   4 bytes  53 57 55 01      8   u64  sender: random, little-endian
//! 4   u32      0 message, 1 end 16  u64  sequence, from 1; at the end: one more than the last
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use switchboard_kernel as kernel;
use switchboard_kernel::udp;

use super::packet::{PacketReceiver, PacketSender};
use super::tcp::{cannot_bind, resolve};
use super::{ReceiverFlavor, SenderFlavor, Setup, holder};
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
            let holder = holder::of_port("udp", "07", addr);
            let problem = format!("address in use: {holder} has bound it");
            return Error::new(ErrorKind::AddressInUse, &setup.address, problem)
                .hint("choose another port, or port 0 for any free one");
        }
        cannot_bind(&setup.address, addr, error)
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

/// Senders remembered at most. For a further one the one that was silent longest is forgotten.
pub(super) const MOST_SENDERS: usize = 4096;

/// How many messages of a known sender can be missing in a row. A datagram that is further ahead is a
/// forgery or a fault: it is refused, and does not move the count.
pub(super) const LARGEST_GAP: u64 = 1 << 32;

/// The senders seen, by the number each chose: what is next from each.
#[derive(Debug, Default)]
pub(super) struct Senders {
    seen: HashMap<u64, Seen>,
    /// Datagrams counted so far: the clock by which senders are silent.
    heard: u64,
    /// Those that did not say their end.
    active: usize,
    /// Some were forgotten, and may come again: the first number of a new one says nothing then.
    forgot: bool,
}

#[derive(Debug)]
struct Seen {
    /// `None` until a first number is believed.
    next: Option<u64>,
    ended: bool,
    last_heard: u64,
}

/// What the number of a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// A message, and how many of its sender are missing right before it.
    Message { lost_before: u64 },
    /// The sender's end, heard first, and how many of its messages are missing right before it.
    End { lost_before: u64 },
    /// An end that was heard before.
    EndAgain,
    /// A jump that is not believed: this number, where that one is next.
    TooFar { sequence: u64, next: u64 },
}

impl Senders {
    /// Counts a datagram.
    pub(super) fn count(&mut self, number: Number) -> Counted {
        self.heard += 1;
        if !self.seen.contains_key(&number.sender) {
            self.add(number.sender);
        }
        let Some(entry) = self.seen.get_mut(&number.sender) else { return Counted::EndAgain };
        let sequence = number.sequence;
        // A sender whose first number is that far may have been at it long before this side was.
        let unknown = sequence.saturating_sub(1) > LARGEST_GAP;
        let next = match entry.next {
            Some(next) => next,
            None if self.forgot || unknown => sequence,
            None => 1,
        };
        let lost_before = sequence.saturating_sub(next);
        if lost_before > LARGEST_GAP {
            return Counted::TooFar { sequence, next };
        }
        entry.last_heard = self.heard;
        // The end has the number of the message that does not follow.
        let after = if number.end { sequence } else { sequence.saturating_add(1) };
        entry.next = Some(next.max(after));
        if !number.end {
            return Counted::Message { lost_before };
        }
        if std::mem::replace(&mut entry.ended, true) {
            return Counted::EndAgain;
        }
        self.active -= 1;
        Counted::End { lost_before }
    }

    /// Whether there were senders, and all that are remembered said their end.
    pub(super) fn all_ended(&self) -> bool {
        self.active == 0 && !self.seen.is_empty()
    }

    fn add(&mut self, sender: u64) {
        if self.seen.len() >= MOST_SENDERS {
            self.forget_one();
        }
        self.active += 1;
        self.seen.insert(sender, Seen { next: None, ended: false, last_heard: self.heard });
    }

    fn forget_one(&mut self) {
        let silent = self.seen.iter().min_by_key(|(_, seen)| seen.last_heard);
        let Some(sender) = silent.map(|(sender, _)| *sender) else { return };
        if self.seen.remove(&sender).is_some_and(|seen| !seen.ended) {
            self.active -= 1;
        }
        self.forgot = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(senders: &mut Senders, sender: u64, sequence: u64, end: bool) -> Counted {
        senders.count(Number { sender, sequence, end })
    }

    #[test]
    fn absurd_jumps_are_not_believed() {
        let mut senders = Senders::default();
        let message = |lost_before| Counted::Message { lost_before };
        assert_eq!(count(&mut senders, 1, 1, false), message(0));
        let far = u64::MAX - 1;
        let refused = Counted::TooFar { sequence: far, next: 2 };
        assert_eq!(count(&mut senders, 1, far, false), refused);
        assert_eq!(count(&mut senders, 1, far, true), refused);
        assert_eq!(count(&mut senders, 1, 3, false), message(1), "the count was not moved");
        assert_eq!(count(&mut senders, 1, 4 + LARGEST_GAP, false), message(LARGEST_GAP));
        assert!(!senders.all_ended());
        // One that was at it before this side was.
        assert_eq!(count(&mut senders, 2, far, false), message(0));
        assert_eq!(count(&mut senders, 2, far, true), Counted::End { lost_before: 0 });
        assert_eq!(count(&mut senders, 1, 5 + LARGEST_GAP, true), Counted::End { lost_before: 0 });
        assert_eq!(count(&mut senders, 1, 5 + LARGEST_GAP, true), Counted::EndAgain);
        assert!(senders.all_ended());
    }

    #[test]
    fn the_longest_silent_sender_is_forgotten_and_its_first_number_is_unknown_then() {
        let mut senders = Senders::default();
        let message = |lost_before| Counted::Message { lost_before };
        assert_eq!(count(&mut senders, 1, 1, false), message(0));
        assert_eq!(count(&mut senders, 2, 1, false), message(0));
        for forged in 0..MOST_SENDERS as u64 - 1 {
            // The first one goes on meanwhile, the second one is silent.
            assert_eq!(count(&mut senders, 1, 2 + forged, false), message(0));
            assert_eq!(
                count(&mut senders, 1000 + forged, 1, true),
                Counted::End { lost_before: 0 }
            );
        }
        assert_eq!(senders.seen.len(), MOST_SENDERS);
        assert_eq!(count(&mut senders, 1, MOST_SENDERS as u64 + 3, false), message(2));
        assert_eq!(count(&mut senders, 2, 8, false), message(0), "it was forgotten");
        assert_eq!(count(&mut senders, 2, 10, false), message(1));
        assert_eq!(
            count(&mut senders, 1, MOST_SENDERS as u64 + 4, true),
            Counted::End { lost_before: 0 }
        );
        assert!(!senders.all_ended(), "the second one is still there");
        assert_eq!(count(&mut senders, 2, 11, true), Counted::End { lost_before: 0 });
        assert!(senders.all_ended());
    }
}
