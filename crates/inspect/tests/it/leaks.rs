//! What was left behind, as a pure function of a snapshot: how sure it is, and what stands against it.

use std::time::Duration;

use switchboard_inspect::Snapshot;
use switchboard_inspect::analysis::leaks::{Leak, LeakOptions, leaks};
use switchboard_inspect::analysis::left::{Run, left};

use crate::world::{NOW, world};

fn found(text: &str) -> Vec<Leak> {
    // As a file says it, too.
    let snapshot = Snapshot::from_json(&world(text).to_json()).expect("a snapshot");
    leaks(&snapshot, &LeakOptions::default())
}

/// What is found, as `certain ID`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let all = found(text);
    let words: Vec<String> =
        all.iter().map(|leak| format!("{} {}", leak.certainty.word(), leak.object)).collect();
    assert_eq!(words, expected, "{text}\n{all:#?}");
    for leak in &all {
        assert!(!leak.reasons.is_empty());
        let less = leak.certainty.word() != "certain";
        assert!(!less || leak.doubts.len() + leak.not_checked.len() + leak.reasons.len() > 1);
    }
}

/// A segment with these facts, beside what else is said.
#[track_caller]
fn segment(facts: &str, others: &str, expected: &[&str]) {
    let usual = "attachments 0 changed 500 used 600 mode 600 uid 7 ipc 1";
    check(&format!("{others}\n! fact sysv-shm:1 {usual} {facts}"), expected);
}

#[test]
fn segments() {
    let nobody = "other user 9; started 1";
    segment("key private made_by 99", nobody, &["certain sysv-shm:1"]);
    segment("key 0x0000beef made_by 99", nobody, &["probable sysv-shm:1"]);
    // Somebody who may attach it could know its number.
    segment("key private made_by 99", "a user 7; started 1", &["probable sysv-shm:1"]);
    segment("key private made_by 99 mode 666", nobody, &["probable sysv-shm:1"]);
    segment("key private made_by 99 made_by_user 9", nobody, &["probable sysv-shm:1"]);
    // Its maker lives, or who had it last, or of the session that the maker began.
    segment("key private made_by a", "a user 7; started 400", &["possible sysv-shm:1"]);
    segment(
        "key private made_by 99 last_attached_or_detached_by a",
        "a user 7; started 590",
        &["possible sysv-shm:1"],
    );
    segment(
        "key private made_by 99",
        "a user 7; started 1; session b\nb ended; user 7",
        &["probable sysv-shm:1"],
    );
    segment(
        "key private made_by b",
        "a user 7; started 1; session b\nb ended; user 7",
        &["possible sysv-shm:1"],
    );
    // The id went to another process, which was started later; clocks are not that exact.
    segment("key private made_by a", "a user 9; started 503", &["certain sysv-shm:1"]);
    segment("key private made_by a", "a user 9; started 502", &["possible sysv-shm:1"]);
    // Not known who made it; who is hidden may live.
    segment("key private made_by 0", nobody, &["possible sysv-shm:1"]);
    segment("key private made_by 99", "other user 9\n! hidden", &["possible sysv-shm:1"]);
    // It is attached, wherever.
    check("a user 7\n! fact sysv-shm:1 key private made_by 99 attachments 1", &[]);
    check("a maps sysv-shm:1\n! fact sysv-shm:1 key private made_by 99 attachments 0", &[]);
    // A state of this product, with the lock of its writers.
    segment(
        "key 0x00000007 made_by 99",
        "b user 9\n! fact sysv-sem:2 key 0x53576c6c user b",
        &["possible sysv-shm:1"],
    );
}

#[test]
fn what_is_young_may_be_in_the_making() {
    for (used, expected) in [(NOW - 9, "possible"), (NOW - 11, "certain")] {
        let text = format!(
            "a user 9\n! fact sysv-shm:1 uid 7 mode 600 attachments 0 made_by 99 key private changed 5 used {used}"
        );
        check(&text, &[&format!("{expected} sysv-shm:1")]);
        let snapshot = world(&text);
        let at_once = leaks(&snapshot, &LeakOptions { young: Duration::ZERO });
        assert_eq!(at_once[0].certainty.word(), "certain");
        assert_eq!(at_once[0].idle_ms, Some((NOW - used) * 1000));
    }
}

#[test]
fn sets_of_semaphores() {
    let set = "! fact sysv-sem:1 uid 7 mode 600 changed 500 used 600";
    let nobody = "other user 9; started 1";
    check(&format!("{nobody}\n{set} key private user 99"), &["certain sysv-sem:1"]);
    check(&format!("{nobody}\n{set} key 0x00000005 user 99"), &["possible sysv-sem:1"]);
    check(&format!("a user 7\n{set} key private user 99"), &["possible sysv-sem:1"]);
    check(&format!("{nobody}\n{set} key private"), &["possible sysv-sem:1"]);
    check(&format!("a user 9; started 603\n{set} key private user a"), &["certain sysv-sem:1"]);
    // One of those who used it lives, or waits for it.
    check(&format!("a user 7; started 5\n{set} key private user 99 user a"), &[]);
    check(&format!("{nobody}\n{set} key private user 99 waiting 1"), &[]);
    check(&format!("a user 7; waits counted sysv-sem:1 of a\n{set} key private user 99"), &[]);
    // Nobody of another IPC namespace can use it.
    check(
        &format!("a user 7; ipc 2\n{set} key private user 99 namespace 1"),
        &["certain sysv-sem:1"],
    );
    check(
        &format!("a user 7; ipc 1\n{set} key private user 99 namespace 1"),
        &["possible sysv-sem:1"],
    );
    check(&format!("{nobody}\n{set} key private user 99\n! no waits"), &["possible sysv-sem:1"]);
}

#[test]
fn system_v_queues() {
    let queue = "! fact sysv-msg:1 uid 7 mode 600 changed 500 used 600";
    let nobody = "other user 9; started 1";
    check(&format!("{nobody}\n{queue} key private messages 0 user 99"), &["certain sysv-msg:1"]);
    // Nobody can come for these.
    check(&format!("{nobody}\n{queue} key private messages 3 user 99"), &["certain sysv-msg:1"]);
    check(
        &format!("{nobody}\n{queue} key 0x00000005 messages 3 user 99"),
        &["possible sysv-msg:1"],
    );
    check(
        &format!("{nobody}\n{queue} key 0x00000005 messages 0 user 99"),
        &["possible sysv-msg:1"],
    );
    check(&format!("a user 7; started 1\n{queue} key private messages 0 user 99 user a"), &[]);
    check(&format!("a user 7; waits data sysv-msg:1\n{queue} key private messages 0 user 99"), &[]);
}

#[test]
fn what_has_a_name() {
    let file = |kind: &str, name: &str, more: &str| {
        format!(
            "other user 9; started 1\n! fact {kind}:0:1:2 uid 7 mode 600 made 500 changed 500 used 600 name {name} {more}"
        )
    };
    let check_file = |kind: &str, name: &str, more: &str, grade: &str| {
        check(&file(kind, name, more), &[&format!("{grade} {kind}:0:1:2")]);
    };
    check_file("posix-shm", "/dev/shm/psm_1f03cc2a", "", "probable");
    check_file("posix-shm", "/dev/shm/speed", "", "possible");
    check_file("posix-sem", "/dev/shm/sem.mp-q9_abcde", "", "probable");
    check_file("posix-sem", "/dev/shm/sem.ready", "", "possible");
    check_file("mq", "/reply-1f03cc2a77", "fill 0", "probable");
    check_file("mq", "/reply-1f03cc2a77", "fill 2", "possible");
    check_file("mq", "/reply-1f03cc2a77", "", "possible");
    check_file("mq", "/jobs", "fill 0", "possible");
    check_file("fifo", "/tmp/tmp.a1b2c3d4/out", "", "probable");
    check_file("fifo", "/run/initctl", "", "possible");
    // What is to be kept.
    check_file("posix-shm", "/dev/shm/psm_1f03cc2a", "mode 1600", "possible");
    // Somebody has it; it is in flight; it has no name any more.
    let text = file("posix-shm", "/dev/shm/psm_1f03cc2a", "");
    check(&format!("{text}\na has posix-shm:0:1:2"), &[]);
    check(&format!("{text}\na maps posix-shm:0:1:2"), &[]);
    check(&format!("{text} in_flight unix:4"), &[]);
    check("a user 7\n! fact posix-shm:0:1:2 uid 7", &[]);
    // Its name has the id of a process that lives; or that was started later.
    check(
        "other user 9\na user 7; started 400\n! fact posix-shm:0:1:2 uid 7 mode 600 made 500 used 600 name /dev/shm/torch_20_1804289383",
        &["possible posix-shm:0:1:2"],
    );
    check(
        "other user 9\na user 7; started 503\n! fact posix-shm:0:1:2 uid 7 mode 600 made 500 used 600 name /dev/shm/torch_20_1804289383",
        &["probable posix-shm:0:1:2"],
    );
    // A program of that name lives.
    check(
        "postgres user 7\n! fact posix-shm:0:1:2 uid 7 mode 600 made 500 used 600 name /dev/shm/PostgreSQL.1804289383",
        &["possible posix-shm:0:1:2"],
    );
}

#[test]
fn what_cannot_be_seen_takes_from_it() {
    let file = "! fact posix-shm:0:1:2 uid 7 mode 600 made 500 used 600 name /dev/shm/psm_1f03cc2a";
    let grade = |others: &str, expected: &str| {
        let text = format!("{others}\n{file}");
        check(&text, &[&format!("{expected} posix-shm:0:1:2")]);
        assert!(!found(&text)[0].not_checked.is_empty());
    };
    grade("a user 0; unreadable", "probable");
    grade("a user 7; unreadable", "possible");
    grade("a user 9\n! no flights", "probable");
    // From within a container: what it shares with others is less sure.
    grade("a user 9\n! no host", "possible");
    let fifo = "! fact fifo:0:1:2 uid 7 mode 600 made 500 used 600 name /tmp/psm_1f03cc2a";
    check(&format!("a user 9\n! no host\n{fifo}"), &["possible fifo:0:1:2"]);
    let segment = "! fact sysv-shm:1 uid 7 mode 600 attachments 0 made_by 99 key private changed 5";
    check(&format!("a user 9\n! no host\n{segment}"), &["probable sysv-shm:1"]);
    let set = "! fact sysv-sem:1 uid 7 mode 600 changed 5 user 99 key private";
    check(&format!("a user 9\n! no host\n{set}"), &["possible sysv-sem:1"]);
    let unknown = "! fact unix:5 descriptors_in_flight,_not_identified 1 uid";
    grade(&format!("a user 9\n{unknown} 7"), "possible");
    // Who could not open it cannot have sent it.
    check(&format!("a user 9\n{unknown} 9\n{file}"), &["probable posix-shm:0:1:2"]);
    check(&format!("a user 9; unreadable\n{file}"), &["probable posix-shm:0:1:2"]);
    // What an io_uring has, and does not show.
    grade("a user 7; hides", "possible");
    grade("a user 9; hides", "probable");
    grade("a user 9; submits", "probable");
    check(&format!("a user 9; registers posix-shm:0:1:2\n{file}"), &[]);
    check("a user 9; registers fifo:0:1:2\n! fact fifo:0:1:2 uid 7 name /tmp/psm_1f03cc2a", &[]);
    assert!(found(&format!("a user 9\n{file}"))[0].not_checked.is_empty());
}

/// Who has operations to undo is shown nowhere.
#[test]
fn what_may_be_undone_is_not_checked() {
    let set = "! fact sysv-sem:1 uid 7 mode 600 changed 500 used 600 user 99";
    let says = |text: &str| {
        let all = found(text);
        assert_eq!(all.len(), 1, "{all:#?}");
        all[0].not_checked.iter().any(|what| what.contains("operations to undo (SEM_UNDO)"))
    };
    for key in ["key private", "key 0x00000005"] {
        assert!(says(&format!("a user 7; started 1\n{set} {key}")), "{key}");
        assert!(says(&format!("a user 9\n! no host\n{set} {key}")), "{key}");
        // Nobody lives who may operate on it.
        assert!(!says(&format!("a user 9; started 1\n{set} {key}")), "{key}");
    }
    let large = "! fact sysv-sem:1 uid 7 mode 600 changed 5 user 99 key private semaphores_not_looked_at 44";
    check(&format!("a user 9\n{large}"), &["possible sysv-sem:1"]);
}

#[test]
fn files_of_sockets() {
    let file = "a user 9\n! fact unix:0:1:2 uid 7 changed 500 name /run/x.sock state no_socket";
    check(&format!("{file} connecting refused"), &["certain unix:0:1:2"]);
    check(&format!("{file} connecting not-permitted"), &["probable unix:0:1:2"]);
    check(file, &["possible unix:0:1:2"]);
    check(&format!("{file} connecting refused mode 1777"), &["possible unix:0:1:2"]);
    // Sockets that are there, with a file or an abstract name, are none.
    check("a has unix:5\n! listens unix:5\n! fact unix:5 name /run/x.sock", &[]);
    check("a has unix:5\n! fact unix:5 name @x", &[]);
}

#[test]
fn the_surest_come_first() {
    check(
        "a user 9
         ! fact posix-shm:0:1:2 uid 7 mode 600 used 5 name /dev/shm/speed
         ! fact posix-shm:0:1:3 uid 7 mode 600 used 5 name /dev/shm/psm_1f03cc2a
         ! fact sysv-shm:1 uid 7 mode 600 attachments 0 made_by 99 key private changed 5",
        &["certain sysv-shm:1", "probable posix-shm:0:1:3", "possible posix-shm:0:1:2"],
    );
}

/// The number of a file that is gone goes to the next one.
#[test]
fn a_file_that_was_made_later_is_another_one() {
    let run = Run { processes: [99].into(), began_unix_ms: NOW * 1000 };
    let fifo = |made: u64| {
        let text = format!(
            "a user 7; started 1\n! fact fifo:0:1:2 uid 7 mode 600 made {made} changed {made} name /tmp/x"
        );
        let mut world = world(&text);
        world.viewer.uid = 7;
        world
    };
    let before = fifo(500);
    // The clock of files may be a little behind.
    for (made, count) in [(500, 0), (NOW + 1, 1), (NOW - 1, 1)] {
        let mut after = fifo(made);
        after.taken_unix_ms += 5000;
        assert_eq!(left(&before, &after, &run).len(), count, "made at {made}");
    }
    // One that had been removed, and that somebody had open.
    let mut before = fifo(500);
    before.objects[0].times = Default::default();
    for (made, count) in [(500, 0), (NOW + 1, 1)] {
        let mut after = fifo(made);
        after.taken_unix_ms += 5000;
        assert_eq!(left(&before, &after, &run).len(), count, "made at {made}, after another");
    }
}
