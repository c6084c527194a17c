//! What the ends of a channel have done, read from outside: docs/design/counters.md.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let channel = switchboard::counters::look(&"shm:engine".parse()?, Duration::from_secs(1))?;
//! for end in &channel.ends {
//!     match &end.answer {
//!         Ok(counts) => println!("{} {}: {} sent", end.role, end.id, counts.sent.unwrap_or(0)),
//!         Err(why) => println!("{} {}: {why}", end.role, end.id),
//!     }
//! }
//! # Ok::<(), switchboard::Error>(())
//! ```

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// The ends of a channel that are there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Channel {
    /// Writing ends first, then by their IDs.
    pub ends: Vec<End>,
    /// Ends that were not asked: there are more than 4096.
    pub left_out: usize,
}

/// One end: who it is, by the kernel's word, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// 32 hexadecimal digits, random, never used again.
    pub id: String,
    /// `queue`, `topic` or `service`.
    pub pattern: &'static str,
    /// `sender`, `receiver`, `publisher`, `subscriber`, `client` or `server`.
    pub role: &'static str,
    /// Its process; none if that has no id in this process's PID namespace.
    pub pid: Option<u32>,
    /// Its effective user when it began to listen; none where this process may not connect to it.
    pub uid: Option<u32>,
    /// The name of its program, as the kernel has it.
    pub program: String,
    /// Its counters, or why there are none.
    pub answer: Result<Counts, String>,
}

/// The counters of one end. What an end of its role does not count is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Counts {
    /// Messages accepted; what is given out again does not count again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Their payload, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Messages handed to the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Messages of a topic that are missing: overwritten, or longer than this end takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Messages of a queue that its receivers have settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u64>,
    /// Messages of a queue that were given up, having been given back too often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
    /// Messages of a queue that are accepted and in nobody's ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// How often the caller slept.
    pub waits: u64,
    /// Wake-ups given to peers.
    pub wake_ups: u64,
    /// Sleeps that nobody ended although something was there: stays 0.
    pub late: u64,
    /// The links that are open.
    pub links: Vec<LinkCounts>,
}

/// The counters of one link of an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LinkCounts {
    /// The peer's ID.
    pub peer: String,
    /// The peer as this end knows it: `process 12 (recv)`.
    pub name: String,
    /// The number of the last message in the link's ring (a writing end), or that was taken from it.
    pub number: u64,
    /// Messages received over this link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Messages missing from this link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Messages behind: of a queue those that are not settled; of a topic those that the subscriber has not
    /// taken, where both ends answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// Bytes of the ring between its head and the reader's cursor, as it was stored last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_bytes: Option<u64>,
}

/// The channels that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Around {
    /// Those that somebody has open, by their addresses.
    pub channels: Vec<Nearby>,
    /// Folders that were named and could not be looked into, and why.
    pub not_seen: Vec<String>,
}

/// A channel that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nearby {
    /// Its address, as an end of this user says it; of a name too long for a folder, how it begins.
    pub address: String,
    /// Where its ends meet.
    pub folder: PathBuf,
    /// Its ends.
    pub channel: Channel,
}

/// Finds every channel of `shm:` where this user's ends meet, the system's, and other users' as far as they let this one in, and in
/// the scopes that are named (`?scope=`); asks all their ends as [`look`] does. Changes nothing. The timeout is for 64 ends
/// together.
///
/// # Limits
/// 4096 channels, 4096 ends.
#[must_use]
pub fn look_around(scopes: &[PathBuf], timeout: Duration) -> Around {
    let mut around = crate::transport::look_around(scopes, timeout);
    for one in &mut around.channels {
        merge(&mut one.channel.ends);
        fill_in(&mut one.channel);
    }
    around
}

/// Asks each end of a channel for its counters, and waits for all answers together so long at most. Changes
/// nothing.
///
/// # Errors
/// `NotFound`: the channel has no end; `NotSupported`: the transport's ends keep no counters that can be asked
/// for; `PermissionDenied`: the place where its ends meet belongs to somebody else; what the system says.
///
/// # Limits
/// 4096 ends; an answer of 4 MiB.
pub fn look(address: &Address, timeout: Duration) -> Result<Channel, Error> {
    if address.scheme() != "shm" {
        let problem = "only ends of shm: answer for their counters";
        return Err(Error::new(ErrorKind::NotSupported, address, problem)
            .hint("`switchboard show` and `who` say what the kernel knows of other objects"));
    }
    let mut channel = crate::transport::look_at_channel(address, timeout)?;
    merge(&mut channel.ends);
    fill_in(&mut channel);
    Ok(channel)
}

/// An end of a service has a ring of calls and one of answers, which answer each for itself.
fn merge(ends: &mut Vec<End>) {
    let mut merged: Vec<End> = Vec::with_capacity(ends.len());
    for end in ends.drain(..) {
        let same = |one: &&mut End| one.id == end.id && one.role == end.role && one.pid == end.pid;
        match (merged.iter_mut().find(same), end.answer) {
            (None, answer) => merged.push(End { answer, ..end }),
            (Some(one), Ok(counts)) => {
                if let Ok(sum) = &mut one.answer {
                    sum.add(counts);
                }
            }
            (Some(one), Err(why)) => one.answer = Err(why),
        }
    }
    *ends = merged;
}

impl Counts {
    fn add(&mut self, other: Self) {
        let pairs = [
            (&mut self.sent, other.sent),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.received, other.received),
            (&mut self.dropped, other.dropped),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.rejected, other.rejected),
            (&mut self.waiting, other.waiting),
        ];
        for (sum, more) in pairs {
            add(sum, more);
        }
        self.waits = self.waits.saturating_add(other.waits);
        self.wake_ups = self.wake_ups.saturating_add(other.wake_ups);
        self.late = self.late.saturating_add(other.late);
        for link in other.links {
            match self.links.iter_mut().find(|one| one.peer == link.peer) {
                None => self.links.push(link),
                Some(one) => {
                    one.number = one.number.max(link.number);
                    add(&mut one.received, link.received);
                    add(&mut one.dropped, link.dropped);
                    add(&mut one.behind, link.behind);
                    add(&mut one.behind_bytes, link.behind_bytes);
                }
            }
        }
    }
}

/// The sum of what is there. They are a peer's words, so it may not overflow.
fn add(sum: &mut Option<u64>, more: Option<u64>) {
    *sum = match (*sum, more) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    };
}

/// How far subscribers are behind: their publishers know the last number, and they the last that they took.
fn fill_in(channel: &mut Channel) {
    let taken: Vec<(String, String, u64)> = (channel.ends.iter())
        .filter(|end| end.role == "subscriber")
        .flat_map(|end| end.answer.iter().flat_map(move |counts| links_of(&end.id, counts)))
        .collect();
    for end in channel.ends.iter_mut().filter(|end| end.role == "publisher") {
        let Ok(counts) = &mut end.answer else { continue };
        for link in &mut counts.links {
            let same = |one: &&(String, String, u64)| one.0 == link.peer && one.1 == end.id;
            // Asked at different moments: it may have taken what was published since.
            let behind = taken.iter().find(same).map(|one| link.number.saturating_sub(one.2));
            link.behind = behind;
        }
    }
}

fn links_of(id: &str, counts: &Counts) -> impl Iterator<Item = (String, String, u64)> {
    counts.links.iter().map(move |link| (id.to_owned(), link.peer.clone(), link.number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: &str, answer: Result<Counts, String>) -> End {
        let (program, role) = ("x".to_owned(), "server");
        End { id: id.into(), pattern: "service", role, pid: Some(1), uid: None, program, answer }
    }

    fn link(peer: &str, number: u64, behind: Option<u64>) -> LinkCounts {
        LinkCounts { peer: peer.into(), number, behind, ..LinkCounts::default() }
    }

    #[test]
    fn both_rings_of_a_service_are_one_end() {
        let calls = Counts {
            received: Some(5),
            waits: 2,
            links: vec![link("a", 5, None), link("b", 1, None)],
            ..Counts::default()
        };
        let answers = Counts {
            sent: Some(4),
            waits: u64::MAX,
            links: vec![link("a", 4, Some(1))],
            ..Counts::default()
        };
        let mut ends =
            vec![end("x", Ok(calls)), end("y", Ok(Counts::default())), end("x", Ok(answers))];
        merge(&mut ends);
        assert_eq!((ends.len(), &*ends[0].id, &*ends[1].id), (2, "x", "y"));
        let counts = ends[0].answer.as_ref().expect("an answer");
        assert_eq!((counts.received, counts.sent, counts.waits), (Some(5), Some(4), u64::MAX));
        assert_eq!(counts.links, [link("a", 5, Some(1)), link("b", 1, None)]);
        let mut ends = vec![end("x", Ok(Counts::default())), end("x", Err("stopped".into()))];
        merge(&mut ends);
        assert_eq!(ends, [end("x", Err("stopped".into()))]);
    }
}
