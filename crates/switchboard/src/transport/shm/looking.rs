//! Looking at the ends of a channel from outside: docs/design/counters.md. Nothing is made or removed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::memfd::Memfd;
use switchboard_kernel::private_folder;
use switchboard_kernel::unix_socket::{self, Kind};
use switchboard_kernel::{self as kernel, ErrorKind as K};

use super::base::{self, OpenFolder, Surroundings};
use super::counting::{ANSWER, LONGEST_ANSWER, LOOK, seals};
use super::datagram::{Datagram, LONGEST_BYTES};
use super::hello::end_name;
use super::name::{Entry, Found};
use super::peer::Peer;
use crate::address::Address;
use crate::counters::{Channel, Counts, End};
use crate::error::{Error, ErrorKind};
use crate::link::printable;

/// Ends that are asked at most.
pub(super) const MOST_ENDS: usize = 4096;
/// Connections at a time.
pub(super) const AT_A_TIME: usize = 64;
const LONGEST_PROGRAM: usize = 64;

/// Asks all ends of a channel, for so long at most.
pub(crate) fn look(address: &Address, timeout: Duration) -> Result<Channel, Error> {
    let name = super::name_of(address)?;
    let scope = address.query.scope.as_deref();
    let Some(folder) = base::find(address, scope, &Surroundings::here(), name.folder())? else {
        return Err(nobody(address));
    };
    let mut entries = entries_of(address, &folder)?;
    let left_out = entries.len().saturating_sub(MOST_ENDS);
    entries.truncate(MOST_ENDS);
    let deadline = Deadline::after(timeout);
    let mut ends = Vec::new();
    for some in entries.chunks(AT_A_TIME) {
        let asked: Vec<Asked> = some.iter().filter_map(|entry| ask(&folder, *entry)).collect();
        ends.extend(asked.into_iter().map(|asked| asked.end(deadline)));
    }
    if ends.is_empty() {
        return Err(nobody(address));
    }
    Ok(Channel { ends, left_out })
}

fn nobody(address: &Address) -> Error {
    Error::new(ErrorKind::NotFound, address, "nobody has this channel open")
        .hint("the ends of a channel are found where they meet: say the same ?scope= as they do")
}

/// The ends that have a name, writing ones first.
fn entries_of(address: &Address, folder: &OpenFolder) -> Result<Vec<Entry>, Error> {
    entries_in(&folder.folder).map_err(|error| {
        let doing = format!("cannot list the names in {}", folder.path.display());
        Error::system(address, &doing, error)
    })
}

/// As [`entries_of`], of any folder.
pub(super) fn entries_in(folder: impl AsFd) -> kernel::Result<Vec<Entry>> {
    let names = private_folder::names(folder)?;
    let entry = |name: &OsStr| match name.to_str().and_then(Entry::parse) {
        Some(Found::Visible(entry)) => Some(entry),
        _ => None,
    };
    let mut entries: Vec<Entry> = names.iter().filter_map(|name| entry(name)).collect();
    entries.sort_by_key(|entry| (entry.pattern as u8, entry.role, entry.id));
    Ok(entries)
}

/// An end to which a connection was made.
pub(super) struct Asked {
    entry: Entry,
    /// None where this process may not connect to it.
    peer: Option<Peer>,
    /// Where the answer comes, or why none does.
    socket: Result<OwnedFd, String>,
}

/// Asks an end; none if nobody is there any more.
pub(super) fn ask(folder: &OpenFolder, entry: Entry) -> Option<Asked> {
    let name = entry.to_string();
    let socket =
        match unix_socket::connect_in(Kind::Seqpacket, &folder.folder, OsStr::new(&name), true) {
            Ok(socket) => socket,
            Err(error) if matches!(error.kind(), K::ConnectionRefused | K::NotFound) => {
                return None;
            }
            Err(error) => return Some(Asked { entry, peer: None, socket: Err(why_not(&error)) }),
        };
    let peer = Peer::of(socket.as_fd()).ok()?;
    let socket = match unix_socket::send(&socket, LOOK) {
        Ok(_) => Ok(socket),
        // It said why not, and closed, before it was asked: that can be read.
        Err(error) if matches!(error.kind(), K::BrokenPipe | K::ConnectionReset) => Ok(socket),
        Err(error) => Err(why_not(&error)),
    };
    Some(Asked { entry, peer: Some(peer), socket })
}

fn why_not(error: &kernel::Error) -> String {
    match error.kind() {
        K::PermissionDenied => "it is another user's".to_owned(),
        K::WouldBlock => "does not answer: too many connections wait".to_owned(),
        _ => format!("cannot be asked: {error}"),
    }
}

impl Asked {
    /// What it answers until the deadline.
    pub(super) fn end(self, deadline: Deadline) -> End {
        let answer = self.socket.and_then(|socket| {
            let misbehaves = |problem: &str| format!("misbehaves: {problem}");
            match wait_for(&socket, Interest::Readable, deadline) {
                Ok(true) => take(&socket, misbehaves),
                Ok(false) => Err("does not answer: it is stopped, or nobody drives it".to_owned()),
                Err(error) => Err(format!("cannot be asked: {error}")),
            }
        });
        let Entry { pattern, role, id } = self.entry;
        let name = end_name(pattern, role);
        let role = name.split_once(' ').map_or(name, |(_, role)| role);
        let (pid, uid) = (self.peer.as_ref().and_then(|peer| peer.pid), self.peer.as_ref());
        let uid = uid.map(|peer| peer.uid);
        let program = self.peer.map(|peer| printable(peer.program.as_bytes(), LONGEST_PROGRAM));
        let program = program.unwrap_or_default();
        End { id: id.to_string(), pattern: pattern.name(), role, pid, uid, program, answer }
    }
}

/// Takes an answer and checks it.
fn take(socket: &OwnedFd, misbehaves: impl Fn(&str) -> String) -> Result<Counts, String> {
    let mut bytes = [0; LONGEST_BYTES];
    let mut received = unix_socket::recv_with_fds(socket, &mut bytes, 1);
    if received.as_ref().is_err_and(|error| error.kind() == K::ConnectionReset) {
        // It closed with the question unread. What it said before is still there.
        received = unix_socket::recv_with_fds(socket, &mut bytes, 1);
    }
    let (received, descriptors) = match received {
        Ok(taken) => taken,
        Err(error) if error.kind() == K::ConnectionReset => return Err(GONE.to_owned()),
        Err(error) => return Err(format!("cannot be asked: {error}")),
    };
    let said = &bytes[..received.len.min(bytes.len())];
    if said.is_empty() {
        return Err(GONE.to_owned());
    }
    if said != ANSWER {
        return Err(match Datagram::decode_first(said, descriptors.len()) {
            Ok(Datagram::Refuse(why) | Datagram::Denied(why)) => format!("refuses: {why}"),
            _ => misbehaves("it says something else than it was asked for"),
        });
    }
    let memory = descriptors.into_iter().next().ok_or_else(|| misbehaves("no answer came"))?;
    let memory = Memfd::received(memory, seals())
        .map_err(|_| misbehaves("its answer is no memory that stays as it is"))?;
    let len = memory.len_bytes().unwrap_or(u64::MAX);
    if len > LONGEST_ANSWER {
        return Err(misbehaves("its answer is too long"));
    }
    let mut json = vec![0; len as usize];
    let file = File::from(OwnedFd::from(memory));
    file.read_exact_at(&mut json, 0).map_err(|_| misbehaves("its answer cannot be read"))?;
    let mut counts: Counts =
        serde_json::from_slice(&json).map_err(|_| misbehaves("its answer has another form"))?;
    for link in &mut counts.links {
        link.name = printable(link.name.as_bytes(), 2 * LONGEST_PROGRAM);
        link.peer = printable(link.peer.as_bytes(), 32);
    }
    Ok(counts)
}

const GONE: &str = "gone before it answered";
