//! Every mechanism that Linux offers for processes to talk, one file each: thin, safe, documented
//! like a man page.
//!
//! Each file is named like the man page it wraps. A function makes the system calls its C
//! counterpart would make, and no more. [`mechanism::TABLE`] lists them all.
//!
//! What this crate does not do: it keeps no state, starts no thread, and decides nothing. Patterns,
//! framing and recovery live in the `switchboard` crate.
//!
//! Errors are [`Error`]: the call and its error number. `EINTR` is retried in [`io`], nowhere else.
//!
//! Minimum kernel 5.15. Calls that need a newer one say so, and say what they answer on an older.

#![deny(unsafe_code)]

pub mod epoll;
pub mod error;
pub mod eventfd;
pub mod fifo;
pub mod file_lock;
mod hidden_name;
pub mod inotify;
pub mod io;
pub mod mechanism;
pub mod permissions;
pub mod pidfd;
pub mod pipe;
pub mod posix_mq;
pub mod process;
pub mod signal;
pub mod signalfd;
mod socket;
pub mod sysv_msg;
pub mod tcp;
pub mod timerfd;
pub mod udp;
pub mod unix_socket;

pub use error::{Error, ErrorKind, Result};
pub use permissions::Permissions;
