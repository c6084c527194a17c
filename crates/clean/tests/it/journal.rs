//! A journal that is torn, of a later version, or written by somebody who means harm.

use std::os::unix::fs::PermissionsExt;

use switchboard_clean::error::Reason;
use switchboard_clean::{Journal, Limits};
use switchboard_inspect::Kind;
use switchboard_testkit::Scratch;

use crate::files::of_file;
use crate::queues::{of_queue, planted};
use crate::stage::Stage;

#[test]
fn is_private_and_named_by_time() {
    let stage = Stage::new();
    let mode = std::fs::metadata(stage.journal.path()).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let run = stage.journal.begin(Limits::default()).expect("a run");
    assert!(run.name().starts_with("20"), "{}", run.name());
    assert_eq!(stage.journal.forget(run.name()).expect_err("at work").reason(), Reason::InUse);
}

#[test]
fn is_refused_where_others_come_in() {
    let scratch = Scratch::new();
    let folder = scratch.join("switchboard");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(Journal::open_in(scratch.path()).expect_err("open").reason(), Reason::Refused);
    std::fs::remove_dir(&folder).expect("removed");
    std::os::unix::fs::symlink("/tmp", &folder).expect("a link");
    assert!(Journal::open_in(scratch.path()).is_err());
}

#[test]
fn any_byte_of_it_may_be_wrong() {
    let stage = Stage::new();
    let (named, queue) = planted();
    let target = of_queue(&named.0, &queue);
    drop(queue);
    let (run, done) = stage.remove_at_last(&target);
    done.expect("removed");
    for file in ["log", "00001.body"] {
        let path = stage.journal.path().join(&run).join(file);
        let whole = std::fs::read(&path).expect("a file");
        let mut refused = 0;
        for at in 0..whole.len() {
            for cut in [false, true] {
                let mut wrong = whole.clone();
                if cut {
                    wrong.truncate(at);
                } else {
                    wrong[at] ^= 0x01;
                }
                std::fs::write(&path, &wrong).expect("written");
                // Whatever it says, nothing else is made than what was there, or nothing at all.
                let done = stage
                    .journal
                    .read(&run)
                    .and_then(|run| switchboard_clean::restore::restore(&run, 1));
                match done {
                    Ok(_) => {
                        let queue = switchboard_kernel::posix_mq::MessageQueue::open(
                            &named.0,
                            switchboard_kernel::posix_mq::Access::Both,
                        );
                        crate::queues::has_all(&queue.expect("restored"));
                        switchboard_kernel::posix_mq::unlink(&named.0).expect("unlinked");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused >= whole.len(), "{file}: {refused} of {}", whole.len());
        std::fs::write(&path, &whole).expect("written");
    }
    stage.restore(&run).expect("restored");
}

#[test]
fn a_run_is_forgotten_with_all_that_it_has() {
    let stage = Stage::new();
    let (named, queue) = planted();
    let target = of_queue(&named.0, &queue);
    drop(queue);
    let (run, done) = stage.remove_at_last(&target);
    done.expect("removed");
    assert!(stage.journal.held_bytes() > 0);
    assert_eq!(stage.journal.forget("../../etc").expect_err("no run").reason(), Reason::Gone);
    stage.journal.forget(&run).expect("forgotten");
    assert_eq!((stage.journal.runs().expect("runs").len(), stage.journal.held_bytes()), (0, 0));
    drop(named);
}

/// However fast one follows the other, and whatever the clock says.
#[test]
fn runs_are_in_the_order_in_which_they_began() {
    let stage = Stage::new();
    let mut expected = Vec::new();
    for number in 0..12 {
        let path = stage.path(&format!("{number}.sock"));
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a listener"));
        let (run, done) = stage.remove_at_last(&of_file(Kind::Unix, &path));
        done.expect("removed");
        expected.push(run);
        assert_eq!(stage.journal.runs().expect("runs"), expected);
    }
    // Of a journal from before runs had numbers, and of a clock that was ahead.
    let folder = stage.journal.path();
    for (at, other) in
        ["20270101T000000Z-0123abcd", "20990101T000000Z-5-0123abcd"].into_iter().enumerate()
    {
        std::fs::rename(folder.join(&expected[at]), folder.join(other)).expect("renamed");
        expected[at] = other.to_owned();
    }
    let mut runs = stage.journal.runs().expect("runs");
    assert_eq!(runs.remove(0), expected[0]);
    assert_eq!(runs.last(), expected.last());
}
