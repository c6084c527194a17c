//! Processes that come, meet, stop, and are killed at random moments.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::channel as queue;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::random;
use switchboard_testkit::child::{DEADLINE, instruction, report};
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, address, hello, names, try_folder};
use crate::transport::shm::hello::{Pattern, Role};
use crate::transport::shm::meeting::{Event, FIRST_TOKEN, Meeting, Met};

const EACH_ROLE: usize = 6;
const KILLS: usize = 120;

/// Role: says its name, meets whom it can, and lets go of the dead. Asked for it, it says with whom it
/// has links.
pub(super) fn mortal(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let role = if arguments[1] == "writer" { Role::Writer } else { Role::Reader };
    let (asks, asked) = queue();
    std::thread::spawn(move || while instruction().is_some_and(|line| asks.send(line).is_ok()) {});
    let mut end = End::with(&base, hello(Pattern::Topic, role)).expect("an endpoint");
    report(end.id());
    let mut links: Vec<(u64, Met<_>)> = Vec::new();
    let mut next_token = FIRST_TOKEN;
    loop {
        end.meeting.wait(Deadline::after(Duration::from_millis(5))).expect("wait");
        let mut events = Vec::new();
        end.meeting.poll(Instant::now(), &mut end.tokens, &mut events).expect("a turn");
        for event in events {
            match event {
                Event::Met(met) => {
                    let twice = links.iter().any(|(_, link)| link.hello.id == met.hello.id);
                    assert!(!twice, "two links with one peer");
                    let process = met.process.as_ref().expect("a process");
                    let epoll = end.meeting.epoll();
                    epoll.add(process, next_token, Interest::Readable).expect("watched");
                    links.push((next_token, *met));
                    next_token += 1;
                }
                Event::Ready { token, .. } => {
                    let at = links.iter().position(|link| link.0 == token).expect("a link");
                    let (_, dead) = links.swap_remove(at);
                    let process = dead.process.expect("a process");
                    end.meeting.epoll().delete(&process).expect("watched");
                    end.meeting.forget(dead.hello.id);
                }
                other => panic!("{other:?}"),
            }
        }
        match asked.try_recv().as_deref() {
            Ok("leave") => break,
            Ok(_) => {
                let mut peers: Vec<String> =
                    links.iter().map(|(_, link)| link.hello.id.to_string()).collect();
                peers.sort_unstable();
                report(peers.join(" "));
            }
            Err(_) => {}
        }
    }
}

struct Mortal {
    child: Child,
    role: &'static str,
    id: String,
}

impl Mortal {
    fn start(scratch: &Scratch, role: &'static str) -> Self {
        let base = scratch.path().display().to_string();
        Self { child: Child::role("shm-mortal", &[base.as_str(), role]), role, id: String::new() }
    }

    fn id(&mut self) -> &str {
        if self.id.is_empty() {
            self.id = self.child.line().expect("its ID");
        }
        &self.id
    }
}

fn chance(below: usize) -> usize {
    let mut bytes = [0; 8];
    random::fill(&mut bytes).expect("random bytes");
    usize::from_le_bytes(bytes) % below
}

#[test]
fn whoever_is_killed_the_others_have_one_link_each() {
    let scratch = Scratch::new();
    let mut all: Vec<Mortal> = (0..2 * EACH_ROLE)
        .map(|at| Mortal::start(&scratch, if at % 2 == 0 { "writer" } else { "reader" }))
        .collect();
    let mut stopped: Vec<usize> = Vec::new();
    for _ in 0..KILLS {
        // Some die before they are there, some in the middle, some stopped.
        std::thread::sleep(Duration::from_micros(chance(40_000) as u64));
        let at = chance(all.len());
        match chance(3) {
            0 => {
                all[at].child.signal(Signal::STOP);
                stopped.push(at);
            }
            1 => stopped.drain(..).for_each(|at| all[at].child.signal(Signal::CONT)),
            _ => {
                stopped.retain(|stopped| *stopped != at);
                all[at].child.kill();
                all[at] = Mortal::start(&scratch, all[at].role);
            }
        }
    }
    stopped.drain(..).for_each(|at| all[at].child.signal(Signal::CONT));
    let ids: Vec<(&str, String)> =
        all.iter_mut().map(|mortal| (mortal.role, mortal.id().to_owned())).collect();
    let deadline = Deadline::after(DEADLINE);
    for mortal in &mut all {
        let expected: BTreeSet<&str> =
            ids.iter().filter(|(role, _)| *role != mortal.role).map(|(_, id)| &**id).collect();
        loop {
            mortal.child.tell("state");
            let state = mortal.child.line().expect("its links");
            if state.split_whitespace().collect::<BTreeSet<_>>() == expected {
                break;
            }
            assert!(!deadline.passed(), "{} has {state}, of {expected:?}", mortal.id);
        }
    }
    // The next one that comes cleans what is left of the dead.
    let folder = try_folder(scratch.path(), "channel").expect("a folder");
    folder.scan().expect("a scan");
    drop(folder);
    let left: BTreeSet<String> =
        names(scratch.path()).iter().map(|name| name[4..].to_owned()).collect();
    let alive: BTreeSet<String> = ids.into_iter().map(|(_, id)| id).collect();
    assert_eq!(left, alive);
    for mortal in &mut all {
        mortal.child.tell("leave");
        assert!(mortal.child.wait().success());
    }
    assert!(!scratch.join("switchboard/shm/channel").exists());
}

#[test]
fn what_the_dead_leave_is_removed_by_the_next() {
    let scratch = Scratch::new();
    for _ in 0..10 {
        let mut mortal = Mortal::start(&scratch, "writer");
        let _ = mortal.id();
        mortal.child.kill();
    }
    // Each removed the one before.
    assert_eq!(names(scratch.path()).len(), 1);
    let end = End::open(scratch.path(), Pattern::Topic, Role::Writer);
    assert_eq!(names(scratch.path()), [format!("t.p.{}", end.id())]);
    drop(end);
    assert!(!scratch.join("switchboard/shm/channel").exists());
    // Nobody but the dead: the folder stays, and is as good as new.
    let mut mortal = Mortal::start(&scratch, "reader");
    let _ = mortal.id();
    mortal.child.kill();
    assert_eq!(names(scratch.path()).len(), 1);
    let meeting: Meeting<()> = Meeting::open(
        &address(),
        try_folder(scratch.path(), "channel").expect("a folder"),
        hello(Pattern::Queue, Role::Writer),
        Instant::now(),
    )
    .expect("a queue, where a topic was");
    drop(meeting);
    assert!(!scratch.join("switchboard/shm/channel").exists());
}
