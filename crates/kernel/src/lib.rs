//! Every mechanism that Linux offers for processes to talk, one file each: thin, safe, documented
//! like a man page.
//!
//! Each file is named like the man page it wraps. A function makes the system calls its C
//! counterpart would make, and no more. [`mechanism::TABLE`] lists them all.
//!
//! What this crate does not do: it keeps no state, starts no thread, and decides nothing. Patterns,
//! framing and recovery live in the `switchboard` crate. The exceptions: [`mmap`] keeps a table of mapped
//! files for its `SIGBUS` handler, [`fork`] counts forks, [`biased`] remembers what the kernel can.
//!
//! Errors are [`Error`]: the call and its error number. `EINTR` is retried in [`io`], nowhere else.
//!
//! Minimum kernel 5.15. Calls that need a newer one say so, and say what they answer on an older.

#![deny(unsafe_code)]

pub mod background;
pub mod biased;
pub mod epoll;
pub mod error;
pub mod eventfd;
pub mod fifo;
pub mod file_lock;
pub mod folder_file;
pub mod fork;
pub mod futex;
mod hidden_name;
pub mod inotify;
pub mod io;
pub mod lease;
pub mod mechanism;
pub mod membarrier;
pub mod memfd;
pub mod mmap;
pub mod permissions;
pub mod pidfd;
pub mod pipe;
pub mod posix_mq;
pub mod posix_sem;
pub mod posix_shm;
pub mod private_folder;
pub mod process;
pub mod process_maps;
pub mod pthread;
pub mod pty;
pub mod random;
pub mod shared_folder;
pub mod shared_memory;
pub mod shared_words;
pub mod signal;
pub mod signalfd;
mod socket;
pub mod splice;
pub mod sync;
pub mod sysv_key;
pub mod sysv_msg;
pub mod sysv_sem;
pub mod sysv_shm;
pub mod tcp;
pub mod timerfd;
pub mod udp;
pub mod unix_socket;

pub use error::{Error, ErrorKind, Result};
pub use permissions::Permissions;
