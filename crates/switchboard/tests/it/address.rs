//! Addresses: what is one, and which part of what is none is pointed at.

use switchboard::Address;
use switchboard::transport::TABLE;

#[test]
fn every_example_of_the_table_is_an_address() {
    for row in TABLE {
        let address: Address = row.example.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(address.scheme(), row.scheme);
        assert_eq!(address.to_string(), row.example);
    }
}

#[test]
fn addresses() {
    let good = [
        "unix:/run/x.sock",
        "unix:///run/x.sock",
        "unix:relative/x",
        "unix:@name",
        "unix:/a%3Fb?mode=0640&connect",
        "fifo:/tmp/f?capacity=1MiB",
        "mq:/jobs?max-messages=5&max-message=64KiB",
        "mq://jobs",
        "sysv:/etc/hostname",
        "sysv:/etc/hostname#255",
        "sysv:0xCAFE?type=7",
        "tcp:127.0.0.1:0",
        "tcp:[::1]:7000?framing=lines",
        "tcp://localhost:80",
        "udp:127.0.0.1:1?framing=raw",
        "fd:0",
        "signal:self/SIGUSR1",
        "signal:4711/RTMIN+3",
        "signal://4711/SIGRTMAX",
        "sem:/ready?value=0",
        "sem://ready",
        "sysv-sem:/etc/hostname#3?index=7&value=1",
        "posix-shm:/engine?size=64KiB&layout=slots",
        "sysv-shm:0xCAFE?layout=bare",
        "mmap:relative/file?size=1",
    ];
    for text in good {
        let address: Result<Address, _> = text.parse();
        assert!(address.is_ok(), "{text}: {}", address.expect_err("an error"));
    }
}

#[test]
fn errors_point_at_the_wrong_part() {
    let check = |text: &str, part: &str, problem: &str| {
        let error = text.parse::<Address>().expect_err(text);
        assert_eq!(&text[error.part()], part, "{text}: {}", error.problem());
        assert!(error.problem().contains(problem), "{text}: {}", error.problem());
        assert!(error.to_string().contains('^'), "{error}");
    };
    let twice = "unix:/x?mode=0600&mode=0600".parse::<Address>().expect_err("twice");
    assert_eq!(twice.part(), 18..27, "the second one is pointed at");
    check("", "", "no scheme");
    check("/run/x.sock", "/run/x.sock", "unix:/run/x.sock");
    check("unx:/run/x", "unx", "unknown scheme");
    check("unix:", "", "nothing after the scheme");
    check("unix:?mode=0600", "", "nothing after the scheme");
    check("signal:4711", "4711", "PID/SIGNAL");
    check("signal:0/SIGUSR1", "0/SIGUSR1", "or self");
    check("signal:-1/SIGUSR1", "-1/SIGUSR1", "or self");
    check("signal:2147483648/SIGUSR1", "2147483648/SIGUSR1", "or self");
    check("signal:1/SIGRTMIN+99", "1/SIGRTMIN+99", "no signal");
    check("signal:1/SIGSTOP", "1/SIGSTOP", "cannot be waited for");
    check("sem:ready", "ready", "as in sem:/ready");
    check("posix-shm:/a/b", "/a/b", "as in posix-shm:/engine");
    check("sem:/x?value=-1", "-1", "a count is 0 to");
    check("sysv-sem:/x?index=65536", "65536", "number, from 0");
    check("mmap:/x?layout=flat", "flat", "slots or bare");
    check("mmap:/x?size=0", "0", "a size is");
    check("mmap:/x?value=1", "value", "unknown option");
    check("unix:/x?mod=0640", "mod", "unknown option; unix: takes");
    check("unix:/x?mode=0999", "0999", "octal");
    check("unix:/x?mode=07777", "07777", "octal");
    check("unix:/x?mode", "mode", "mode=OCTAL");
    check("unix:/x?mode=", "mode=", "mode=OCTAL");
    check("unix:/x?bind=yes", "yes", "no value");
    check("unix:/x?bind&connect", "connect", "one side binds");
    check("unix:/x?framing=xml", "xml", "link, lines, length or raw");
    check("unix:/x?owner=nobody-of-this-name", "nobody-of-this-name", "no such user");
    check("unix:/x?", "", "unknown option");
    check("unix:/x?mode=0600&mode=0666", "mode=0666", "mode is given twice");
    check("unix:/x?bind&mode=0600&bind", "bind", "bind is given twice");
    check("unix:/a%zz", "/a%zz", "hexadecimal");
    check("unix:/a%00", "/a%00", "NUL");
    check("unix:a\0b", "\0", "NUL");
    check("unix:@", "@", "empty");
    check("fd:x", "x", "number");
    check("fd:-1", "-1", "number");
    check("mq:jobs", "jobs", "a slash");
    check("mq:/a/b", "/a/b", "no further slash");
    check("mq:/a?max-messages=0", "0", "number of messages");
    check("sysv:0x0", "0x0", "IPC_PRIVATE");
    check("sysv:0x123456789", "0x123456789", "eight hexadecimal");
    check("sysv:/x#256", "/x#256", "1 to 255");
    check("sysv:#3", "#3", "path comes before");
    check("sysv:/x?type=0", "0", "1 or more");
    check("tcp:localhost", "localhost", "no port");
    check("tcp::80", ":80", "no host");
    check("tcp:h:99999", "h:99999", "ports are 0 to 65535");
    check("tcp:::1:80", "::1:80", "brackets");
    check("tcp:[::1:80", "[::1:80", "ends with ]");
    check("fifo:/x?capacity=5GiB", "5GiB", "below 4 GiB");
    check("fifo:/x?capacity=1kb", "1kb", "KiB");
}

#[test]
fn a_terminal_does_not_obey_an_address() {
    let error = "\u{1b}[31munix:/x".parse::<Address>().expect_err("no scheme of that name");
    assert!(!error.to_string().contains('\u{1b}'));
    let long = format!("unix:/{}", "x".repeat(10_000));
    let error = long.parse::<Address>().expect_err("too long").to_string();
    assert!(error.contains("at most 8192") && error.len() < 400, "{error}");
}

#[test]
fn plaintext_stays_on_this_machine_unless_spelled_out() {
    use switchboard::{Bytes, ErrorKind, Queue};
    for scheme in ["tcp", "udp"] {
        let open = |address: String| Queue::<Bytes>::open(&address).expect("an address").sender();
        let error = open(format!("{scheme}:192.0.2.1:9")).expect_err("not this machine");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.advice().is_some_and(|advice| advice.contains("?plaintext")), "{error}");
    }
    let any = Queue::<Bytes>::open("tcp:0.0.0.0:0").expect("an address");
    assert_eq!(any.receiver().expect_err("every network").kind(), ErrorKind::PermissionDenied);
    let spelled = Queue::<Bytes>::open("tcp:0.0.0.0:0?plaintext").expect("an address");
    assert!(spelled.receiver().is_ok());
}
