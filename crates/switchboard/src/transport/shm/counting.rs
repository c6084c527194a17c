//! The answer to somebody who looks at an end: docs/design/counters.md.
//!
//! ```text
//! looker   Look, as the first and only datagram of a connection
//! end      SWBDCNT1, and a memfd: the counters as JSON, sealed against every change
//! ```

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use switchboard_kernel::memfd::{Memfd, Seals};
use switchboard_kernel::unix_socket;

use super::control::{Control, LinkId};
use super::meeting::Offer;
use crate::counters::{Counts, LinkCounts};

/// What a looker says.
pub(super) const LOOK: &[u8; 8] = b"SWBDLOOK";
/// What comes with the answer.
pub(super) const ANSWER: &[u8; 8] = b"SWBDCNT1";
/// The longest answer: some 3072 links.
pub(super) const LONGEST_ANSWER: u64 = 4 << 20;

/// The seals of an answer: nobody can change it, the end that gave it neither.
pub(super) fn seals() -> Seals {
    Seals::SHRINK | Seals::GROW | Seals::WRITE | Seals::SEAL
}

/// Gives somebody who looks the counters. Without waiting; if it cannot be done, the connection closes.
pub(super) fn answer(socket: &OwnedFd, counts: &Counts) {
    if let Some(memory) = in_memory(counts) {
        let _ = unix_socket::send_with_fds(socket, ANSWER, &[memory.as_fd()]);
    }
}

fn in_memory(counts: &Counts) -> Option<OwnedFd> {
    let json = serde_json::to_vec(counts).ok()?;
    let memory = Memfd::create("switchboard-counters", json.len() as u64).ok()?;
    let mut file = File::from(memory.as_fd().try_clone_to_owned().ok()?);
    file.write_all(&json).ok()?;
    memory.add_seals(seals()).ok()?;
    Some(memory.into())
}

/// A link of which nothing but the peer is said yet.
pub(super) fn link<O: Offer>(control: &Control<O>, link: LinkId) -> LinkCounts {
    let peer = control.peer_id(link).map(|id| id.to_string()).unwrap_or_default();
    LinkCounts { peer, name: control.peer_name(link), ..LinkCounts::default() }
}
