//! Asking the kernel for its sockets: a dump over a netlink socket.
//!
//! Source: `sock_diag(7)`, `netlink(7)`. Answers come in datagrams of messages; one says that it was the last.

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;

/// Sends a request and calls `each` with the body of every answer.
///
/// # Errors
/// Those of `socket(2)`; what the kernel answers: `ENOENT` when it has no such sockets, `EPERM`, `EACCES`.
pub fn dump(request: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    let mut message = Vec::with_capacity(HEADER + request.len());
    message.extend(u32::try_from(HEADER + request.len()).unwrap_or(0).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST_DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(request);
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let filled = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((filled, _)) => filled,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        if filled == 0 || messages(&buffer[..filled.min(buffer.len())], &mut each)? {
            return Ok(());
        }
    }
}

/// Takes a datagram apart; whether it had the last message.
///
/// # Errors
/// The error that the kernel answered.
pub fn messages(mut datagram: &[u8], each: &mut impl FnMut(&[u8])) -> Result<bool, Errno> {
    while datagram.len() >= HEADER {
        let len = u32_at(datagram, 0).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        let kind = u16_at(datagram, 4).unwrap_or(DONE);
        let Some(body) = datagram.get(HEADER..len) else { return Ok(true) };
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = u32_at(body, 0).unwrap_or(0).cast_signed();
                return match code {
                    0 => Ok(true),
                    -4095..0 => Err(Errno::from_raw_os_error(-code)),
                    // No number of an error.
                    _ => Err(Errno::IO),
                };
            }
            _ => each(body),
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes of a message: type and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A number of 16 bits in this machine's order.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// A number of 64 bits in this machine's order.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// A number of 32 bits in this machine's order.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
