//! Ports that nobody else takes: not in the range from which the kernel gives every connection one.
//!
//! Source: ip(7), `ip_local_port_range`, 32768 to 60999 unless changed.

use std::net::{TcpListener, UdpSocket};
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
    let is_free = |port: &u16| {
        TcpListener::bind(("127.0.0.1", *port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    };
    (0..COUNT)
        .map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
        .filter_map(|at| u16::try_from(FIRST + at % COUNT).ok())
        .find(is_free)
        .expect("a free port")
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
}
