//! Waits for whoever has an address: connections that nobody accepts, datagrams that nobody takes.
//!
//! Source: `connect(2)`, `sendto(2)`, `unix(7)`. A path leads to the file that the socket was bound to, however it is spelled.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::resolve::Resolve;
use crate::kind::Kind;
use crate::model::{Need, Object, Target, WaitOn};
use crate::source::numbers::device;
use crate::source::system_call::Inside;
use crate::source::system_call::arguments::{UnixName, message_address, unix_name};
use crate::text::escaped;

/// The longest address that a socket can have.
const LONGEST: usize = 128;

impl Resolve<'_> {
    /// A connection that is not made: the address leads to who listens there.
    pub(super) fn connect(&mut self, fd: i32, call: &Inside) -> WaitOn {
        match self.unix_at(call.arguments[1], call.arguments[2], Object::is_listening) {
            Some(listener) => on(listener, fd, Need::Acceptance),
            None => self.of_descriptor(fd, Need::Acceptance),
        }
    }

    pub(super) fn send_to(&mut self, fd: i32, call: &Inside) -> WaitOn {
        self.delivery(fd, call.arguments[4], call.arguments[5])
    }

    pub(super) fn send_message(&mut self, fd: i32, call: &Inside) -> WaitOn {
        let header = self.process.memory().bytes(call.arguments[1], 16).unwrap_or_default();
        let (address, len) = message_address(&header).unwrap_or((0, 0));
        self.delivery(fd, address, len)
    }

    /// What is sent to an address, or else to the peer.
    fn delivery(&mut self, fd: i32, address: u64, len: u64) -> WaitOn {
        let receives = |object: &Object| !object.is_listening();
        match self.unix_at(address, len, receives) {
            Some(receiver) => on(receiver, fd, Need::Delivery),
            None => self.of_descriptor(fd, Need::Room),
        }
    }

    /// The Unix socket at an address in the process's memory.
    fn unix_at(
        &mut self,
        address: u64,
        len: u64,
        fits: impl Fn(&Object) -> bool,
    ) -> Option<String> {
        let len = usize::try_from(len).unwrap_or(0).min(LONGEST);
        let bytes = self.process.memory().bytes(address, len)?;
        let name = unix_name(&bytes)?;
        let net = self.found[self.at].process.namespaces.net;
        let foreign = net.filter(|_| net != self.join.viewer.net);
        let (name, file) = match name {
            UnixName::Abstract(name) => (format!("@{}", escaped(name)), None),
            UnixName::Path(path) => (escaped(path), self.file(path)),
        };
        let all = self.join.objects.iter();
        let mut sockets = all.filter(|object| object.kind == Kind::Unix && fits(object));
        let found = match file {
            // A path may lead to another namespace's socket.
            Some(file) => {
                sockets.clone().find(|object| object.details.get("file") == Some(file.as_str()))
            }
            None => None,
        };
        let found = found.or_else(|| {
            sockets.find(|object| object.namespace == foreign && object.names.contains(&name))
        });
        found.map(|object| object.id.clone())
    }

    /// The file of a path, as the process sees it, in the words that a socket's details have for it.
    fn file(&self, path: &[u8]) -> Option<String> {
        let base = if path.first() == Some(&b'/') { "root" } else { "cwd" };
        let mut full = format!("/proc/{}/{base}/", self.pid()).into_bytes();
        full.extend(path);
        let status = std::fs::metadata(PathBuf::from(OsString::from_vec(full))).ok()?;
        let (major, minor) = device(status.dev());
        Some(format!("{major}:{minor}:{}", status.ino() & u64::from(u32::MAX)))
    }
}

fn on(object: String, fd: i32, need: Need) -> WaitOn {
    WaitOn::Objects(vec![Target { fd: Some(fd), ..Target::new(object, need) }])
}
