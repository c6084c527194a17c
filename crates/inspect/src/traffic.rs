//! What went through, and how much memory of a socket is in use, as the kernel counts it.
//!
//! Source: docs/design/top.md, "Where each figure comes from"; `tcp(7)`, `sock_diag(7)`, `proc_pid_io(5)`.

use serde::{Deserialize, Serialize};

/// The memory of a socket, and what went through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketUse {
    /// Memory of what came and was not read, and the most of it; of a Unix socket unknown: that is on its peer's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<(u32, u32)>,
    /// Memory of what was sent and not read (Unix) or not acknowledged (TCP), and the most of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<(u32, u32)>,
    /// Datagrams that found no room.
    #[serde(default)]
    pub dropped: u32,
    /// What went through: TCP alone counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

/// Bytes since something began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Of a connection: received in order. Of a process: taken by `read` and its like.
    pub received_bytes: u64,
    /// Of a connection: acknowledged by its peer. Of a process: given by `write` and its like.
    pub sent_bytes: u64,
}
