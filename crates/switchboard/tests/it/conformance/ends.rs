//! The two ends of a queue or a topic as child processes that do what the test tells them, a line at a
//! time.
//!
//! Both are started with a place (an address, or where to fetch a descriptor), options, and `lines`
//! or `bytes`. They say `open` first.

mod receiving;
mod sending;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use switchboard::Options;
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_testkit::child::{instruction, report};

pub(crate) use receiving::{json_receiver, receiver, subscriber};
pub(crate) use sending::{publisher, sender};

/// How the place starts where a descriptor is handed over.
pub(crate) const HANDED: &str = "handed:";

/// What a child was started with.
struct Start {
    address: String,
    options: Options,
    cancel: Option<Arc<OwnedFd>>,
    retry: bool,
    lines: bool,
    /// Kept until the endpoint has its own.
    handed: Vec<OwnedFd>,
    /// Descriptors that nobody else is to have.
    used_up: Vec<OwnedFd>,
}

fn start(arguments: &[String]) -> Start {
    let [place, options, kind] = arguments else { panic!("three arguments") };
    let (address, handed) = match place.strip_prefix(HANDED) {
        None => (place.clone(), Vec::new()),
        Some(path) => {
            let address = Address::Path(Path::new(path).to_owned());
            let connection = unix::connect_to(Kind::Seqpacket, &address, false).expect("a giver");
            let mut buffer = [0; 32];
            let (_, fds) = unix::recv_with_fds(&connection, &mut buffer, 16).expect("descriptors");
            (format!("fd:{}", fds[0].as_raw_fd()), fds)
        }
    };
    let mut start = Start {
        address,
        options: Options::default(),
        cancel: None,
        retry: false,
        lines: kind == "lines",
        handed,
        used_up: Vec::new(),
    };
    let mut parsed = Options::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, "0"));
        let number: u32 = value.parse().expect("a number");
        parsed = match name {
            "no-wait" => parsed.wait_for_peer(false),
            "no-reconnect" => parsed.reconnect(false),
            "follow" => parsed.follow(true),
            "prefetch" => parsed.prefetch(number),
            "prefetch-bytes" => parsed.prefetch_bytes(number),
            "linger" => parsed.linger(Some(Duration::from_millis(number.into()))),
            "ack-every" => parsed.acknowledge_every(number),
            "deliveries" => parsed.max_deliveries(u16::try_from(number).expect("a count")),
            "spare-files" => {
                start.used_up = leave_descriptors(number as usize);
                parsed
            }
            "files" => {
                let most = switchboard_kernel::process::file_limit().1;
                switchboard_kernel::process::set_file_limit(most.min(number.into()))
                    .expect("a limit");
                parsed
            }
            "queue-bytes" => {
                let limit = rustix::process::Rlimit {
                    current: Some(number.into()),
                    maximum: Some(number.into()),
                };
                rustix::process::setrlimit(rustix::process::Resource::Msgqueue, limit)
                    .expect("a limit");
                parsed
            }
            "stranger" => {
                super::permissions::become_nobody();
                parsed
            }
            "retry" => {
                start.retry = true;
                parsed
            }
            "cancel" => {
                let event = EventFd::new(0).expect("an eventfd");
                start.cancel = Some(Arc::new(OwnedFd::from(event)));
                parsed.cancel(start.cancel.clone())
            }
            other => panic!("no option {other}"),
        };
    }
    start.options = parsed;
    start
}

/// Uses up the descriptors that this process may have, but for so many.
fn leave_descriptors(spare: usize) -> Vec<OwnedFd> {
    let next = rustix::io::dup(std::io::stdin()).expect("a descriptor").as_raw_fd();
    let limit = u64::try_from(next).expect("a number") + 16;
    switchboard_kernel::process::set_file_limit(limit).expect("a limit");
    let mut used: Vec<OwnedFd> =
        std::iter::from_fn(|| rustix::io::dup(std::io::stdin()).ok()).collect();
    used.truncate(used.len() - spare);
    used
}

/// An error in one line.
fn say_error(error: &impl std::error::Error) {
    report(format!("error {error:?} {error}").replace('\n', " "));
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Raises the cancel descriptor when the test says so, while the main thread is blocked.
fn cancel_when_told(cancel: Option<&Arc<OwnedFd>>) {
    let fd = cancel.expect("the option cancel").try_clone().expect("a descriptor");
    let thread = rustix::thread::gettid();
    report(format!("blocking {}", thread.as_raw_nonzero()));
    std::thread::spawn(move || {
        let _ = instruction();
        let _ = switchboard_kernel::io::write(&fd, &1_u64.to_ne_bytes());
    });
}
