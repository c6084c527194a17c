//! TCP and UDP sockets: addresses, states, queues.
//!
//! Source: `sock_diag(7)` (inet_diag); `proc_net_tcp(5)` where that is refused, which does not say how many
//! connections may wait at a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;

use super::netlink::{dump, u32_at};
use super::numbers::{decimal, hexadecimal, small, words};

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

/// All of this network namespace, over IPv4 and IPv6.
///
/// # Errors
/// As [`dump`].
pub fn all(protocol: Protocol) -> Result<Vec<Socket>, Errno> {
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let mut sockets = Vec::new();
    for family in [2, 10] {
        let mut request = vec![family, number, 0, 0];
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
    })
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
    }
}
