//! Doing something once, also when whoever does it dies.

use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Once, Shared};
use switchboard_testkit::child::{instruction, report};

use super::{Peer, name_of, obey_each, opened, soon};

pub(super) fn obey(memory: &SharedWords) {
    let once: Once = opened(memory);
    obey_each(|command| match command {
        "begin" => {
            let done = once.call(|| {
                report("begin begun");
                let _ = instruction();
            });
            name_of(done)
        }
        _ => once.call(|| ()).map_or_else(|error| error.name().to_owned(), |did| did.to_string()),
    });
}

#[test]
fn others_wait_until_it_is_done() {
    let once = Once::anonymous(()).expect("a once");
    let mut doing = Peer::start("once", once.memory());
    let mut waiting = Peer::start("once", once.memory());
    doing.told("begin", "begun");
    assert_eq!(name_of(once.try_call(|| ())), "EBUSY");
    assert_eq!(name_of(once.call_until(|| (), super::shortly())), "ETIMEDOUT");
    waiting.told_and_waits("call");
    doing.child.tell("end");
    doing.expect("begin", "ok");
    waiting.expect("call", "false");
    assert!(once.is_done());
    assert_eq!(once.call(|| unreachable!("done")), Ok(false));
}

#[test]
fn it_is_done_again_when_whoever_did_it_died() {
    let once = Once::anonymous(()).expect("a once");
    let mut doing = Peer::start("once", once.memory());
    let mut waiting = Peer::start("once", once.memory());
    doing.told("begin", "begun");
    waiting.told_and_waits("call");
    doing.kill();
    waiting.expect("call", "true");
    assert!(once.is_done());
}

#[test]
fn a_panic_does_not_count_and_calling_it_inside_is_an_error() {
    let once = Once::anonymous(()).expect("a once");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        once.call(|| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(panicked.is_err() && !once.is_done());
    let mut inside = None;
    assert_eq!(once.call_until(|| inside = Some(name_of(once.call(|| ()))), soon()), Ok(true));
    assert_eq!(inside.as_deref(), Some("EDEADLK"));
}
