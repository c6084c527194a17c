//! TCP and UDP sockets: addresses, states, queues.
//!
//! Source: `sock_diag(7)` (inet_diag); `proc_net_tcp(5)` where that is refused, which does not say how many
//! connections may wait at a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use super::netlink::{attributes, dump, u32_at, u64_at};
use super::numbers::{decimal, hexadecimal, small, words};
use crate::traffic::{SocketUse, Traffic};

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its number; 0 once no process has it any more.
    pub inode: u64,
    /// Where it is.
    pub local: SocketAddr,
    /// Where its peer is; port 0 for none.
    pub remote: SocketAddr,
    /// The kernel's number of its state.
    pub state: u8,
    /// Bytes that wait to be read; of a listener, connections that wait.
    pub receive: u32,
    /// Bytes that were sent and not acknowledged; of a listener, the most connections that may wait.
    pub send: u32,
    /// Whether `send` is known to be that of a listener.
    pub backlog_known: bool,
    /// The user who made it.
    pub uid: u32,
    /// Its memory and traffic, if they were asked for.
    pub usage: Option<SocketUse>,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Socket {
    /// It takes connections.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state == 10
    }
}

/// The states' names, by number.
#[must_use]
pub fn state_name(state: u8) -> &'static str {
    const NAMES: [&str; 13] = [
        "unknown",
        "established",
        "connecting",
        "being connected",
        "closing (fin-wait-1)",
        "closing (fin-wait-2)",
        "time-wait",
        "closed",
        "peer closed (close-wait)",
        "closing (last-ack)",
        "listening",
        "closing (closing)",
        "being connected",
    ];
    NAMES.get(usize::from(state)).copied().unwrap_or("unknown")
}

/// `INET_DIAG_INFO` and `INET_DIAG_SKMEMINFO`, a bit each, of which the first is 1.
const TRAFFIC_AND_MEMORY: u8 = 1 << 1 | 1 << 6;

/// All of this network namespace, over IPv4 and IPv6; with their memory and traffic, if those are wanted.
///
/// # Errors
/// As [`dump`].
pub fn all(protocol: Protocol, usage: bool) -> Result<Vec<Socket>, Errno> {
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let mut sockets = Vec::new();
    for family in [2, 10] {
        let mut request = vec![family, number, if usage { TRAFFIC_AND_MEMORY } else { 0 }, 0];
        request.extend(u32::MAX.to_ne_bytes());
        request.extend([0; 48]);
        match dump(&request, |body| sockets.extend(one(body))) {
            Ok(()) => {}
            // A kernel without IPv6.
            Err(Errno::NOENT) if family == 10 && !sockets.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Reads one answer.
#[must_use]
pub fn one(body: &[u8]) -> Option<Socket> {
    let family = *body.first()?;
    let state = *body.get(1)?;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    Some(Socket {
        local: SocketAddr::new(address(family, body.get(8..24)?)?, port(4)?),
        remote: SocketAddr::new(address(family, body.get(24..40)?)?, port(6)?),
        state,
        receive: u32_at(body, 56)?,
        send: u32_at(body, 60)?,
        backlog_known: true,
        uid: u32_at(body, 64)?,
        inode: u32_at(body, 68)?.into(),
        usage: usage(body.get(72..)?),
    })
}

/// Reads the attributes of an answer: `struct tcp_info` of a connection, and the memory of a socket.
fn usage(bytes: &[u8]) -> Option<SocketUse> {
    let mut found = None;
    for (kind, value) in attributes(bytes) {
        let of: &mut SocketUse = match kind {
            2 | 7 => found.get_or_insert_default(),
            _ => continue,
        };
        if kind == 2 {
            let (sent, received) = (u64_at(value, 120), u64_at(value, 128));
            of.traffic = received
                .zip(sent)
                .map(|(received_bytes, sent_bytes)| Traffic { received_bytes, sent_bytes });
        } else {
            of.received = u32_at(value, 0).zip(u32_at(value, 4));
            // Of a stream what is queued counts, of datagrams what is on its way.
            let sent = u32_at(value, 8).max(u32_at(value, 20));
            of.sent = sent.zip(u32_at(value, 12));
            of.dropped = u32_at(value, 32).unwrap_or(0);
        }
    }
    found
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        2 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?).into()),
        10 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?).into()),
        _ => None,
    }
}

/// Reads /proc/net/tcp, tcp6, udp or udp6.
#[must_use]
pub fn table(text: &[u8]) -> Vec<Socket> {
    text.split(|&byte| byte == b'\n').skip(1).filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Socket> {
    let parts: Vec<&[u8]> = words(line).take(12).collect();
    let queues = parts.get(4)?;
    let colon = queues.iter().position(|&byte| byte == b':')?;
    let queue = |text| hexadecimal(text).and_then(|n| u32::try_from(n).ok());
    Some(Socket {
        local: place(parts.get(1)?)?,
        remote: place(parts.get(2)?)?,
        state: u8::try_from(hexadecimal(parts.get(3)?)?).ok()?,
        send: queue(&queues[..colon])?,
        receive: queue(&queues[colon + 1..])?,
        backlog_known: false,
        usage: None,
        uid: small(parts.get(7)?)?,
        inode: decimal(parts.get(9)?)?,
    })
}

/// `0100007F:1F90`: words of the address in this machine's order, the port as a number.
fn place(text: &[u8]) -> Option<SocketAddr> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let port = u16::try_from(hexadecimal(&text[colon + 1..])?).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for chunk in text[..colon].chunks(8) {
        bytes.extend(u32::try_from(hexadecimal(chunk)?).ok()?.to_ne_bytes());
    }
    let family = match bytes.len() {
        4 => 2,
        16 => 10,
        _ => return None,
    };
    Some(SocketAddr::new(address(family, &bytes)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_proc() {
        let text = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0\nx y\n";
        let found = table(text);
        assert_eq!(found.len(), 1);
        if cfg!(target_endian = "little") {
            assert_eq!(found[0].local.to_string(), "127.0.0.1:8080");
        }
        assert!(found[0].is_listening());
        assert_eq!((found[0].inode, found[0].uid, found[0].receive), (4242, 1000, 2));
    }

    #[test]
    fn of_the_kernel() {
        let mut body = vec![0; 72];
        (body[0], body[1]) = (2, 1);
        body[4..6].copy_from_slice(&80_u16.to_be_bytes());
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        let socket = one(&body).expect("a socket");
        assert_eq!(socket.local.to_string(), "127.0.0.1:80");
        for cut in 0..72 {
            assert_eq!(one(&body[..cut]), None);
        }
        assert_eq!(socket.usage, None);
    }

    #[test]
    fn memory_and_traffic() {
        let mut body = vec![0; 72];
        body[0] = 2;
        let attribute = |kind: u16, value: &[u8]| {
            let len = u16::try_from(4 + value.len()).expect("short");
            [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
        };
        let mut info = vec![0; 136];
        info[120..128].copy_from_slice(&7_u64.to_ne_bytes());
        info[128..136].copy_from_slice(&u64::MAX.to_ne_bytes());
        body.extend(attribute(2, &info));
        let memory: [u32; 9] = [10, 100, 3, 200, 0, 50, 0, 0, 4];
        body.extend(attribute(7, &memory.map(u32::to_ne_bytes).concat()));
        let found = one(&body).and_then(|socket| socket.usage).expect("what is used");
        let traffic = Traffic { received_bytes: u64::MAX, sent_bytes: 7 };
        let expected = SocketUse {
            received: Some((10, 100)),
            sent: Some((50, 200)),
            dropped: 4,
            traffic: Some(traffic),
        };
        assert_eq!(found, expected);
        for cut in 72..body.len() {
            assert!(one(&body[..cut]).is_some(), "an attribute that is cut is left out");
        }
    }

    /// What a program sent is what the kernel says.
    #[test]
    fn a_connection_counts_its_bytes() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let place = listener.local_addr().expect("an address");
        let mut client = std::net::TcpStream::connect(place).expect("a connection");
        let (mut server, from) = listener.accept().expect("a client");
        client.write_all(&[7; 1000]).expect("sent");
        server.read_exact(&mut [0; 600]).expect("received");
        let found = all(Protocol::Tcp, true).expect("sockets");
        let used = |local| {
            let one = found.iter().find(|one| one.local == local && !one.is_listening());
            one.and_then(|one| one.usage).expect("what is used")
        };
        let (sent, received) = (used(from), used(place));
        assert_eq!(received.traffic.expect("traffic").received_bytes, 1000);
        // The connection's first packet counts as a byte.
        assert!((1000..=1001).contains(&sent.traffic.expect("traffic").sent_bytes), "{sent:?}");
        assert!(received.received.is_some_and(|(used, most)| used > 0 && most >= used));
        let bare = all(Protocol::Tcp, false).expect("sockets");
        assert!(bare.iter().all(|one| one.usage.is_none()));
    }
}
