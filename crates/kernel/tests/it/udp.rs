//! Tests of `udp.rs`.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use switchboard_kernel::ErrorKind;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::udp::{self, LARGEST_PAYLOAD, Received};
use switchboard_kernel::unix_socket;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, skip};

use crate::hand_over::ready;
use crate::privileges::is_root;
use crate::python::{self, Death};
use crate::tcp::has_ipv6;

const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

#[test]
fn datagrams_over_ipv4() {
    check_datagrams(V4);
}

#[test]
fn datagrams_over_ipv6() {
    if has_ipv6("udp::datagrams_over_ipv6") {
        check_datagrams(V6);
    }
}

fn check_datagrams(addr: SocketAddr) {
    let server = udp::bind(addr, true).unwrap();
    let local = udp::local_address(&server).unwrap();
    let client = udp::connect(local, true).unwrap();
    assert_eq!(udp::peer_address(&client), Ok(local));
    let mut buffer = [0; 8];
    let error = udp::recv_whole(&server, &mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    assert_eq!(udp::send(&client, b"ping"), Ok(4));
    ready(&server);
    let (received, from) = udp::recv_from(&server, &mut buffer).unwrap();
    assert_eq!(received, Received { len: 4, truncated: false });
    assert_eq!((from, &buffer[..4]), (udp::local_address(&client).unwrap(), &b"ping"[..]));

    // Cut off, then empty: both are told.
    assert_eq!(udp::send_to(&server, b"more than eight", from), Ok(15));
    assert_eq!(udp::send_to(&server, b"", from), Ok(0));
    ready(&client);
    let received = udp::recv_whole(&client, &mut buffer).unwrap();
    assert_eq!(received, Received { len: 15, truncated: true });
    assert_eq!(&buffer, b"more tha");
    ready(&client);
    let received = udp::recv_whole(&client, &mut buffer).unwrap();
    assert_eq!(received, Received { len: 0, truncated: false });

    let parts = [IoSlice::new(b"in "), IoSlice::new(b"parts")];
    assert_eq!(udp::send_vectored(&client, &parts), Ok(8));
    ready(&server);
    let (received, _) = udp::recv_from(&server, &mut buffer).unwrap();
    assert_eq!((received.len, &buffer), (8, b"in parts"));
}

#[test]
fn the_largest_payload_passes_and_no_larger() {
    let server = udp::bind(V4, true).unwrap();
    let client = udp::connect(udp::local_address(&server).unwrap(), false).unwrap();
    let mut buffer = vec![0; LARGEST_PAYLOAD];
    assert_eq!(udp::send(&client, &buffer), Ok(LARGEST_PAYLOAD));
    ready(&server);
    let received = udp::recv_whole(&server, &mut buffer).unwrap();
    assert_eq!(received, Received { len: LARGEST_PAYLOAD, truncated: false });
    let error = udp::send(&client, &vec![0; LARGEST_PAYLOAD + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
}

#[test]
fn a_closed_port_is_refused_once_known() {
    let server = udp::bind(V4, true).unwrap();
    let client = udp::connect(udp::local_address(&server).unwrap(), true).unwrap();
    drop(server);
    // Another process started meanwhile may hold a copy for a moment.
    let deadline = Deadline::after(DEADLINE);
    let error = loop {
        assert!(!deadline.passed(), "never refused");
        if let Err(error) = udp::send(&client, b"anybody?") {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// Role: receives at a port of its own, which it says; with one given, sends there first. Says what it gets.
pub(crate) fn talker(arguments: &[String]) {
    let fd = udp::bind(V4, true).unwrap();
    if let Some(to) = arguments.first() {
        udp::send_to(&fd, b"last words", to.parse().unwrap()).unwrap();
    }
    report(udp::local_address(&fd).unwrap());
    let mut buffer = [0; 64];
    loop {
        ready(&fd);
        let (received, _) = udp::recv_from(&fd, &mut buffer).unwrap();
        report(String::from_utf8_lossy(&buffer[..received.len]));
    }
}

#[test]
fn a_killed_receiver_is_refused_once_known() {
    let mut receiver = Child::role("udp-talker", &[] as &[&str]);
    let client = udp::connect(receiver.line().unwrap().parse().unwrap(), true).unwrap();
    assert_eq!(udp::send(&client, b"one"), Ok(3));
    receiver.expect("one");
    receiver.kill();
    // The first one is taken; that nobody has the port comes back, and is told with the next.
    assert_eq!(udp::send(&client, b"two"), Ok(3));
    let error = udp::send(&client, b"three").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_a_killed_sender_sent_is_there() {
    let server = udp::bind(V4, true).unwrap();
    let local = udp::local_address(&server).unwrap();
    let mut sender = Child::role("udp-talker", &[local]);
    let from: SocketAddr = sender.line().unwrap().parse().unwrap();
    sender.kill();
    ready(&server);
    let mut buffer = [0; 64];
    let (received, peer) = udp::recv_from(&server, &mut buffer).unwrap();
    assert_eq!((&buffer[..received.len], peer), (&b"last words"[..], from));
    let error = udp::recv_whole(&server, &mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "nobody says that it is gone");
}

#[test]
fn a_port_is_shared_only_when_asked() {
    let first = udp::bind(V4, true).unwrap();
    let addr = udp::local_address(&first).unwrap();
    assert_eq!(udp::bind(addr, true).unwrap_err().kind(), ErrorKind::AddressInUse);
    assert_eq!(udp::bind_shared(addr, true).unwrap_err().kind(), ErrorKind::AddressInUse);
    let shared = udp::bind_shared(V4, true).unwrap();
    udp::bind_shared(udp::local_address(&shared).unwrap(), true).unwrap();
}

/// The number of the loopback interface.
fn loopback() -> u32 {
    let text = std::fs::read_to_string("/sys/class/net/lo/ifindex").expect("a loopback interface");
    text.trim().parse().expect("a number")
}

/// A group of this process's own, so that runs at the same time do not meet.
fn group_v4() -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(239, 255, high, low)
}

#[test]
fn multicast_reaches_every_member_over_ipv4() {
    let sender = udp::bind(V4, false).unwrap();
    udp::set_multicast_interface_v4(&sender, Ipv4Addr::LOCALHOST).unwrap();
    check_multicast(&sender, IpAddr::V4(group_v4()), Ipv4Addr::UNSPECIFIED.into());
}

#[test]
fn multicast_reaches_every_member_over_ipv6() {
    const TEST: &str = "udp::multicast_reaches_every_member_over_ipv6";
    if !has_ipv6(TEST) {
        return;
    }
    let (sender, group) = sender_v6();
    match udp::send_to(&sender, b"", SocketAddr::new(group, 9)) {
        // The kernel makes a route for groups when an interface that can do multicast comes up; the
        // loopback interface is none. In a network namespace of its own the test makes the route.
        Err(error) if error.name() == "ENETUNREACH" => {
            let script = "ip link set lo up && ip route add local ff00::/8 dev lo table local \
                          && exec \"$@\"";
            let user: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
            let starter = [&["unshare", "--net"], user, &["sh", "-c", script, "sh"]].concat();
            let mut inside = Child::role_under::<&str>(&starter, "udp-multicast-v6", &[]);
            if inside.line().as_deref() == Some("inside") {
                inside.expect("every member got it");
            } else {
                skip::skip(TEST, "no IPv6 multicast route, and none can be made here");
            }
        }
        result => {
            result.unwrap();
            check_multicast(&sender, group, Ipv6Addr::UNSPECIFIED.into());
        }
    }
}

/// A sender on the loopback interface, and a group of scope 1, which never leaves this machine.
fn sender_v6() -> (OwnedFd, IpAddr) {
    let sender = udp::bind(V6, false).unwrap();
    udp::set_multicast_interface_v6(&sender, loopback()).unwrap();
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    (sender, Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0x5b, id).into())
}

/// Role: checks multicast over IPv6 in a network namespace of its own.
pub(crate) fn multicast_v6(_: &[String]) {
    report("inside");
    let (sender, group) = sender_v6();
    check_multicast(&sender, group, Ipv6Addr::UNSPECIFIED.into());
    report("every member got it");
}

fn check_multicast(sender: &OwnedFd, group: IpAddr, any: IpAddr) {
    let mut first =
        Child::role("udp-member", &[group.to_string(), SocketAddr::new(any, 0).to_string()]);
    let port: u16 = first.line().unwrap().parse().unwrap();
    let at = SocketAddr::new(any, port);
    let mut second = Child::role("udp-member", &[group.to_string(), at.to_string()]);
    assert_eq!(second.line(), Some(port.to_string()));
    udp::set_multicast_ttl(sender, 1).unwrap();
    assert_eq!(udp::set_multicast_ttl(sender, 256).unwrap_err().name(), "EINVAL");
    let to = SocketAddr::new(group, port);

    udp::send_to(sender, b"to all", to).unwrap();
    first.expect("got to all");
    second.expect("got to all");

    first.tell("leave");
    first.expect("left");
    udp::send_to(sender, b"to the rest", to).unwrap();
    second.tell("again");
    second.expect("got to the rest");
}

#[test]
fn multicast_options_take_effect() {
    use rustix::net::sockopt;
    let fd = udp::bind(V4, false).unwrap();
    udp::set_multicast_loop(&fd, false).unwrap();
    udp::set_multicast_ttl(&fd, 7).unwrap();
    assert_eq!(sockopt::ip_multicast_loop(&fd), Ok(false));
    assert_eq!(sockopt::ip_multicast_ttl(&fd), Ok(7));
    let unicast = Ipv4Addr::LOCALHOST;
    assert_eq!(udp::join_multicast_v4(&fd, unicast, unicast).unwrap_err().name(), "EINVAL");
    if has_ipv6("udp::multicast_options_take_effect") {
        let fd = udp::bind(V6, false).unwrap();
        udp::set_multicast_loop(&fd, false).unwrap();
        udp::set_multicast_ttl(&fd, 7).unwrap();
        assert_eq!(sockopt::ipv6_multicast_loop(&fd), Ok(false));
        assert_eq!(sockopt::ipv6_multicast_hops(&fd), Ok(7));
    }
    let (unix, _) = unix_socket::pair(unix_socket::Kind::Datagram).unwrap();
    assert_eq!(udp::set_multicast_ttl(&unix, 1).unwrap_err().name(), "EAFNOSUPPORT");
}

/// Role: joins a group, says its port, then what it gets, and leaves when told.
pub(crate) fn member(arguments: &[String]) {
    let group: IpAddr = arguments[0].parse().unwrap();
    let fd = udp::bind_shared(arguments[1].parse().unwrap(), true).unwrap();
    match group {
        IpAddr::V4(group) => udp::join_multicast_v4(&fd, group, Ipv4Addr::LOCALHOST).unwrap(),
        IpAddr::V6(group) => udp::join_multicast_v6(&fd, group, loopback()).unwrap(),
    }
    report(udp::local_address(&fd).unwrap().port());
    let mut buffer = [0; 64];
    loop {
        ready(&fd);
        let (received, _) = udp::recv_from(&fd, &mut buffer).unwrap();
        report(format_args!("got {}", String::from_utf8_lossy(&buffer[..received.len])));
        match instruction().as_deref() {
            Some("again") => {}
            Some("leave") => break,
            _ => return,
        }
    }
    match group {
        IpAddr::V4(group) => udp::leave_multicast_v4(&fd, group, Ipv4Addr::LOCALHOST).unwrap(),
        IpAddr::V6(group) => udp::leave_multicast_v6(&fd, group, loopback()).unwrap(),
    }
    let again = match group {
        IpAddr::V4(group) => udp::leave_multicast_v4(&fd, group, Ipv4Addr::LOCALHOST),
        IpAddr::V6(group) => udp::leave_multicast_v6(&fd, group, loopback()),
    };
    assert_eq!(again.unwrap_err().name(), "EADDRNOTAVAIL");
    report("left");
}

#[test]
fn python_at_either_end() {
    let death = Death { ends: false, writing: &["ECONNREFUSED"] };
    python::check("udp::python_at_either_end", &death, || {
        let ours = std::net::UdpSocket::bind(V4).unwrap();
        let theirs = udp::connect(ours.local_addr().unwrap(), false).unwrap();
        ours.connect(udp::local_address(&theirs).unwrap()).unwrap();
        (python::both(ours.into()), python::both(theirs))
    });
}
