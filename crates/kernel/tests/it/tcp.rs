//! Tests of `tcp.rs`.

#![allow(unsafe_code)]

use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use switchboard_kernel::ErrorKind;
use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::tcp;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, skip};

use crate::hand_over::ready;
use crate::python::{self, Death};

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// Whether this machine has an IPv6 loopback; if not, the test is skipped.
pub(crate) fn has_ipv6(test: &str) -> bool {
    let has = std::net::UdpSocket::bind(V6).is_ok();
    if !has {
        skip::skip(test, "no IPv6 on this machine");
    }
    has
}

#[test]
fn echo_over_ipv4() {
    check_echo(V4);
}

#[test]
fn echo_over_ipv6() {
    if has_ipv6("tcp::echo_over_ipv6") {
        check_echo(V6);
    }
}

fn check_echo(addr: SocketAddr) {
    let listener = tcp::listen_at(addr, 8, true).unwrap();
    let local = tcp::local_address(&listener).unwrap();
    assert_eq!(local.ip(), addr.ip());
    assert_eq!(tcp::accept(&listener, false).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut child = Child::role("tcp-peer", &[local]);
    ready(&listener);
    let (connection, peer) = tcp::accept(&listener, false).unwrap();
    assert_eq!(tcp::peer_address(&connection), Ok(peer));
    assert_eq!(tcp::local_address(&connection), Ok(local));
    tcp::set_nodelay(&connection, true).unwrap();
    let parts = [IoSlice::new(b"to "), IoSlice::new(b"and fro")];
    assert_eq!(tcp::send_vectored(&connection, &parts), Ok(10));
    tcp::shutdown_write(&connection).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(io::read_full(&connection, &mut buffer), Ok(10));
    assert_eq!(&buffer[..10], b"to and fro");
    child.expect("end");
}

/// Role: connects, and sends back what it gets until the end; then does what it is told.
pub(crate) fn peer(arguments: &[String]) {
    let connection = tcp::connect(arguments[0].parse().unwrap()).unwrap();
    let mut buffer = [0; 64];
    loop {
        match tcp::recv(&connection, &mut buffer).unwrap() {
            0 => break,
            n => assert_eq!(tcp::send(&connection, &buffer[..n]), Ok(n)),
        }
    }
    report("end");
    drop(connection);
    let _ = instruction();
}

#[test]
fn a_killed_peer_is_end_of_file_then_a_broken_pipe() {
    let listener = tcp::listen_at(V4, 8, false).unwrap();
    let mut child = Child::role("tcp-peer", &[tcp::local_address(&listener).unwrap()]);
    ready(&listener);
    let (connection, _) = tcp::accept(&listener, true).unwrap();
    assert_eq!(tcp::send(&connection, b"hello"), Ok(5));
    ready(&connection);
    let mut buffer = [0; 64];
    assert_eq!(tcp::recv(&connection, &mut buffer), Ok(5));
    assert_eq!(tcp::recv(&connection, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    child.kill();
    ready(&connection);
    assert_eq!(tcp::recv(&connection, &mut buffer), Ok(0));
    // The first send is answered by a reset, after which sending fails.
    let deadline = Deadline::after(DEADLINE);
    let error = loop {
        assert!(!deadline.passed(), "no reset in time");
        match tcp::send(&connection, b"anybody?") {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
}

#[test]
fn nobody_listening_is_refused() {
    // Bound and not listening: nobody else can take the port meanwhile.
    let holder = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&holder, &V4).unwrap();
    let addr = tcp::local_address(&holder).unwrap();
    assert_eq!(tcp::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let refused = tcp::connect_start(addr).and_then(|fd| {
        wait_for(&fd, Interest::Writable, Deadline::after(DEADLINE))?;
        tcp::connect_finish(&fd)
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_started_connection_is_finished_later() {
    let listener = tcp::listen_at(V4, 8, false).unwrap();
    let fd = tcp::connect_start(tcp::local_address(&listener).unwrap()).unwrap();
    assert!(wait_for(&fd, Interest::Writable, Deadline::after(DEADLINE)).unwrap());
    tcp::connect_finish(&fd).unwrap();
    let (_connection, peer) = tcp::accept(&listener, false).unwrap();
    assert_eq!(tcp::local_address(&fd), Ok(peer));
    assert_eq!(tcp::recv(&fd, &mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn two_listeners_exclude_each_other() {
    let first = tcp::listen_at(V4, 8, false).unwrap();
    let addr = tcp::local_address(&first).unwrap();
    assert_eq!(tcp::listen_at(addr, 8, false).unwrap_err().kind(), ErrorKind::AddressInUse);
    // An open connection does not keep the port from a restarted listener.
    let _client = tcp::connect(addr).unwrap();
    let _connection = tcp::accept(&first, false).unwrap();
    drop(first);
    // A process that was just being started may hold a copy for a moment.
    let deadline = Deadline::after(DEADLINE);
    while let Err(error) = tcp::listen_at(addr, 8, false) {
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(!deadline.passed(), "the port stays taken");
    }
}

#[test]
fn a_signal_does_not_break_a_connection_attempt() {
    // A full backlog leaves the child's attempt unanswered for as long as nobody accepts.
    let listener = tcp::listen_at(V4, 0, false).unwrap();
    let addr = tcp::local_address(&listener).unwrap();
    let _filler = tcp::connect(addr).unwrap();
    let mut child = Child::role("tcp-interrupted", &[addr]);
    child.expect("connecting");
    wait_until_under_way(addr);
    for _ in 0..5 {
        child.tell("interrupt");
        child.expect("interrupted");
    }
    // The filler's connection makes room for the child's, which its kernel tries again.
    let (_filled, _) = tcp::accept(&listener, false).unwrap();
    ready(&listener);
    let (_connection, peer) = tcp::accept(&listener, false).unwrap();
    child.expect(&format!("connected from {peer}"));
}

/// Waits until a connection attempt to `addr` shows in the kernel's table as sent and unanswered.
fn wait_until_under_way(addr: SocketAddr) {
    const SYN_SENT: &str = "02";
    let deadline = Deadline::after(DEADLINE);
    let port = format!(":{:04X}", addr.port());
    let under_way = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|columns| {
            columns.len() > 3 && columns[2].ends_with(&port) && columns[3] == SYN_SENT
        })
    };
    while !under_way() {
        assert!(!deadline.passed(), "the child does not connect in time");
        std::thread::yield_now();
    }
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Role: connects while signals arrive that do not restart system calls.
pub(crate) fn interrupted(arguments: &[String]) {
    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::SeqCst);
    }
    let handler: extern "C" fn(libc::c_int) = count;
    // SAFETY: all zeroes is a valid sigaction: no flags (so no SA_RESTART), an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    let none = core::ptr::null_mut();
    // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, none) };
    assert_eq!(result, 0);
    // SAFETY: takes nothing, cannot fail.
    let connecting = unsafe { libc::pthread_self() };
    std::thread::spawn(move || {
        for seen in 0.. {
            let Some(_) = instruction() else { return };
            // SAFETY: the thread runs until the process ends: it waits below.
            assert_eq!(unsafe { libc::pthread_kill(connecting, libc::SIGUSR1) }, 0);
            while SIGNALS.load(Ordering::SeqCst) == seen {
                std::thread::yield_now();
            }
            report("interrupted");
        }
    });
    report("connecting");
    let connection = tcp::connect(arguments[0].parse().unwrap()).unwrap();
    report(format_args!("connected from {}", tcp::local_address(&connection).unwrap()));
    loop {
        std::thread::park();
    }
}

#[test]
fn options_take_effect() {
    let listener = tcp::listen_at(V4, 8, false).unwrap();
    let fd = tcp::connect(tcp::local_address(&listener).unwrap()).unwrap();
    tcp::set_keepalive(&fd, Duration::from_millis(2500), Duration::from_secs(4), 5).unwrap();
    tcp::set_user_timeout(&fd, Duration::from_micros(1_500_100)).unwrap();
    tcp::set_nodelay(&fd, true).unwrap();
    use rustix::net::sockopt;
    assert!(sockopt::socket_keepalive(&fd).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&fd), Ok(Duration::from_secs(3)));
    assert_eq!(sockopt::tcp_keepintvl(&fd), Ok(Duration::from_secs(4)));
    assert_eq!(sockopt::tcp_keepcnt(&fd), Ok(5));
    assert_eq!(sockopt::tcp_user_timeout(&fd), Ok(1501));
    assert!(sockopt::tcp_nodelay(&fd).unwrap());
    let zero = tcp::set_keepalive(&fd, Duration::ZERO, Duration::from_secs(1), 1).unwrap_err();
    assert_eq!(zero.name(), "EINVAL");
    tcp::set_send_buffer(&fd, 65_536).unwrap();
    assert!(tcp::send_buffer(&fd).unwrap() >= 65_536);
}

#[test]
fn a_full_connection_would_block() {
    let listener = tcp::listen_at(V4, 8, false).unwrap();
    let fd = tcp::connect_start(tcp::local_address(&listener).unwrap()).unwrap();
    assert!(wait_for(&fd, Interest::Writable, Deadline::after(DEADLINE)).unwrap());
    let (_unread, _) = tcp::accept(&listener, false).unwrap();
    let deadline = Deadline::after(DEADLINE);
    let error = loop {
        assert!(!deadline.passed(), "never full");
        if let Err(error) = tcp::send(&fd, &[0; 65_536]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn python_at_either_end() {
    let death = Death { ends: true, writing: &["EPIPE", "ECONNRESET"] };
    python::check("tcp::python_at_either_end", &death, || {
        let listener = tcp::listen_at(V4, 1, false).unwrap();
        let ours = tcp::connect(tcp::local_address(&listener).unwrap()).unwrap();
        let (theirs, _) = tcp::accept(&listener, false).unwrap();
        (python::both(ours), python::both(theirs))
    });
}
