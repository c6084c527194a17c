//! Unix-domain sockets: who is connected to whom, and how much waits.
//!
//! Source: `sock_diag(7)`; `proc_net_unix(5)` where that is refused, which names no peers.

use rustix::io::Errno;

use super::netlink::{attributes, dump, u32_at};
use super::numbers::{decimal, hexadecimal};
use crate::text::escaped;

/// A socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// Its number.
    pub inode: u64,
    /// `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`, by number.
    pub kind: u8,
    /// It takes connections.
    pub listening: bool,
    /// It has a peer, or had one.
    pub connected: bool,
    /// Its path, or `@` and its abstract name, escaped.
    pub name: Option<String>,
    /// Of a path: the file it was bound to, by device (major, minor) and inode, whose low 32 bits are known. The file
    /// may have another name by now.
    pub file: Option<((u32, u32), u32)>,
    /// The peer's number.
    pub peer: Option<u64>,
    /// Bytes that wait to be read; of a listener, connections that wait.
    pub waiting: u32,
    /// Of a listener: the most connections that may wait.
    pub backlog: Option<u32>,
    /// Memory of what was sent and not read, and the limit of that.
    pub unread: Option<(u32, u32)>,
    /// The user who made it.
    pub uid: Option<u32>,
    /// Which directions were shut down: 1 reading, 2 writing.
    pub shut: u8,
    /// Connections that wait at a listener, by the connecting sockets' numbers.
    pub clients: Vec<u64>,
}

const LISTEN: u8 = 10;
const ESTABLISHED: u8 = 1;

/// All of this network namespace.
///
/// # Errors
/// As [`dump`].
pub fn all() -> Result<Vec<Socket>, Errno> {
    let mut request = vec![1, 0, 0, 0];
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    // Name, file, peer, clients, queue, memory, user.
    request.extend(0x7f_u32.to_ne_bytes());
    request.extend([0xff; 8]);
    let mut sockets = Vec::new();
    dump(&request, |body| sockets.extend(one(body)))?;
    Ok(sockets)
}

/// Reads one answer.
#[must_use]
pub fn one(body: &[u8]) -> Option<Socket> {
    let state = *body.get(2)?;
    let mut socket = Socket {
        kind: *body.get(1)?,
        inode: u32_at(body, 4)?.into(),
        listening: state == LISTEN,
        connected: state == ESTABLISHED,
        ..Socket::default()
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            0 => socket.name = name(value),
            1 => {
                // The kernel's own form of a device.
                let device = |number: u32| (number >> 20, number & 0xf_ffff);
                socket.file = u32_at(value, 4).map(device).zip(u32_at(value, 0));
            }
            2 => socket.peer = u32_at(value, 0).map(u64::from).filter(|&inode| inode != 0),
            3 => {
                let numbers = value.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0));
                socket.clients = numbers.map(u64::from).filter(|&inode| inode != 0).collect();
            }
            4 => {
                socket.waiting = u32_at(value, 0).unwrap_or(0);
                socket.backlog = socket.listening.then(|| u32_at(value, 4)).flatten();
            }
            5 => socket.unread = u32_at(value, 8).zip(u32_at(value, 12)),
            6 => socket.shut = value.first().copied().unwrap_or(0),
            7 => socket.uid = u32_at(value, 0),
            _ => {}
        }
    }
    Some(socket)
}

fn name(value: &[u8]) -> Option<String> {
    match value.split_first()? {
        (0, rest) => Some(format!("@{}", escaped(rest))),
        _ => Some(escaped(value.strip_suffix(b"\0").unwrap_or(value))),
    }
}

/// Reads /proc/net/unix.
#[must_use]
pub fn table(text: &[u8]) -> Vec<Socket> {
    text.split(|&byte| byte == b'\n').skip(1).filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Socket> {
    // The inode is padded to a width, so words are separated by more than one space.
    let mut rest = line;
    let mut word = || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        word
    };
    let (_, _, _) = (word(), word(), word());
    let flags = hexadecimal(word())?;
    let kind = u8::try_from(hexadecimal(word())?).ok()?;
    let state = hexadecimal(word())?;
    let inode = decimal(word())?;
    let name = rest.strip_prefix(b" ").unwrap_or_default();
    Some(Socket {
        inode,
        kind,
        listening: flags & 0x1_0000 != 0,
        connected: state == 3,
        name: (!name.is_empty()).then(|| escaped(name)),
        ..Socket::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kernel() {
        let mut body = vec![1, 1, LISTEN, 0];
        body.extend(7_u32.to_ne_bytes());
        body.extend([0; 8]);
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = u16::try_from(4 + value.len()).expect("short").to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        body.extend(attribute(0, b"\0ab\n"));
        body.extend(attribute(1, &[0x39, 0x30, 0, 0, 1, 0, 0xe0, 0x0f]));
        body.extend(attribute(4, &[3, 0, 0, 0, 5, 0, 0, 0]));
        let socket = one(&body).expect("a socket");
        assert_eq!((socket.inode, socket.waiting, socket.backlog), (7, 3, Some(5)));
        assert_eq!(socket.name.as_deref(), Some("@ab\\n"));
        assert_eq!(socket.file, Some(((254, 1), 12345)));
        for cut in 0..body.len() {
            let _ = one(&body[..cut]);
        }
    }

    #[test]
    fn of_proc() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
0000000000000000: 00000002 00000000 00010000 0001 01    77 /run/a b\n\
0000000000000000: 00000003 00000000 00000000 0001 03 78\nx\n";
        let found = table(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].listening && found[1].connected);
        assert_eq!(found[0].name.as_deref(), Some("/run/a b"));
    }
}
