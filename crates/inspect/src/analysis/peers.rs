//! Who is at the other end.
//!
//! Source: docs/design/inspect.md, "Ends".

use crate::kind::Kind;
use crate::model::{End, Object, Snapshot, Via};

/// Somebody at an end of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder<'a> {
    /// The object it holds: the one that was asked for, its peer, or the listener in whose hands it is.
    pub object: &'a Object,
    /// Its hold.
    pub end: &'a End,
}

/// Everybody who can do something to an object so that `pid` notices, other than by the hold that `pid` has: at the
/// other end of a pipe or queue, holding the connected socket, sharing the memory.
#[must_use]
pub fn others<'a>(snapshot: &'a Snapshot, object: &'a Object, pid: u32) -> Vec<Holder<'a>> {
    let mut holders = Vec::new();
    for far in far_sides(snapshot, object) {
        holders.extend(far.ends.iter().map(|end| Holder { object: far, end }));
    }
    if is_connected(object) {
        return holders;
    }
    let own: Vec<&End> = object.ends.iter().filter(|end| end.pid == pid).collect();
    let reads = own.iter().any(|end| end.reads);
    let writes = own.iter().any(|end| end.writes);
    let complements = |end: &&End| (reads && end.writes) || (writes && end.reads) || own.is_empty();
    let here = object.ends.iter().filter(|end| end.pid != pid).filter(complements);
    holders.extend(here.map(|end| Holder { object, end }));
    holders
}

/// The objects at the far side of a socket: its peer, or who listens for a connection that was not accepted.
#[must_use]
pub fn far_sides<'a>(snapshot: &'a Snapshot, object: &Object) -> Vec<&'a Object> {
    let Some(peer) = object.peer.as_deref().and_then(|peer| snapshot.object(peer)) else {
        return Vec::new();
    };
    if peer.ends.is_empty()
        && let Some(listener) = peer.details.get("listener").and_then(|id| snapshot.object(id))
    {
        return vec![listener];
    }
    vec![peer]
}

/// Whether what happens to an object is done through another one.
#[must_use]
pub fn is_connected(object: &Object) -> bool {
    matches!(object.kind, Kind::Unix | Kind::Tcp | Kind::Udp | Kind::Socket | Kind::Pty)
}

/// How a process has an object, in a word: `fd:3`, `map:7f10`, `used`.
#[must_use]
pub fn via(end: &End) -> String {
    match end.via {
        Via::Fd(fd) => format!("fd:{fd}"),
        Via::Map(0) => "map".to_owned(),
        Via::Map(address) => format!("map:{address:x}"),
        Via::Ring(fd) => format!("ring:{fd}"),
        Via::Used => "used".to_owned(),
        Via::Waits => "waits".to_owned(),
    }
}
