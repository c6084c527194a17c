//! Closing connections so that what was said last arrives.
//!
//! Source: `tcp(7)`; RFC 1122, 4.2.2.13: a kernel whose process closed a connection answers what comes over it with a
//! reset, and forgets what it had still to send.

use std::time::Duration;

use switchboard_kernel::io::{self, Deadline};
use switchboard_kernel::{ErrorKind, tcp};

use crate::transport::connection::Connection;

/// The other side's kernel acknowledges at once, unless its process does not read.
const WITHIN: Duration = Duration::from_secs(1);
/// Nothing tells that it did.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Says the end on each connection, and waits a moment for the other sides' kernels to have all; what comes meanwhile is
/// dropped.
pub(super) fn part(connections: &mut [Connection]) {
    let mut left: Vec<&mut Connection> = connections.iter_mut().filter(|one| !one.closed).collect();
    let deadline = Deadline::after(WITHIN);
    let mut dropped = [0; 16 << 10];
    loop {
        left.retain_mut(|one| !is_over(one, &mut dropped));
        if left.is_empty() || deadline.passed() {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether the other side's kernel has all, or there is nobody to have it.
fn is_over(connection: &mut Connection, dropped: &mut [u8]) -> bool {
    let is_there = connection.flush();
    if connection.unwritten_bytes() == 0 {
        connection.shutdown();
    }
    // Unread bytes would make the close a reset, and so would those that come after it; after the end nothing comes.
    let comes_more = match io::read(&connection.fd, dropped) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    let has_all = || tcp::unacknowledged_bytes(&connection.fd).is_ok_and(|count| count == 0);
    !is_there || !comes_more || (connection.unwritten_bytes() == 0 && has_all())
}
