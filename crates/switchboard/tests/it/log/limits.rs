//! Limits of a log, hit on purpose: a clear error that names the limit, and nothing lost.

use std::os::unix::fs::PermissionsExt;

use switchboard::{Bytes, ErrorKind, Queue, SendError, Start, Topic};
use switchboard_testkit::child::{Child, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{DEADLINE, Scratch};

use super::{payload, read_topic};

/// Role: publishes until that fails, with no file longer than so many bytes.
pub(crate) fn short_files(arguments: &[String]) {
    let limit = Some(arguments[1].parse().expect("a number"));
    let limits = rustix::process::Rlimit { current: limit, maximum: limit };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limits).expect("a limit");
    fill(&arguments[0]);
}

/// Role: publishes until that fails, in a small file system of its own.
pub(crate) fn small_disk(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=3m") {
        return;
    }
    report("mounted");
    fill(&format!("file:{folder}/log?segment=1MiB&durability={}", arguments[1]));
}

/// Mounts a small file system there, in a mount namespace of its own.
pub(super) fn mount(folder: &str, size: &str) -> bool {
    std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", size, "tmpfs", folder])
        .status()
        .is_ok_and(|status| status.success())
}

/// Role: sends until a small file system of its own is full, then receives all of it, and sends again.
pub(crate) fn small_queue(arguments: &[String]) {
    let folder = &arguments[0];
    if !mount(folder, "size=128k") {
        return;
    }
    report("mounted");
    let queue = Queue::<Bytes>::open(&format!("file:{folder}/log?segment=4096")).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    let mut count = 0;
    while sender.send(&Bytes(payload(count + 1))).is_ok() {
        count += 1;
    }
    drop(sender);
    // Not a byte is left.
    let rest = std::fs::write(format!("{folder}/rest"), vec![1; 1 << 20]);
    report(format!("{count} sent, full: {}", rest.is_err()));
    let mut receiver = queue.receiver().expect("a receiver");
    for n in 1..=count {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(delivery.message.0, payload(n));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    receiver.flush().expect("settled");
    queue.sender().expect("a sender").send(&Bytes(payload(0))).expect("there is room again");
    report("received");
}

#[test]
fn a_full_file_system_is_emptied_by_its_first_receiver() {
    let root = rustix::process::geteuid().is_root();
    let starter: &[&str] = if root { &["unshare", "-m"] } else { &["unshare", "-U", "-r", "-m"] };
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().expect("a path").to_owned();
    let mut child = Child::role_under(starter, "log-small-queue", &[folder]);
    if child.line().as_deref() != Some("mounted") {
        skip("log::limits::a_full_file_system_is_emptied", "no mount namespace may be made here");
        return;
    }
    let answer = child.line().expect("an answer");
    assert!(answer.ends_with("sent, full: true") && !answer.starts_with("0 "), "{answer}");
    child.expect("received");
}

/// Publishes in batches until it fails, says how, and that everything before is there.
fn fill(address: &str) {
    let topic = Topic::<Bytes>::open(address).expect("a topic");
    let mut publisher = match topic.publisher() {
        Ok(publisher) => publisher,
        Err(error) => {
            let advice = error.advice().unwrap_or_default().to_owned();
            return report(format!("0 {:?} {error} {advice}", error.kind()));
        }
    };
    let mut count = 0;
    let error = loop {
        let pushed = if count % 200 == 0 { publisher.push() } else { Ok(()) };
        match pushed.and_then(|()| publisher.feed(&payload(count + 1))) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    let SendError::Failed(error) = error else { panic!("{error}") };
    // For what was accepted there is room.
    publisher.push().expect("pushed");
    drop(publisher);
    let readout = read_topic(address);
    assert!(readout.reports.is_empty() && readout.messages.len() as u64 == count, "{readout:?}");
    let advice = error.advice().unwrap_or_default().to_owned();
    report(format!("{count} {:?} {error} {advice}", error.kind()));
}

#[test]
fn the_largest_file_is_limited() {
    let scratch = Scratch::new();
    let address = format!("file:{}", scratch.join("log").display());
    let mut child = Child::role("log-short-files", &[address, (1 << 20).to_string()]);
    let answer = child.line().expect("an answer");
    assert!(answer.starts_with("0 LimitReached ") && answer.contains("EFBIG"), "{answer}");
    assert!(answer.contains("RLIMIT_FSIZE"), "{answer}");
}

#[test]
fn a_full_file_system_is_an_error_before_anything_is_lost() {
    let root = rustix::process::geteuid().is_root();
    let starter: &[&str] = if root { &["unshare", "-m"] } else { &["unshare", "-U", "-r", "-m"] };
    for durability in ["memory", "synced"] {
        let scratch = Scratch::new();
        let folder = scratch.path().to_str().expect("a path").to_owned();
        let arguments = [folder, durability.to_owned()];
        let mut child = Child::role_under(starter, "log-small-disk", &arguments);
        if child.line().as_deref() != Some("mounted") {
            skip("log::limits::a_full_file_system", "no mount namespace may be made here");
            return;
        }
        let answer = child.line().expect("an answer");
        let count: u64 = answer.split(' ').next().expect("a count").parse().expect("a number");
        assert!(count > 10_000, "{answer}");
        assert!(answer.contains("LimitReached") && answer.contains("ENOSPC"), "{answer}");
        assert!(answer.contains("full") && answer.contains("?segment="), "{answer}");
    }
}

#[test]
fn a_queue_that_is_full_waits_and_goes_on() {
    let scratch = Scratch::new();
    let address = format!("file:{}?segment=4096&capacity=16KiB", scratch.join("log").display());
    let queue = Queue::<Bytes>::open(&address).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    let mut count = 0;
    while sender.try_send(&Bytes(payload(count + 1))).is_ok() {
        count += 1;
        assert!(count < 1000, "never full");
    }
    let mut receiver = queue.receiver().expect("a receiver");
    for n in 1..=count {
        let delivery = receiver.recv().expect("a message");
        assert_eq!(delivery.message.0, payload(n));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    sender.send_timeout(&Bytes(payload(count + 1)), DEADLINE).expect("there is room again");
    assert_eq!(receiver.recv().expect("a message").message.0, payload(count + 1));
}

#[test]
fn a_queue_that_is_full_is_not_waited_for_without_wanting_to() {
    let scratch = Scratch::new();
    let log = format!("file:{}", scratch.join("log").display());
    switchboard::object::create(&log.parse().expect("an address")).expect("created");
    let address = format!("{log}?segment=4096&capacity=8KiB");
    let options = switchboard::Options::default().wait_for_peer(false);
    let queue = Queue::<Bytes>::open_with(&address, options).expect("a queue");
    let mut sender = queue.sender().expect("a sender");
    let mut count = 0;
    let error = loop {
        match sender.send(&Bytes(payload(count + 1))) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SendError::Full) && count > 10, "{count}: {error}");
    for _ in 0..2 {
        sender.drive().expect("nothing waits");
        let error = sender.send(&Bytes(payload(count + 1))).expect_err("it is full");
        assert!(matches!(error, SendError::Full), "{error}");
    }
    let mut receiver = queue.receiver().expect("a receiver");
    for n in 1..=count {
        let delivery = receiver.recv().expect("a message");
        assert_eq!(delivery.message.0, payload(n));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    sender.send(&Bytes(payload(count + 1))).expect("there is room again");
    assert_eq!(receiver.recv().expect("a message").message.0, payload(count + 1));
    sender.close().expect("closed");
}

#[test]
fn a_message_too_large_is_refused_by_name() {
    let scratch = Scratch::new();
    let address = format!("file:{}?segment=64KiB", scratch.join("log").display());
    let mut sender = Queue::<Bytes>::open(&address).expect("a queue").sender().expect("a sender");
    let largest = 65536 - 64 - 32;
    sender.send(&Bytes(vec![1; largest])).expect("it fits");
    let error = sender.send(&Bytes(vec![1; largest + 1])).expect_err("it does not");
    let SendError::TooLarge { limit_bytes, limit, .. } = error else { panic!("{error}") };
    assert!(limit_bytes == largest && limit.contains("segment"), "{limit_bytes} {limit}");
}

#[test]
fn what_is_in_the_way_is_named() {
    let scratch = Scratch::new();
    let path = scratch.join("log");
    std::fs::write(&path, "no folder").expect("a file");
    let queue = Queue::<Bytes>::open(&format!("file:{}", path.display())).expect("a queue");
    let error = queue.sender().expect_err("a file is there");
    assert_eq!(error.kind(), ErrorKind::AddressInUse);
    let missing = format!("file:{}", scratch.join("nothing").join("log").display());
    let error = Queue::<Bytes>::open(&missing).expect("a queue").sender().expect_err("no folder");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn options_that_mean_nothing_here_are_refused() {
    let scratch = Scratch::new();
    let refused = |query: &str, says: &[&str]| {
        let address = format!("file:{}?{query}", scratch.join("log").display());
        let results = if says[0] == "queue" {
            let queue = Queue::<Bytes>::open(&address).expect("a queue");
            [queue.sender().map(drop), queue.receiver().map(drop)]
        } else {
            let topic = Topic::<Bytes>::open(&address).expect("a topic");
            [topic.publisher().map(drop), topic.subscriber(Start::New).map(drop)]
        };
        for result in results {
            let error = result.expect_err(query);
            assert_eq!(error.kind(), ErrorKind::BadAddress, "{query}: {error}");
            for word in says {
                assert!(error.to_string().contains(word), "{query}: {error}");
            }
        }
    };
    for (query, says) in [
        ("retain=7d", ["queue", "?retain="].as_slice()),
        ("retain-bytes=1GiB", &["queue", "?retain-bytes="]),
        ("reader=archive", &["queue", "?reader="]),
        ("capacity=1GiB", &["topic", "?capacity="]),
        ("capacity=1MiB", &["queue", "?capacity=", "33554432"]),
        ("capacity=8191&segment=4096", &["queue", "?capacity=", "8192"]),
        ("retain-bytes=1MiB", &["topic", "?retain-bytes=", "16777216"]),
        ("retain-bytes=4095&segment=4096", &["topic", "?retain-bytes=", "4096"]),
    ] {
        refused(query, says);
        assert!(!scratch.join("log").exists(), "{query}: nothing was made");
    }
}

#[test]
fn new_files_are_like_those_that_are_there() {
    let scratch = Scratch::new();
    let path = scratch.join("log");
    let address: switchboard::Address =
        format!("file:{}?mode=0664", path.display()).parse().expect("an address");
    switchboard::object::create(&address).expect("created");
    // Nobody says it again.
    super::publish(&format!("file:{}", path.display()), 1..2);
    let named = format!("file:{}?reader=one", path.display());
    let topic = Topic::<Bytes>::open(&named).expect("a topic");
    drop(topic.subscriber(Start::Oldest).expect("a subscriber"));
    let mode = |name: &str| {
        let found = std::fs::metadata(path.join(name)).expect("a file");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode("readers"), 0o775);
    assert_eq!(mode("readers/one"), 0o664);
    let segments = std::fs::read_dir(&path).expect("a folder").flatten();
    let names = segments.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let segments: Vec<_> = names.filter(|name| name.ends_with(".seg")).collect();
    assert!(!segments.is_empty());
    segments.iter().for_each(|name| assert_eq!(mode(name), 0o664, "{name}"));
}
