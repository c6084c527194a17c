//! Two network namespaces with a pair of virtual Ethernet devices between them, as containers have: both ends of a connection are found.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use switchboard_inspect::analysis::deadlocks;
use switchboard_inspect::analysis::wakers::Grade;
use switchboard_inspect::{Kind, Object, Request, Snapshot};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::skip::skip;

/// Run in a network namespace of its own: makes another one, and devices between both. A server here and a client there say their process ids and
/// wait for each other's words, until the standard input ends.
const SCRIPT: &str = r#"
unshare --net sleep 600 & other=$!
trap 'kill $other $server $client 2>/dev/null' EXIT
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
set -e
ip link add one type veth peer name two netns $other
ip address add 10.77.0.1/24 dev one
ip link set one up
nsenter --net=/proc/$other/ns/net sh -c 'ip address add 10.77.0.2/24 dev two; ip link set two up'
perl -MIO::Socket::INET -e '
  $| = 1;
  $l = IO::Socket::INET->new(Listen => 1, LocalAddr => "10.77.0.1", LocalPort => 7777) or die $!;
  $c = $l->accept; close $l;
  print "server $$\n"; sysread $c, $x, 1' & server=$!
nsenter --net=/proc/$other/ns/net perl -MIO::Socket::INET -e '
  $| = 1;
  until ($c = IO::Socket::INET->new(PeerAddr => "10.77.0.1:7777")) { select undef, undef, undef, 0.01 }
  print "client $$\n"; sysread $c, $x, 1' & client=$!
read end || true
"#;

fn unshare(script: &str) -> Command {
    let root = switchboard_kernel::process::effective_user_id() == 0;
    let way: &[&str] = if root { &["--net"] } else { &["--user", "--map-root-user", "--net"] };
    let mut command = Command::new("unshare");
    command.args(way).args(["sh", "-c", script]);
    command
}

fn of_process(snapshot: &Snapshot, pid: u32) -> Option<&Object> {
    snapshot.objects_of(pid).find(|object| object.kind == Kind::Tcp)
}

#[test]
fn a_connection_between_network_namespaces_has_both_ends() {
    const TEST: &str = "a_connection_between_network_namespaces_has_both_ends";
    let can = unshare("ip link add one type veth peer name two && command -v nsenter perl")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !can.is_ok_and(|status| status.success()) {
        return skip(TEST, "network namespaces with virtual Ethernet devices are refused");
    }
    let mut shell =
        unshare(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut lines = BufReader::new(shell.stdout.take().expect("a pipe")).lines();
    let mut said = || lines.next().expect("a line").expect("read");
    let both = [said(), said()];
    let pid = |name: &str| -> u32 {
        let line = both.iter().find_map(|line| line.strip_prefix(name));
        line.and_then(|pid| pid.trim().parse().ok()).unwrap_or_else(|| panic!("{name}: {both:?}"))
    };
    let (server, client) = (pid("server "), pid("client "));
    let until = Instant::now() + DEADLINE;
    let (snapshot, deadlock) = loop {
        let snapshot = Request::everything().twice(Duration::from_millis(200)).take();
        let mut pids = [server, client];
        pids.sort_unstable();
        let found = deadlocks::find(&snapshot).into_iter().find(|one| one.processes == pids);
        if found.is_some() || Instant::now() > until {
            break (snapshot, found);
        }
    };
    drop(shell.stdin.take());
    shell.wait().expect("an end");
    let (here, there) = (of_process(&snapshot, server), of_process(&snapshot, client));
    let (here, there) = (here.expect("the server's end"), there.expect("the client's end"));
    assert_ne!(here.namespace, there.namespace);
    assert_eq!(here.peer.as_deref(), Some(there.id.as_str()), "{here:?}");
    assert_eq!(there.peer.as_deref(), Some(here.id.as_str()), "{there:?}");
    let deadlock = deadlock.expect("a deadlock");
    // Another machine could have that address.
    assert!(deadlock.grade < Grade::Certain, "{deadlock:?}");
    assert!(!deadlock.evidence.iter().any(|text| text.contains("another machine")), "{deadlock:?}");
}
