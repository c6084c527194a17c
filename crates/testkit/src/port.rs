//! Ports that nobody else takes: not in the range from which the kernel gives every connection one.
//!
//! Source: ip(7), `ip_local_port_range`, 32768 to 60999 unless changed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// From here on, up to where the kernel's own range begins.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port of this machine that nobody has now, neither of TCP nor of UDP, and that no other test of this process was given.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes of a run have numbers one after another: each begins elsewhere.
    let begin = std::process::id().wrapping_mul(521);
    let used = used_ports();
    (0..COUNT)
        .map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
        .filter_map(|at| u16::try_from(FIRST + at % COUNT).ok())
        .find(|port| !used.contains(port))
        .expect("a free port")
}

/// Local ports of the sockets of this network. To bind one and see would not do: a child that another thread starts at that
/// moment has a copy of the socket, and keeps the port for a while.
fn used_ports() -> BTreeSet<u16> {
    let table = |kind| std::fs::read_to_string(format!("/proc/net/{kind}")).unwrap_or_default();
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(table);
    let addresses = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| line.split_whitespace().nth(1));
    addresses.filter_map(|at| u16::from_str_radix(at.rsplit_once(':')?.1, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_one() {
        let mut ports: Vec<u16> = (0..64).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 64);
        assert!(ports.iter().all(|port| (12_000..32_000).contains(port)));
    }

    #[test]
    fn what_is_bound_is_used() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        for address in [tcp.local_addr(), udp.local_addr()] {
            let port = address.expect("its port").port();
            assert!(used_ports().contains(&port), "{port}");
        }
    }
}
