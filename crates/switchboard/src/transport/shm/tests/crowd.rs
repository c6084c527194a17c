//! Many processes that come at the same moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::{random, unix_socket};
use switchboard_testkit::child::{DEADLINE, instruction, report};
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, names};
use crate::transport::shm::hello::{Pattern, Role};

const WRITERS: usize = 17;
const READERS: usize = 23;

/// Role: at each `go` comes, meets so many, proves who they are, and at `leave` goes again.
pub(super) fn member(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let role = if arguments[1] == "writer" { Role::Writer } else { Role::Reader };
    let expected: usize = arguments[2].parse().expect("a number");
    report("ready");
    while instruction().is_some() {
        let mut end = End::open(&base, Pattern::Topic, role);
        end.until("all are met", |end| end.met.len() >= expected);
        // Each says its ID over each link, and hears the one that it met there.
        for met in &end.met {
            unix_socket::send(&met.socket, &end.id().0).expect("sent");
        }
        for met in &end.met {
            let mut id = [0; 16];
            let heard = wait_for(&met.socket, Interest::Readable, Deadline::after(DEADLINE));
            assert_eq!(heard, Ok(true));
            assert_eq!(unix_socket::recv(&met.socket, &mut id), Ok(16));
            assert_eq!(id, met.hello.id.0);
        }
        let mut ids: Vec<_> = end.met.iter().map(|met| met.hello.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), end.met.len(), "one link each");
        report("met");
        assert_eq!(instruction().as_deref(), Some("look"));
        // All have met all: what is still under way comes to nothing.
        end.until("nothing is wanted", |end| end.meeting.wanted() == 0);
        for _ in 0..20 {
            end.meeting.wait(Deadline::after(Duration::from_millis(1))).expect("wait");
            end.turn(std::time::Instant::now());
        }
        assert_eq!((end.met.len(), end.said.len()), (expected, 0), "{:?}", end.said);
        report("looked");
        assert_eq!(instruction().as_deref(), Some("leave"));
        drop(end);
        report("left");
    }
}

#[test]
fn forty_processes_that_come_at_once_have_one_link_for_each_pair() {
    let scratch = Scratch::new();
    let start = |role: &str, peers: usize| {
        let base = scratch.path().display().to_string();
        Child::role("shm-member", &[&base, role, &peers.to_string()])
    };
    let mut members: Vec<Child> = (0..WRITERS).map(|_| start("writer", READERS)).collect();
    members.extend((0..READERS).map(|_| start("reader", WRITERS)));
    all(&mut members, None, "ready");
    for _ in 0..6 {
        shuffle(&mut members);
        all(&mut members, Some("go"), "met");
        all(&mut members, Some("look"), "looked");
        assert_eq!(names(scratch.path()).len(), WRITERS + READERS);
        all(&mut members, Some("leave"), "left");
        assert!(is_gone(scratch.path()));
    }
    for member in &mut members {
        assert!(member.wait().success());
    }
}

fn is_gone(base: &Path) -> bool {
    !base.join("switchboard/shm/channel").exists()
}

fn all(members: &mut [Child], told: Option<&str>, answer: &str) {
    if let Some(told) = told {
        members.iter_mut().for_each(|member| member.tell(told));
    }
    members.iter_mut().for_each(|member| member.expect(answer));
}

fn shuffle(members: &mut [Child]) {
    for at in (1..members.len()).rev() {
        let mut bytes = [0; 8];
        random::fill(&mut bytes).expect("random bytes");
        members.swap(at, usize::from_le_bytes(bytes) % (at + 1));
    }
}
