//! The two ends of a queue as child processes that do what the test tells them, a line at a time.
//!
//! Both are started with a place (an address, or where to fetch a descriptor), options, and `lines`
//! or `bytes`. They say `open` first.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::{
    Bytes, Delivery, Json, Options, Queue, Receiver, RecvError, Rejection, SendError, Sender,
};
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};
use switchboard_testkit::child::{instruction, report};

use super::contents::{contents, digest, mixed_len, tag};

/// How the place starts where a descriptor is handed over.
pub(crate) const HANDED: &str = "handed:";

/// What a child was started with.
struct Start {
    queue: Queue<Bytes>,
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
        queue: Queue::open("fd:0").expect("a queue"),
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
    start.queue = Queue::open_with(&start.address, parsed.clone()).expect("a queue");
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

/// Role: sends what it is told to.
pub(crate) fn sender(arguments: &[String]) {
    let mut start = start(arguments);
    let mut sender = match start.queue.sender() {
        Ok(sender) => Some(sender),
        Err(error) => return say_error(&error),
    };
    start.handed.clear();
    report("open");
    while let Some(line) = instruction() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let len = |at: usize| words[at].parse::<usize>().expect("a length");
        let Some(end) = &mut sender else { break };
        match words[0] {
            "send" => match end.send_bytes(&contents(number(1), number(2), len(3), start.lines)) {
                Ok(()) => report("sent"),
                Err(error) => say_error(&error),
            },
            "priority" => {
                let bytes = contents(number(1), number(2), 64, start.lines);
                let priority = u32::try_from(number(3)).expect("a priority");
                end.send_bytes_with_priority(&bytes, priority).expect("sent");
                report("sent");
            }
            "text" => match end.send_bytes(text_of(words.get(1)).as_bytes()) {
                Ok(()) => report("sent"),
                Err(error) => say_error(&error),
            },
            "stream" => {
                let length = |_| len(4);
                stream(end, &start, (number(1), number(2), number(3)), length);
            }
            "mixed" => {
                let largest = len(4);
                let length = |n| mixed_len(n, largest);
                stream(end, &start, (number(1), number(2), number(3)), length);
            }
            "fed" => fed(end, (number(1), number(2), number(3)), len(4), start.lines),
            "pour" => pour(end, number(1), len(2), start.lines),
            "fill" => fill(end, number(1), len(2), start.lines),
            "block" => {
                cancel_when_told(start.cancel.as_ref());
                let bytes = contents(1, 0, len(1), start.lines);
                loop {
                    if let Err(error) = end.send_bytes(&bytes) {
                        break say_error(&error);
                    }
                }
            }
            "timeout" => {
                let bytes = contents(number(1), number(2), len(3), start.lines);
                let since = Instant::now();
                let result = end.send_timeout(&Bytes(bytes), Duration::from_millis(number(4)));
                let took = since.elapsed().as_millis();
                match result {
                    Ok(()) => report(format!("sent {took}")),
                    Err(SendError::Full) => report(format!("full {took}")),
                    Err(error) => say_error(&error),
                }
            }
            "flush" => match end.flush(Some(Duration::from_millis(number(1)))) {
                Ok(()) => report("flushed"),
                Err(error) => say_error(&error),
            },
            "drive" => match end.drive() {
                Ok(()) => report("driven"),
                Err(error) => say_error(&error),
            },
            "count" => report(format!(
                "sent={} acknowledged={} unacknowledged={} rejected={} peers={}",
                end.sent(),
                end.acknowledged(),
                end.unacknowledged(),
                end.rejected(),
                end.peers()
            )),
            "rss" => report(resident_kib()),
            "drop" => {
                sender = None;
                report("dropped");
            }
            "close" => match sender.take().expect("a sender").close() {
                Ok(()) => report("closed"),
                Err(error) => report(format!(
                    "close-error unacknowledged={} rejected={} {error}",
                    error.unacknowledged, error.rejected
                )),
            },
            other => panic!("no instruction {other}"),
        }
    }
}

/// A text of the test's, where `\n` stands for a line feed.
fn text_of(word: Option<&&str>) -> String {
    word.copied().unwrap_or_default().replace("\\n", "\n")
}

/// Sends numbered messages; where the test allows it, again when the receiver died.
fn stream(
    end: &mut Sender<Bytes>,
    start: &Start,
    (sender, from, to): (u64, u64, u64),
    len: impl Fn(u64) -> usize,
) {
    for n in from..to {
        let bytes = contents(sender, n, len(n), start.lines);
        loop {
            match end.send_bytes(&bytes) {
                Ok(()) => break,
                Err(SendError::PeerDied { .. }) if start.retry => {}
                Err(error) => return say_error(&error),
            }
        }
    }
    report("streamed");
}

/// Gathers messages of mixed lengths in writes that are as large as can be.
fn fed(end: &mut Sender<Bytes>, (sender, from, to): (u64, u64, u64), largest: usize, lines: bool) {
    for n in from..to {
        if let Err(error) = end.feed(&contents(sender, n, mixed_len(n, largest), lines)) {
            return say_error(&error);
        }
    }
    match end.push() {
        Ok(()) => report("streamed"),
        Err(error) => say_error(&error),
    }
}

/// Sends for ever, and says now and then how much of it is acknowledged.
fn pour(end: &mut Sender<Bytes>, sender: u64, len: usize, lines: bool) {
    for n in 0.. {
        if let Err(error) = end.send_bytes(&contents(sender, n, len, lines)) {
            return say_error(&error);
        }
        if n % 16 == 0 {
            report(format!("acknowledged {}", end.acknowledged()));
        }
    }
}

/// Sends without waiting until nothing more is taken.
fn fill(end: &mut Sender<Bytes>, sender: u64, len: usize, lines: bool) {
    const MOST: u64 = 200_000;
    let bytes = Bytes(contents(sender, 0, len, lines));
    for n in 0..MOST {
        match end.try_send(&bytes) {
            Ok(()) => {}
            Err(SendError::Full) => return report(format!("full {n}")),
            Err(error) => return say_error(&error),
        }
    }
    report(format!("never full after {MOST}"));
}

fn say_got(delivery: &Delivery<Bytes>) {
    let bytes: &[u8] = &delivery.message;
    let tag = tag(bytes).map_or("-".to_owned(), |(sender, n)| format!("{sender}:{n}"));
    report(format!(
        "got {tag} {} {:016x} {} {} {} {}",
        bytes.len(),
        digest(bytes),
        u8::from(delivery.redelivered),
        delivery.deliveries,
        delivery.lost_before,
        delivery.priority
    ));
}

/// Role: receives what it is told to.
pub(crate) fn receiver(arguments: &[String]) {
    let mut start = start(arguments);
    let mut receiver = match start.queue.receiver() {
        Ok(receiver) => Some(receiver),
        Err(error) => return say_error(&error),
    };
    start.handed.clear();
    report("open");
    let mut held = Vec::new();
    while let Some(line) = instruction() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let Some(end) = &mut receiver else { break };
        match words[0] {
            // COUNT MS: until so many came, or none for so long.
            "recv" => take(end, number(1), Duration::from_millis(number(2)), None),
            // TAG MS: until this one came.
            "until" => take(end, u64::MAX, Duration::from_millis(number(2)), Some(words[1])),
            "text" => match end.recv_timeout(Duration::from_millis(number(1))) {
                Ok(delivery) => {
                    let bytes = end.acknowledge(delivery).expect("acknowledged");
                    report(format!("text {}", String::from_utf8_lossy(&bytes)));
                }
                Err(error) => say_error(&error),
            },
            "hold" => {
                for _ in 0..number(1) {
                    match end.recv_timeout(Duration::from_millis(number(2))) {
                        Ok(delivery) => {
                            say_got(&delivery);
                            held.push(delivery);
                        }
                        Err(error) => {
                            say_error(&error);
                            break;
                        }
                    }
                }
                report("done");
            }
            "acknowledge" => {
                for delivery in held.drain(..) {
                    end.acknowledge(delivery).expect("acknowledged");
                }
                report("done");
            }
            // The newest first, so that each is out of order.
            "acknowledge-backwards" => {
                for delivery in held.drain(..).rev() {
                    end.acknowledge(delivery).expect("acknowledged");
                }
                report("done");
            }
            "reject" => {
                for delivery in held.drain(..) {
                    let back = end.reject(delivery).expect("rejected");
                    let back = match back {
                        Rejection::GivenBack => "back",
                        Rejection::ForGood => "for good",
                        _ => "not taken",
                    };
                    report(format!("rejected {back}"));
                }
                report("done");
            }
            "timeout" => {
                let since = Instant::now();
                let result = end.recv_timeout(Duration::from_millis(number(1)));
                let took = since.elapsed().as_millis();
                match result {
                    Err(RecvError::Empty) => report(format!("empty {took}")),
                    Err(error) => say_error(&error),
                    Ok(delivery) => say_got(&delivery),
                }
            }
            "block" => {
                cancel_when_told(start.cancel.as_ref());
                match end.recv() {
                    Err(error) => say_error(&error),
                    Ok(delivery) => say_got(&delivery),
                }
            }
            "count" => report(format!("peers={}", end.peers())),
            "local" => report(end.local_address().unwrap_or_default()),
            "rss" => report(resident_kib()),
            "close" => {
                receiver = None;
                report("closed");
            }
            other => panic!("no instruction {other}"),
        }
    }
}

/// Role: receives lists of numbers as JSON until it is told no more.
pub(crate) fn json_receiver(arguments: &[String]) {
    let start = start(arguments);
    let queue = Queue::<Json<Vec<u64>>>::open_with(&start.address, start.options.clone());
    let mut receiver = match queue.expect("a queue").receiver() {
        Ok(receiver) => receiver,
        Err(error) => return say_error(&error),
    };
    drop(start);
    report("open");
    while let Some(line) = instruction() {
        let timeout = Duration::from_millis(line.parse().expect("a time"));
        match receiver.recv_timeout(timeout) {
            Ok(delivery) => {
                let Json(numbers) = receiver.acknowledge(delivery).expect("acknowledged");
                report(format!("json {numbers:?}"));
            }
            Err(RecvError::Encoding { bytes, .. }) => {
                report(format!("encoding {}", String::from_utf8_lossy(&bytes)));
            }
            Err(RecvError::Empty) => report("empty"),
            Err(error) => say_error(&error),
        }
    }
}

fn take(end: &mut Receiver<Bytes>, count: u64, idle: Duration, until: Option<&str>) {
    let mut taken = 0;
    while taken < count {
        let delivery = match end.recv_timeout(idle) {
            Ok(delivery) => delivery,
            Err(error) => {
                say_error(&error);
                // One peer's end is not everybody's.
                let one = matches!(
                    error,
                    RecvError::PeerDied { .. }
                        | RecvError::PeerMisbehaved { .. }
                        | RecvError::PeerRefused { .. }
                );
                if one {
                    continue;
                }
                break;
            }
        };
        taken += 1;
        // Reported first, acknowledged then: what the sender need not keep, the test knows of.
        let bytes = &delivery.message.0;
        let tag = tag(bytes).map_or("-".to_owned(), |(sender, n)| format!("{sender}:{n}"));
        report(format!(
            "got {tag} {} {:016x} {} {} {} {}",
            bytes.len(),
            digest(bytes),
            u8::from(delivery.redelivered),
            delivery.deliveries,
            delivery.lost_before,
            delivery.priority,
        ));
        end.acknowledge(delivery).expect("acknowledged");
        if until == Some(tag.as_str()) {
            break;
        }
    }
    report("done");
}
