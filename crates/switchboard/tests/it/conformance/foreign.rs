//! Programs that are not ours on the other side: `echo`, `cat`, `nc`, `socat`, Python.

use std::io::Write;
use std::process::Command;

use switchboard_testkit::Child;
use switchboard_testkit::skip::skip;

use super::{Meeting, own_host};

/// Whether a program is there; if not, the test says that it was skipped.
fn have(test: &str, program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

fn shell(line: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    Child::command(command)
}

/// Runs a shell line, gives it its input, and closes that.
fn feed(line: &str, input: &str) -> Child {
    let mut child = shell(line);
    let mut stdin = child.stdin().expect("its input");
    stdin.write_all(input.as_bytes()).expect("written");
    child
}

#[test]
fn echo_writes_to_a_fifo() {
    let mut meeting = Meeting::of("fifo");
    let mut receiver = meeting.receiver("follow");
    let path = meeting.path().expect("a path");
    let path = path.display();
    assert!(feed(&format!("echo 'one line' > {path}"), "").wait().success());
    assert_eq!(receiver.ask("text 15000"), "text one line");
    let lines = format!("printf 'two\\nthree\\n\\nno end of line' > {path}");
    assert!(feed(&lines, "").wait().success());
    for text in ["two", "three", "", "no end of line"] {
        assert_eq!(receiver.ask("text 15000"), format!("text {text}"));
    }
}

#[test]
fn cat_reads_a_fifo() {
    let mut meeting = Meeting::of("fifo");
    let mut sender = meeting.sender("");
    let path = meeting.path().expect("a path");
    let mut cat = shell(&format!("exec cat {}", path.display()));
    for text in ["one", "two"] {
        sender.must(&format!("text {text}"), "sent");
        cat.expect(text);
    }
    sender.close();
    assert_eq!(cat.line(), None, "the end of the stream is its end");
    assert!(!path.exists());
}

/// Foreign commands that send their input, and that print what they get.
struct Tools {
    address: String,
    /// The receiver binds this, and the foreign sender runs so.
    sends: String,
    /// The foreign receiver runs so; the sender's address has these options.
    prints: String,
    query: &'static str,
}

fn check(test: &str, program: &str, tools: impl Fn(&Meeting, &str) -> Tools, scheme: &str) {
    if !have(test, program) {
        return;
    }
    let mut meeting = Meeting::of(scheme);
    let target = meeting.address().split_once(':').expect("a scheme").1.to_owned();
    let tools_of = tools(&meeting, &target);
    assert!(tools_of.address.starts_with(scheme));
    let mut receiver = meeting.receiver_at(tools_of.query, "follow");
    let mut feeder = feed(&tools_of.sends, "one\ntwo\n");
    let stream = meeting.row.framing.is_some();
    // A datagram is a message, with all that its sender put into it.
    for text in if stream { ["one", "two"] } else { ["one two ", ""] } {
        if text.is_empty() && !stream {
            continue;
        }
        let answer = receiver.ask("text 15000");
        // A report is a line: the datagram's line feeds end it.
        assert!(answer.starts_with("text one") || answer == format!("text {text}"), "{answer}");
    }
    // It sees the end while it waits for more, and closes; then the foreign program goes too.
    receiver.must("timeout 50", "empty");
    assert!(feeder.wait().success());
    receiver.kill();

    let mut meeting = Meeting::of(scheme);
    let target = meeting.address().split_once(':').expect("a scheme").1.to_owned();
    let tools_of = tools(&meeting, &target);
    let mut printer = shell(&tools_of.prints);
    let mut sender = meeting.sender_at(tools_of.query, "");
    if stream {
        for text in ["first", "second"] {
            sender.must(&format!("text {text}"), "sent");
            printer.expect(text);
        }
        sender.close();
        assert_eq!(printer.line(), None, "it sees the end");
    } else {
        // Whoever comes later finds nothing of what was sent before.
        for _ in 0..200 {
            sender.must("text first\\n", "sent");
            if let Some(line) = printer.line_within(std::time::Duration::from_millis(50)) {
                assert_eq!(line, "first");
                return;
            }
        }
        panic!("{}: it never prints anything", tools_of.prints);
    }
}

#[test]
fn nc_speaks_lines_over_a_unix_socket() {
    check(
        "nc_speaks_lines_over_a_unix_socket",
        "nc",
        |meeting, target| Tools {
            address: meeting.address().to_owned(),
            sends: format!("exec nc -N -U {target} > /dev/null"),
            prints: format!("exec nc -l -U {target} < /dev/null"),
            query: "?framing=lines",
        },
        "unix",
    );
}

#[test]
fn nc_speaks_lines_over_tcp() {
    check(
        "nc_speaks_lines_over_tcp",
        "nc",
        |meeting, target| {
            let (host, port) = target.split_once(':').expect("a port");
            Tools {
                address: meeting.address().to_owned(),
                sends: format!("exec nc -N {host} {port} > /dev/null"),
                prints: format!("exec nc -l {host} {port} < /dev/null"),
                query: "?framing=lines",
            }
        },
        "tcp",
    );
}

#[test]
fn socat_speaks_lines_over_a_unix_socket() {
    check(
        "socat_speaks_lines_over_a_unix_socket",
        "socat",
        |meeting, target| Tools {
            address: meeting.address().to_owned(),
            sends: format!("exec socat -u - UNIX-CONNECT:{target}"),
            prints: format!("exec socat -u UNIX-LISTEN:{target} -"),
            query: "?framing=lines",
        },
        "unix",
    );
}

#[test]
fn socat_sends_datagrams_over_a_unix_socket() {
    check(
        "socat_sends_datagrams_over_a_unix_socket",
        "socat",
        |meeting, target| Tools {
            address: meeting.address().to_owned(),
            sends: format!("exec socat -u - UNIX-SENDTO:{target}"),
            prints: format!("exec socat -u UNIX-RECV:{target} -"),
            query: "",
        },
        "unix-dgram",
    );
}

#[test]
fn socat_sends_datagrams_over_udp() {
    check(
        "socat_sends_datagrams_over_udp",
        "socat",
        |meeting, target| {
            let (host, port) = target.split_once(':').expect("a port");
            Tools {
                address: meeting.address().to_owned(),
                sends: format!("exec socat -u - UDP-SENDTO:{target}"),
                prints: format!("exec socat -u UDP-RECV:{port},bind={host} -"),
                query: "?framing=raw",
            }
        },
        "udp",
    );
}

#[test]
fn a_foreign_reader_connects_to_a_sender_that_binds() {
    let test = "a_foreign_reader_connects_to_a_sender_that_binds";
    if !have(test, "nc") {
        return;
    }
    let mut meeting = Meeting::of("unix");
    let mut sender = meeting.sender_at("?bind&framing=lines", "");
    let path = meeting.path().expect("a path");
    let mut nc = shell(&format!("exec nc -U {} < /dev/null", path.display()));
    sender.must("text hello", "sent");
    nc.expect("hello");
    sender.close();
    assert_eq!(nc.line(), None);
}

#[test]
fn a_foreign_reader_that_dies_is_noticed() {
    let test = "a_foreign_reader_that_dies_is_noticed";
    if !have(test, "socat") {
        return;
    }
    let host = own_host();
    let address = format!("tcp:{host}:7000?framing=lines");
    let mut sender = Child::role("sender", &[address.as_str(), "no-reconnect", "lines"]);
    sender.expect("open");
    let mut socat = shell(&format!("exec socat -u TCP-LISTEN:7000,bind={host} -"));
    sender.tell("text hello");
    sender.expect("sent");
    socat.expect("hello");
    socat.kill();
    // The first message after may still reach the kernel's buffer.
    for _ in 0..1000 {
        sender.tell("text more");
        match sender.line().as_deref() {
            Some("sent") => {}
            Some(other) => return assert!(other.starts_with("error PeerDied"), "{other}"),
            None => panic!("it ended"),
        }
    }
    panic!("the death of the reader was never noticed");
}

/// What a foreign reader that dies had not been given yet is counted, not taken for sent: by `flush`,
/// by an error, and at the end.
#[test]
fn what_was_never_written_is_not_acknowledged() {
    for (scheme, query) in
        [("fifo", ""), ("fifo", "?framing=length"), ("unix", "?bind&framing=lines")]
    {
        let mut meeting = Meeting::of(scheme);
        let path = meeting.path().expect("a path");
        let mut sender = meeting.start("sender", query, "");
        sender.expect("open");
        // The test is the reader, and reads nothing.
        let reader: std::os::fd::OwnedFd = if scheme == "fifo" {
            switchboard_kernel::fifo::open_reader(&path).expect("a reader")
        } else {
            std::os::unix::net::UnixStream::connect(&path).expect("a connection").into()
        };
        sender.must("timeout 1 0 100 15000", "sent");
        let full = sender.must("fill 1 100", "full ");
        let taken: u64 = full["full ".len()..].parse().expect("a number");
        let sent = sender.count("sent");
        assert_eq!(sent, taken + 1);
        let (acknowledged, waiting) =
            (sender.count("acknowledged"), sender.count("unacknowledged"));
        assert_eq!(acknowledged + waiting, sent, "{scheme}{query}");
        assert!(acknowledged > 0 && waiting > 0, "{scheme}{query}: {acknowledged}, {waiting}");
        if scheme == "fifo" {
            // Nobody reads: what the kernel took is what the pipe holds.
            assert!(acknowledged * 101 <= 64 * 1024, "{query}: {acknowledged} are acknowledged");
        }
        drop(reader);
        let died = sender.must("flush 15000", "error PeerDied");
        assert!(died.contains(&format!("unacknowledged: {waiting} ")), "{waiting}: {died}");
        assert_eq!(sender.count("acknowledged"), acknowledged);
        assert_eq!(sender.count("unacknowledged"), waiting);
        // There is nothing more to wait for, and the loss is not forgotten.
        let answer = sender.ask("close");
        assert!(
            answer.starts_with(&format!("close-error unacknowledged={waiting} rejected=0")),
            "{answer}"
        );
        assert_eq!(answer.matches("not acknowledged").count(), 1, "said once: {answer}");
    }
}

/// A Python interpreter that has this module.
fn python(test: &str, module: &str) -> Option<String> {
    let interpreter = std::env::var("SWITCHBOARD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&interpreter).args(["-c", &format!("import {module}")]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(interpreter);
    }
    skip(test, &format!("{interpreter} has no module {module}"));
    None
}

fn python_child(interpreter: &str, program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(interpreter);
    command.args(["-u", "-c", program]).args(arguments);
    Child::command(command)
}

#[test]
fn python_and_a_posix_queue() {
    let Some(python) = python("python_and_a_posix_queue", "posix_ipc") else { return };
    let mut meeting = Meeting::of("mq");
    let name = meeting.address().strip_prefix("mq:").expect("a name").to_owned();
    let mut receiver = meeting.receiver("");
    let mut child = python_child(
        &python,
        "import posix_ipc, sys\nq = posix_ipc.MessageQueue(sys.argv[1])\n\
         q.send(b'low', priority=1)\nq.send(b'high', priority=7)\nprint('sent')",
        &[&name],
    );
    child.expect("sent");
    assert_eq!(receiver.ask("text 15000"), "text high");
    assert_eq!(receiver.ask("text 15000"), "text low");
    receiver.close();
    let mut sender = meeting.sender("");
    sender.must("text hello", "sent");
    let mut child = python_child(
        &python,
        "import posix_ipc, sys\nq = posix_ipc.MessageQueue(sys.argv[1])\n\
         print(q.receive(10)[0].decode())",
        &[&name],
    );
    child.expect("hello");
}

#[test]
fn python_and_a_system_v_queue() {
    let Some(python) = python("python_and_a_system_v_queue", "sysv_ipc") else { return };
    let mut meeting = Meeting::of("sysv");
    let path = meeting.address().strip_prefix("sysv:").expect("a path").to_owned();
    let mut receiver = meeting.receiver("");
    let mut child = python_child(
        &python,
        "import sysv_ipc, sys\nq = sysv_ipc.MessageQueue(sysv_ipc.ftok(sys.argv[1], 1, True))\n\
         q.send(b'one', type=1)\nq.send(b'two', type=5)\nprint('sent')",
        &[&path],
    );
    child.expect("sent");
    assert_eq!(receiver.ask("text 15000"), "text one");
    assert_eq!(receiver.ask("text 15000"), "text two");
    receiver.close();
    let mut sender = meeting.sender_at("?type=9", "");
    sender.must("text hello", "sent");
    let mut child = python_child(
        &python,
        "import sysv_ipc, sys\nq = sysv_ipc.MessageQueue(sysv_ipc.ftok(sys.argv[1], 1, True))\n\
         text, kind = q.receive(type=9)\nprint(text.decode(), kind)",
        &[&path],
    );
    child.expect("hello 9");
}
