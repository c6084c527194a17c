//! Finding objects by any of their names: id, path, key, address, inode, descriptor.
//!
//! Source: docs/design/inspect.md, "Names".

use std::net::SocketAddr;

use crate::kind::Kind;
use crate::model::{Object, Process, Snapshot, Via};
use crate::text::escaped;

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// A process: `pid:812`, or the id of one of its threads; also one that is not there.
    Process(u32),
    /// Objects; more than one where a name is not unique, as a port with its connections.
    Objects(Vec<&'a Object>),
}

/// A file's device and inode, when the text is a path that exists.
pub type Place = (u64, u64);

/// What `text` names in a snapshot. `place` is what the text leads to as a path, if it does.
#[must_use]
pub fn find<'a>(snapshot: &'a Snapshot, text: &str, place: Option<Place>) -> Named<'a> {
    if let Some(rest) = text.strip_prefix("pid:") {
        if let Ok(id) = rest.parse() {
            return Named::Process(process(snapshot, id).unwrap_or(id));
        }
        if let Some(held) = descriptor(rest) {
            return Named::Objects(held_as(snapshot, held));
        }
    }
    let wanted = Wanted::new(text, place);
    let exact: Vec<&Object> = snapshot.objects.iter().filter(|object| object.id == text).collect();
    let port = wanted.port.is_some();
    if !exact.is_empty() && !port {
        return Named::Objects(exact);
    }
    let found: Vec<&Object> =
        snapshot.objects.iter().filter(|object| wanted.fits(object)).collect();
    // A bare number is an inode; where there is none such, a process.
    match text.parse().ok().filter(|_| found.is_empty()).and_then(|id| process(snapshot, id)) {
        Some(pid) => Named::Process(pid),
        None => Named::Objects(found),
    }
}

/// The process that has this id, or a thread of this id. Threads are known where waits were asked for.
#[must_use]
pub fn process(snapshot: &Snapshot, id: u32) -> Option<u32> {
    let is_its = |process: &&Process| process.threads.iter().any(|thread| thread.tid == id);
    let found = snapshot.process(id).or_else(|| snapshot.processes.iter().find(is_its));
    found.map(|process| process.pid)
}

/// The descriptor that a text names: `pid:812/fd:3`, `pid:812/3`.
#[must_use]
pub fn descriptor_named(text: &str) -> Option<(u32, i32)> {
    descriptor(text.strip_prefix("pid:")?)
}

/// `812/fd:3` or `812/3`.
fn descriptor(rest: &str) -> Option<(u32, i32)> {
    let (pid, fd) = rest.split_once('/')?;
    Some((pid.parse().ok()?, fd.strip_prefix("fd:").unwrap_or(fd).parse().ok()?))
}

fn held_as(snapshot: &Snapshot, (pid, fd): (u32, i32)) -> Vec<&Object> {
    let has =
        |object: &&Object| object.ends.iter().any(|end| end.pid == pid && end.via == Via::Fd(fd));
    snapshot.objects.iter().filter(has).collect()
}

/// A text, taken apart.
struct Wanted {
    id: String,
    kind: Option<Kind>,
    /// What may stand among an object's names.
    names: Vec<String>,
    port: Option<u16>,
    number: Option<u64>,
    place: Option<Place>,
}

impl Wanted {
    fn new(text: &str, place: Option<Place>) -> Self {
        let (kind, rest) = match text.split_once(':') {
            Some((scheme, rest)) => match scheme {
                "sem" => (Some(Kind::PosixSem), rest),
                "unix-dgram" | "unix-seqpacket" => (Some(Kind::Unix), rest),
                _ => match Kind::named(scheme) {
                    Some(kind) => (Some(kind), rest),
                    None => (None, text),
                },
            },
            None => (None, text),
        };
        let shown = escaped(rest.as_bytes());
        // What is printed is escaped already.
        let mut names = vec![rest.to_owned(), shown.clone()];
        if let Some(name) = shown.strip_prefix('/') {
            match kind {
                Some(Kind::PosixShm) => names.push(format!("/dev/shm/{name}")),
                Some(Kind::PosixSem) => names.push(format!("/dev/shm/sem.{name}")),
                _ => {}
            }
        }
        let key = rest.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        names.extend(key.map(|key| format!("0x{key:08x}")));
        let port = matches!(kind, Some(Kind::Tcp | Kind::Udp)).then(|| rest.parse().ok()).flatten();
        let number = kind.is_none().then(|| rest.parse().ok()).flatten();
        Self { id: text.to_owned(), kind, names, port, number, place }
    }

    fn fits(&self, object: &Object) -> bool {
        if object.id == self.id {
            return true;
        }
        if self.kind.is_some_and(|kind| kind != object.kind) {
            return false;
        }
        if let Some(port) = self.port {
            return local(object).is_some_and(|local| local.port() == port);
        }
        if let Some(number) = self.number {
            return object.id.rsplit(':').next() == Some(number.to_string().as_str());
        }
        if let Some((device, inode)) = self.place {
            let (major, minor) = crate::source::numbers::device(device);
            let is_there = if object.kind == Kind::Unix {
                // A socket keeps the name that it was bound by, whatever its file is called by now.
                let file = format!("{major}:{minor}:{}", inode & u64::from(u32::MAX));
                object.details.get("file") == Some(file.as_str())
            } else {
                is_file(object) && object.id == format!("{}:{major}:{minor}:{inode}", object.kind)
            };
            if is_there {
                return true;
            }
        }
        object.names.iter().any(|name| self.names.contains(name))
    }
}

fn local(object: &Object) -> Option<SocketAddr> {
    object.names.iter().find_map(|name| name.parse().ok())
}

fn is_file(object: &Object) -> bool {
    matches!(
        object.kind,
        Kind::Fifo | Kind::Mq | Kind::PosixShm | Kind::PosixSem | Kind::Mapping | Kind::Lock
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{End, Thread};

    #[test]
    fn by_any_name() {
        let mut snapshot = Snapshot::default();
        let mut add = |kind, id: &str, names: &[&str], fd| {
            let mut object = Object::new(kind, id);
            object.names = names.iter().map(|&name| name.to_owned()).collect();
            object.ends.push(End { pid: 8, via: Via::Fd(fd), reads: true, writes: true });
            snapshot.objects.push(object);
        };
        add(Kind::Pipe, "pipe:44", &[], 3);
        add(Kind::Tcp, "tcp:900", &["127.0.0.1:8080"], 4);
        add(Kind::Tcp, "tcp:8080", &["127.0.0.1:7"], 5);
        add(Kind::PosixShm, "posix-shm:0:25:2", &["/dev/shm/jobs"], 6);
        add(Kind::SysvMsg, "sysv-msg:0", &["0x0000beef"], 7);
        add(Kind::Unix, "unix:7", &["@a\\nb"], 8);
        add(Kind::Lock, "lock:8:1:5", &["/x"], 9);
        let threads = [8, 9].map(|tid| Thread { tid, ..Thread::default() });
        snapshot.processes.push(Process { pid: 8, threads: threads.into(), ..Process::default() });
        let ids = |text: &str, place| match find(&snapshot, text, place) {
            Named::Objects(found) => found.iter().map(|object| object.id.clone()).collect(),
            Named::Process(pid) => vec![format!("process {pid}")],
        };
        for (text, expected) in [
            ("pipe:44", &["pipe:44"][..]),
            ("44", &["pipe:44"]),
            ("pid:8/fd:3", &["pipe:44"]),
            ("pid:8", &["process 8"]),
            ("pid:9", &["process 8"]),
            ("pid:11", &["process 11"]),
            ("9", &["process 8"]),
            ("11", &[]),
            ("tcp:8080", &["tcp:900", "tcp:8080"]),
            ("tcp:900", &["tcp:900"]),
            ("127.0.0.1:8080", &["tcp:900"]),
            ("posix-shm:/jobs", &["posix-shm:0:25:2"]),
            ("/dev/shm/jobs", &["posix-shm:0:25:2"]),
            ("0xbeef", &["sysv-msg:0"]),
            ("unix:@a\\nb", &["unix:7"]),
            ("@a\nb", &["unix:7"]),
            ("pipe:45", &[]),
            ("", &[]),
        ] {
            assert_eq!(ids(text, None), expected, "{text}");
        }
        let place = Some((rustix::fs::makedev(8, 1), 5));
        assert_eq!(ids("./elsewhere", place), ["lock:8:1:5"]);
    }
}
