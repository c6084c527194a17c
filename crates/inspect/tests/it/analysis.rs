//! What follows from a snapshot, as pure functions: who is in a deadlock and how sure it is, who can end a wait, what a sentence says.

use std::time::Duration;

use switchboard_inspect::analysis::deadlocks::{self, Deadlock};
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{stuck, why};
use switchboard_inspect::{Snapshot, Via, WaitOn};

use crate::world::world;

/// `certain cycle: a b; behind: c`.
fn in_words(snapshot: &Snapshot, deadlock: &Deadlock) -> String {
    let index = Index::new(snapshot);
    let names = |pids: &[u32]| {
        let mut names: Vec<&str> = pids
            .iter()
            .filter_map(|&pid| snapshot.process(pid))
            .map(|process| process.name.as_str())
            .collect();
        names.dedup();
        names.join(" ")
    };
    let (grade, shape) = (deadlock.grade.word(), deadlock.shape.words());
    let mut text = format!("{grade} {shape}: {}", names(&deadlock.processes));
    if !deadlock.behind.is_empty() {
        let pids = deadlock.behind.iter().filter_map(|&tid| index.process_of(tid));
        text += &format!("; behind: {}", names(&pids.collect::<Vec<_>>()));
    }
    text
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    // As a file says it, too.
    let snapshot = Snapshot::from_json(&world(text).to_json()).expect("a snapshot");
    let found = deadlocks::find(&snapshot);
    let found: Vec<String> = found.iter().map(|one| in_words(&snapshot, one)).collect();
    assert_eq!(found, expected, "{text}");
}

/// What stays locked when its owner has ended is said only of a lock of which that is true.
#[test]
fn a_way_out_says_what_stays_locked() {
    for (detail, maps, stays) in [
        ("mutex", "other maps futex:1", true),
        ("read-write lock", "other maps futex:1", true),
        ("mutex", "", false),
        ("robust mutex", "other maps futex:1", false),
        ("priority-inheriting mutex", "other maps futex:1", false),
        ("end of a thread", "other maps futex:1", false),
    ] {
        let mut snapshot = world(&format!(
            "a maps futex:1; waits lock futex:1 of b
             b maps futex:1; writes pipe:1; waits data pipe:2
             a2 reads pipe:1; writes pipe:2; waits lock futex:1 of b
             {maps}"
        ));
        if maps.is_empty() {
            // A private one: it is in the memory of one process.
            let owner = snapshot.processes.iter().find(|one| one.name == "a").map(|one| one.pid);
            let word = snapshot.objects.iter_mut().find(|object| object.id == "futex:1");
            word.expect("a word").ends.retain(|end| Some(end.pid) == owner);
        }
        for thread in snapshot.processes.iter_mut().flat_map(|process| &mut process.threads) {
            if let Some(WaitOn::Objects(targets)) = thread.wait.as_mut().map(|wait| &mut wait.on) {
                let locks = targets.iter_mut().filter(|target| target.object == "futex:1");
                locks.for_each(|target| target.detail = Some(detail.to_owned()));
            }
        }
        let found = deadlocks::find(&snapshot);
        let [deadlock] = &found[..] else { panic!("{detail}: {found:#?}") };
        assert_eq!(deadlock.way_out.contains("stays locked"), stays, "{detail}: {deadlock:#?}");
    }
}

#[test]
fn cycles() {
    check(
        "a reads pipe:1; writes pipe:2; waits data pipe:1
         b reads pipe:2; writes pipe:1; waits data pipe:2",
        &["certain cycle: a b"],
    );
    check(
        "a has unix:1; waits data unix:1
         b has unix:2; waits room unix:2
         ! peers unix:1 unix:2",
        &["certain cycle: a b"],
    );
    check(
        "a waits lock futex:1 of b
         b waits lock futex:2 of c
         c waits lock futex:3 of a
         d waits lock futex:1 of b",
        &["certain cycle: a b c; behind: d"],
    );
    // A lock, a pipe, and a file's lock in one.
    check(
        "a writes pipe:1; waits lock futex:1 of b
         b waits lock lock:8:1:5 of c
         c reads pipe:1; waits data pipe:1",
        &["certain cycle: a b c"],
    );
    check("a waits lock futex:1 of a", &["certain waits for itself: a"]);
    check("a reads pipe:1; writes pipe:1; waits data pipe:1", &["certain waits for itself: a"]);
    // A parent, and a child that reads what only its parent could write.
    check(
        "parent writes pipe:1; waits children child
         child child of parent; reads pipe:1; waits data pipe:1",
        &["certain cycle: parent child"],
    );
}

#[test]
fn knots() {
    // Two others could write, and both are in it; or one of them is free.
    for (third, expected) in [
        ("c reads pipe:2; writes pipe:1; waits data pipe:2", &["certain knot: a b c"][..]),
        ("c writes pipe:1; waits time", &[]),
    ] {
        let text = format!(
            "a reads pipe:1; writes pipe:2; waits data pipe:1
             b reads pipe:2; writes pipe:1; waits data pipe:2
             {third}"
        );
        check(&text, expected);
    }
    // A poll, of which one part is open.
    check(
        "a has unix:1 unix:9; waits data unix:1 unix:9
         b has unix:2; waits data unix:2
         ! peers unix:1 unix:2
         ! listens unix:9",
        &[],
    );
    // Of several locks, every one has to go: one that stays is enough.
    check(
        "a waits locks lock:8:1:5 of b c
         b waits lock lock:8:1:6 of a
         c waits time",
        &["certain cycle: a b"],
    );
    check(
        "a waits lock lock:8:1:5 of b c
         b waits lock lock:8:1:6 of a
         c waits time",
        &[],
    );
}

/// Of each of several locks, any of those who have it can let go.
#[test]
fn locks_that_several_have() {
    for (locks, expected) in [
        ("b+free c", &["certain cycle: a c; behind: b"][..]),
        ("b c+free", &["certain cycle: a b; behind: c"]),
        ("b+c free", &["certain knot: a b c"]),
        ("b+free c+free", &[]),
        ("b+free free", &[]),
    ] {
        let text = format!(
            "a waits locks lock:8:1:5 of {locks}
             b waits lock lock:8:1:6 of a
             c waits lock lock:8:1:7 of a
             free waits time"
        );
        check(&text, expected);
    }
}

/// Nobody is surer to be stuck than those for whom it waits, however far away.
#[test]
fn a_wait_is_as_sure_as_what_it_rests_on() {
    let chain = "shell waits children sub
         sub child of shell; waits children program
         program child of sub; reads pipe:1; writes pipe:1; waits data pipe:1; handles 15";
    check(chain, &["possible waits for itself: program; behind: shell sub"]);
    for (who, handles, expected) in [
        ("shell", "; handles 15", false),
        ("sub", "; handles 15", false),
        ("shell", "", true),
        ("program", "", true),
    ] {
        let text = chain.replace("; handles 15", handles);
        let snapshot = world(&text);
        let index = Index::new(&snapshot);
        let set = stuck::set(&index);
        let process = snapshot.processes.iter().find(|one| one.name == who).expect("a process");
        let looks =
            why::looks_stuck(&index, &set, process, &process.threads[0], Duration::from_secs(1));
        assert_eq!(looks, expected, "{who}: {text}");
    }
    says(
        chain,
        "shell",
        "shell[10] has waited 5.0 s for its child sub[20] to end; its child sub[20] may be stuck itself: it waits in wait",
    );
    // One of several that could help is in doubt; of several locks one that stays for sure is enough.
    check(
        "a reads pipe:1; waits data pipe:1
         b writes pipe:1; waits lock futex:1 of b
         c writes pipe:1; reads pipe:2; writes pipe:2; waits data pipe:2; handles 15",
        &["certain waits for itself: b; behind: a", "possible waits for itself: c"],
    );
    check(
        "a waits locks lock:8:1:5 of b c
         b waits lock futex:1 of b
         c reads pipe:2; writes pipe:2; waits data pipe:2; handles 15",
        &["certain waits for itself: b; behind: a", "possible waits for itself: c"],
    );
}

/// A tracer is woken by those whom it traces, too.
#[test]
fn tracers() {
    let text = "tracer writes pipe:1; waits children cat TRACEE
         cat child of tracer; reads pipe:1; waits data pipe:1
         tracee traced by tracer; waits time";
    check(&text.replace("TRACEE", "tracee"), &[]);
    check(&text.replace("TRACEE", ""), &["certain cycle: tracer cat"]);
    says(
        &text.replace("cat TRACEE", "tracee"),
        "tracer",
        "tracer[10] has waited 5.0 s for tracee[30], which it traces, to stop or end; its only tracee tracee[30] sleeps in nanosleep for a time",
    );
    says(
        &text.replace("TRACEE", "tracee"),
        "tracer",
        "tracer[10] has waited 5.0 s for any that it started or traces: cat[20], tracee[30]; any of these can end that: cat[20] waits in read on pipe:1, tracee[30] sleeps in nanosleep for a time",
    );
}

#[test]
fn who_is_gone() {
    check("a waits lock futex:1 of dead", &["probable waits for the dead: a"]);
    check("a waits lock? futex:1 of dead", &["possible waits for the dead: a"]);
    check(
        "a waits lock futex:1 of b
         b ended",
        &["certain waits for the dead: a"],
    );
    // Who is stopped can be continued.
    check(
        "a waits lock futex:1 of b
         b waits lock futex:2 of a; stopped",
        &[],
    );
}

/// Two that wait for each other, with something more said of one or both.
#[track_caller]
fn check_two(left: &str, right: &str, more: &str, expected: &[&str]) {
    let text = format!(
        "left reads pipe:1; writes pipe:2; waits data pipe:1; {left}
         right reads pipe:2; writes pipe:1; waits data pipe:2; {right}
         {more}"
    );
    check(&text, expected);
}

#[test]
fn grades() {
    const CERTAIN: &[&str] = &["certain cycle: left right"];
    const PROBABLE: &[&str] = &["probable cycle: left right"];
    const POSSIBLE: &[&str] = &["possible cycle: left right"];
    for (left, right, more, expected) in [
        ("", "", "", CERTAIN),
        // It ends by itself, or may.
        ("timed", "", "", &[][..]),
        ("doubted", "", "", POSSIBLE),
        // Nobody looked twice; or it was something else the second time.
        ("once", "", "", PROBABLE),
        ("", "moved", "", &[]),
        ("runs", "", "", &[]),
        ("", "ring", "", &[]),
        // Somebody could not be looked into.
        ("", "", "other unreadable", PROBABLE),
        // Or was not there to be looked into: others' processes, those outside of a container.
        ("", "", "! hidden", PROBABLE),
        ("", "", "! no host", PROBABLE),
        // Somebody will take an end of who knows what out of a socket.
        ("", "", "! fact unix:9 descriptors_in_flight 1", POSSIBLE),
        // SIGALRM, SIGTERM, SIGUSR1, a real-time signal.
        ("handles 14", "", "", POSSIBLE),
        ("", "handles 15", "", POSSIBLE),
        ("", "handles 2 10", "", POSSIBLE),
        ("handles 40", "", "", POSSIBLE),
        // From a keyboard.
        ("handles 2", "", "", PROBABLE),
        ("handles 2 3 20 28", "handles 2", "", PROBABLE),
        // For what a thread does itself, and those that the C library keeps.
        ("handles 4 7 8 11 13 25 31 32 33", "", "", CERTAIN),
        // A child that can end, or that cannot.
        ("handles 17", "", "child child of left; waits time", POSSIBLE),
        ("handles 17", "", "child child of left; ended", CERTAIN),
        ("handles 17", "", "child child of left; reads pipe:2; waits data pipe:2", CERTAIN),
        ("handles 17", "", "", CERTAIN),
        // A debugger that can do something, and one that waits for whom it traces.
        ("traced by other", "", "other waits time", PROBABLE),
        ("", "traced by other", "other waits time", PROBABLE),
        (
            "traced by other",
            "",
            "other waits children left",
            &["certain cycle: left right; behind: other"],
        ),
        // Another thread of it is free.
        ("", "", "right waits time", &[]),
        ("", "", "right waits lock futex:1 of left", CERTAIN),
    ] {
        let expected: Vec<String> = match more {
            // What waits behind them is said, too.
            "child child of left; reads pipe:2; waits data pipe:2" => {
                vec!["certain cycle: left right; behind: child".to_owned()]
            }
            "right waits lock futex:1 of left" => vec!["certain knot: left right".to_owned()],
            _ => expected.iter().map(|&one| one.to_owned()).collect(),
        };
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check_two(left, right, more, &expected);
    }
}

/// What goes by processes and memory, those who are not seen cannot end.
#[test]
fn what_is_certain_in_a_container() {
    for unseen in
        ["other unreadable", "! hidden", "! no host", "! fact unix:9 descriptors_in_flight 2"]
    {
        check(
            &format!(
                "left waits lock futex:1 of right
                 right waits lock futex:2 of left
                 {unseen}"
            ),
            &["certain cycle: left right"],
        );
        check(
            &format!(
                "left waits lock lock:8:1:5 of right
                 right waits lock lock:8:1:6 of left
                 ! locks lock:8:1:5 posix
                 ! locks lock:8:1:6 posix
                 {unseen}"
            ),
            &["certain cycle: left right"],
        );
        // These go with an open file, which may be somebody else's, too.
        let grade = if unseen.contains("flight") { "possible" } else { "probable" };
        check(
            &format!(
                "left waits lock lock:8:1:5 of right
                 right waits lock lock:8:1:6 of left
                 ! locks lock:8:1:5 flock
                 ! locks lock:8:1:6 posix
                 {unseen}"
            ),
            &[&format!("{grade} cycle: left right")],
        );
    }
}

#[test]
fn a_handler_unlocks_nothing() {
    check(
        "left handles 14 15; waits lock futex:1 of right
         right handles 15; waits lock futex:2 of left",
        &["certain cycle: left right"],
    );
    // But it interrupts the wait for a file's lock.
    check(
        "left handles 14; waits lock lock:8:1:5 of right
         right waits lock lock:8:1:6 of left",
        &["possible cycle: left right"],
    );
    // And a pipe's end is closed by the handler of who waits for a lock.
    check(
        "left handles 15; writes pipe:1; waits lock futex:1 of right
         right reads pipe:1; waits data pipe:1",
        &["possible cycle: left right"],
    );
}

#[test]
fn kinds() {
    let two = |words: &str| {
        let [a, b] = [("left", "right"), ("right", "left")].map(|(own, other)| {
            let words = words.replace("OWN", own).replace("OTHER", other);
            format!("{own} {words}\n")
        });
        a + &b
    };
    for (words, expected) in [
        ("waits counted sysv-sem:1 of OTHER", &["possible cycle: left right"][..]),
        ("has eventfd:OWN eventfd:OTHER; waits data eventfd:OWN", &["probable knot: left right"]),
        ("reads fifo:OWN; writes fifo:OTHER; waits data fifo:OWN", &["probable cycle: left right"]),
        ("reads mq:OWN; writes mq:OTHER; waits data mq:OWN", &["probable cycle: left right"]),
        ("has unix:OWN; waits delivery unix:OTHER", &["certain cycle: left right"]),
        ("has pidfd:OTHER; waits data pidfd:OTHER", &["certain cycle: left right"]),
        ("has udp:OWN; waits room udp:OWN", &[]),
        ("has signalfd:OWN; waits data signalfd:OWN", &[]),
        ("has timerfd:OWN; waits data timerfd:OWN", &[]),
        ("has fifo:OWN; waits writer fifo:OWN", &[]),
        // Both ways, as servers have them.
        ("has fifo:OWN fifo:OTHER; waits data fifo:OWN", &["possible knot: left right"]),
        ("has mq:OWN mq:OTHER; waits data mq:OWN", &["possible knot: left right"]),
        ("waits signal", &[]),
        ("waits time", &[]),
        ("waits other", &[]),
    ] {
        let mut text = two(words);
        if words.contains("pidfd") {
            text += "! pidfd pidfd:left of left\n! pidfd pidfd:right of right";
        }
        check(&text, expected);
    }
    for (kind, grade) in
        [("unix", "certain"), ("tcp", "certain"), ("udp", "probable"), ("pty", "probable")]
    {
        let text = format!(
            "left has {kind}:1; waits data {kind}:1
             right has {kind}:2; waits data {kind}:2
             ! peers {kind}:1 {kind}:2"
        );
        check(&text, &[&format!("{grade} cycle: left right")]);
    }
    // Everybody who can reach the word sleeps on it: a condition that nobody is left to signal, or that somebody will come to signal.
    check(
        "left maps futex:1; waits change futex:1
         right maps futex:1; waits change futex:1",
        &["possible waits for the dead: left", "possible waits for the dead: right"],
    );
}

#[track_caller]
fn says(text: &str, who: &str, expected: &str) {
    let snapshot = world(text);
    let index = Index::new(&snapshot);
    let set = stuck::set(&index);
    let process = snapshot.processes.iter().find(|one| one.name == who).expect("a process");
    let thread = process.threads.first().cloned().unwrap_or_default();
    let said = why::sentence(&index, &set, process, &thread);
    assert_eq!(said, expected, "{text}");
}

#[test]
fn sentences() {
    let pair = "left reads pipe:1; writes pipe:2; waits data pipe:1
         right reads pipe:2; writes pipe:1; waits data pipe:2";
    says(
        pair,
        "left",
        "left[10] has waited 5.0 s to read from pipe:1; its only writer right[20] is stuck itself: it waits in read on pipe:2",
    );
    says(
        &pair.replace("pipe:2; writes pipe:1", "pipe:2; handles 14; writes pipe:1"),
        "left",
        "left[10] has waited 5.0 s to read from pipe:1; its only writer right[20] may be stuck itself: it waits in read on pipe:2",
    );
    says(
        "left writes pipe:1; waits room pipe:1
         right reads pipe:1; stopped",
        "left",
        "left[10] has waited 5.0 s to write to pipe:1 (full); its only reader right[20] is stopped (SIGSTOP)",
    );
    says(
        "left waits delivery unix:1
         right has unix:1; waits time",
        "left",
        "left[10] has waited 5.0 s to send to unix:1 (full); its only receiver right[20] sleeps in nanosleep for a time",
    );
    says(
        "left waits other; stopped",
        "left",
        "left[10] is stopped (SIGSTOP) for 5.0 s, in io_uring_enter on what is not seen",
    );
    says("left runs", "left", "left[10] runs");
    for (left, said) in [
        ("waits signal; halted", "is stopped by its debugger, and has waited 5.0 s for a signal"),
        (
            "waits other; halted",
            "is stopped by its debugger for 5.0 s, in io_uring_enter on what is not seen",
        ),
        ("waits signal", "has waited 5.0 s for a signal"),
    ] {
        let text = format!("left {left}; traced by gdb\n gdb waits children left");
        says(&text, "left", &format!("left[10] (traced by gdb[20]) {said}"));
    }
    says(
        "gdb waits children left\n left child of gdb; traced by gdb; halted",
        "gdb",
        "gdb[10] has waited 5.0 s for left[20], which it traces, to stop or end; its only tracee left[20] is stopped by its debugger",
    );
    says(
        "left maps futex:1; waits change futex:1",
        "left",
        "left[10] has waited 5.0 s for futex:1; nobody is left who is known to be able to end that",
    );
    says(
        "left has unix:1; waits data unix:1
         ! listens unix:1",
        "left",
        "left[10] has waited 5.0 s for a client at unix:1; anybody who connects can end that",
    );
    says(
        "left reads pipe:1; waits data pipe:1; timed",
        "left",
        "left[10] has waited 5.0 s to read from pipe:1, until its timeout",
    );
    says(
        "left waits children child
         child child of left; ended",
        "left",
        "left[10] has waited 5.0 s for its child child[20] to end; its child child[20] has ended, and its parent has not waited for it",
    );
}

/// A file may say anything.
#[test]
fn no_number_is_too_large_for_a_sentence() {
    for since in [(u64::MAX, u64::MAX), (0, u64::MAX), (u64::MAX, 0)] {
        let mut snapshot = world("left reads pipe:1; waits data pipe:1");
        let thread = &mut snapshot.processes[0].threads[0];
        thread.wait.as_mut().expect("a wait").since_ms = Some(since);
        let pipe = &mut snapshot.objects[0];
        (pipe.fill, pipe.size) = (Some(u64::MAX), Some(0));
        let index = Index::new(&snapshot);
        let set = stuck::set(&index);
        let process = &snapshot.processes[0];
        let said = why::sentence(&index, &set, process, &process.threads[0]);
        assert!(said.contains("to read from pipe:1"), "{said}");
        let _ = why::looks_stuck(&index, &set, process, &process.threads[0], Duration::ZERO);
    }
}

#[test]
fn who_looks_stuck() {
    for (text, expected) in [
        // Whom nobody can help; who waits for one that is stopped; for room.
        ("who waits lock futex:1 of who", true),
        ("who waits lock futex:1 of other\n other stopped; waits time", true),
        ("who writes pipe:1; waits room pipe:1\n other reads pipe:1; waits time", true),
        ("who waits delivery unix:1\n other has unix:1; waits time", true),
        // Who has nothing to do, or is busy, or will give up.
        ("who reads pipe:1; waits data pipe:1\n other writes pipe:1; waits time", false),
        ("who writes pipe:1; waits room pipe:1; timed\n other reads pipe:1; waits time", false),
        ("who writes pipe:1; waits room pipe:1; moved\n other reads pipe:1; waits time", false),
        ("who waits signal", false),
        ("who stopped; waits lock futex:1 of who", false),
        ("who reads pipe:1; writes pipe:1; handles 15; waits data pipe:1", false),
    ] {
        let snapshot = world(text);
        let index = Index::new(&snapshot);
        let set = stuck::set(&index);
        let process = &snapshot.processes[0];
        let patience = Duration::from_secs(1);
        let looks = why::looks_stuck(&index, &set, process, &process.threads[0], patience);
        assert_eq!(looks, expected, "{text}");
    }
}

#[test]
fn orphans() {
    for (text, expected) in [
        // A child of a shell, and of one that leads no session.
        ("shell session shell\n who child of shell; session shell", false),
        (
            "shell session shell\n sub child of shell; session shell\n who child of sub; session shell",
            false,
        ),
        // Taken over by the first process, or by a subreaper, or by the first one of a container.
        ("init session init\n shell session shell\n who child of init; session shell", true),
        (
            "manager session manager\n shell session shell\n who child of manager; session shell",
            true,
        ),
        // Its session's first process is gone, too.
        ("init session init\n gone\n who child of init; session gone", true),
        // A daemon began a session; its child is its own.
        ("init session init\n who child of init; session who", false),
        ("daemon session daemon\n who child of daemon; session daemon", false),
        // Nothing is known of the parent.
        ("shell session shell\n who session shell", false),
    ] {
        let snapshot = world(text);
        let who = snapshot.processes.iter().find(|one| one.name == "who").expect("who");
        assert_eq!(snapshot.is_orphan(who), expected, "{text}");
    }
}

#[test]
fn what_is_said_about_a_world_is_in_it() {
    let snapshot = world("a reads pipe:1; has unix:2; handles 14\n a waits time\n b maps futex:3");
    let threads: Vec<u32> = snapshot.processes[0].threads.iter().map(|thread| thread.tid).collect();
    assert_eq!((threads, snapshot.processes[1].pid), (vec![10, 11], 20));
    let ends = &snapshot.object("pipe:1").expect("a pipe").ends;
    assert_eq!((ends[0].reads, ends[0].writes, ends[0].via), (true, false, Via::Fd(3)));
    assert_eq!(snapshot.processes[0].caught_signals, 1 << 13);
    assert!(snapshot.coverage.is_whole());
}
