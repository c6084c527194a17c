//! Who has bound an address, for the error of whoever comes second: as far as this user may see.
//!
//! Source: `proc_pid_net(5)`, `proc_pid_fd(5)`. The kernel's tables give the socket's inode, and the
//! descriptors of the processes say who has it. Both are read no further than a bound.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::unix::name_of;

/// What is said of a holder that cannot be found.
pub(super) const SOMEBODY: &str = "another process";

const MOST_TABLE_BYTES: u64 = 16 << 20;
const MOST_DESCRIPTORS: usize = 1 << 18;

/// The process that has bound a port of this machine, from the tables of a protocol, where a bound
/// socket is in this state.
pub(super) fn of_port(protocol: &str, state: &str, addr: SocketAddr) -> String {
    let hex = |four: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*four));
    let wanted = match addr.ip() {
        IpAddr::V4(ip) => hex(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().as_chunks::<4>().0.iter().map(hex).collect(),
    };
    let is_any = |ip: &str| ip.bytes().all(|digit| digit == b'0');
    let inode = ["", "6"].iter().find_map(|version| {
        let table = table(&format!("/proc/net/{protocol}{version}"))?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (ip, port) = fields.get(1)?.split_once(':')?;
            let same_port = u16::from_str_radix(port, 16).ok()? == addr.port();
            let same_ip = ip == wanted || is_any(ip) || is_any(&wanted);
            (same_port && same_ip && *fields.get(3)? == state)
                .then(|| fields.get(9).map(|i| (*i).to_owned()))?
        })
    });
    inode.and_then(|inode| process_with(&inode)).map_or(SOMEBODY.to_owned(), name_of)
}

/// The process that has the Unix datagram socket which this one is connected to. `SO_PEERCRED` does
/// not tell; the name under which it was bound does, which need not be the one it has now.
pub(super) fn of_peer(connected: OwnedFd) -> Option<u32> {
    let peer = UnixDatagram::from(connected).peer_addr().ok()?;
    let name = match (peer.as_pathname(), peer.as_abstract_name()) {
        (Some(path), _) => path.as_os_str().as_bytes().to_vec(),
        (None, Some(name)) => [b"@", name].concat(),
        (None, None) => return None,
    };
    let name = String::from_utf8(name).ok()?;
    let table = table("/proc/net/unix")?;
    // Num RefCount Protocol Flags Type St Inode Path: only the last one may have spaces.
    let inode = table.lines().skip(1).find_map(|line| {
        let rest = line.strip_suffix(&name)?.strip_suffix(' ')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        (fields.len() == 7 && fields[4] == "0002").then(|| fields[6].to_owned())
    })?;
    process_with(&inode)
}

fn table(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MOST_TABLE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A process that has the socket of this inode open.
fn process_with(inode: &str) -> Option<u32> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let mut left = MOST_DESCRIPTORS;
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some((pid, fds)) = pid.zip(std::fs::read_dir(process.path().join("fd")).ok()) else {
            continue;
        };
        for fd in fds.flatten() {
            left = left.checked_sub(1)?;
            if std::fs::read_link(fd.path()).is_ok_and(|target| target == wanted) {
                return Some(pid);
            }
        }
    }
    None
}
