//! Limits, hit on purpose, and who is kept out.

use rustix::process::{Resource, Rlimit, setrlimit};
use switchboard::{ErrorKind, Event, State, object};
use switchboard_testkit::Scratch;
use switchboard_testkit::child::{Child, report};
use switchboard_testkit::skip::skip;

use super::{Place, ask, become_ordinary_user, each_row_of, failed, listener, notifying};

#[test]
fn a_full_count_is_an_error() {
    for (scheme, most) in [("sem", 2_147_483_647), ("sysv-sem", 32_767)] {
        let place = Place::of(scheme);
        object::create(&place.parsed(&format!("?value={most}"))).expect("created");
        let mut notifier = notifying(&place.address);
        let answer = ask(&mut notifier, "notify");
        assert!(answer.starts_with("error LimitReached"), "{answer}");
        assert!(answer.contains(&most.to_string()), "{answer}");
        let mut listener = Event::open(&place.address).and_then(|event| event.listener());
        let listener = listener.as_mut().expect("a listener");
        assert!(listener.try_wait().expect("a semaphore").is_some());
        assert_eq!(ask(&mut notifier, "notify"), "done");
        let answer = ask(&mut notifier, "many 2");
        assert!(answer.contains("after 0 of 2"), "{answer}");
    }
    let place = Place::of("sysv-sem");
    let refused = object::create(&place.parsed("?value=32768")).expect_err("too much");
    assert_eq!(refused.kind(), ErrorKind::BadAddress, "{refused}");
}

/// Role: a listener that may have few signals pending.
pub(crate) fn limited_listener(arguments: &[String]) {
    let limit = Rlimit { current: Some(3), maximum: Some(3) };
    // Of an ordinary user, nobody else's signals count.
    become_ordinary_user();
    setrlimit(Resource::Sigpending, limit).expect("a lower limit");
    listener(arguments);
}

#[test]
fn too_many_pending_signals_are_an_error() {
    let starter = ["env", "--block-signal=RTMIN+1"];
    let address = ["signal:self/SIGRTMIN+1"];
    let mut listener = Child::role_under(&starter, "limited-listener", &address);
    let said = listener.line().expect("an answer");
    let mut notifier = notifying(said.strip_prefix("open ").expect(&said));
    let mut sent = 0;
    let answer = loop {
        match ask(&mut notifier, "value 1") {
            done if done == "done" => sent += 1,
            answer => break answer,
        }
        assert!(sent <= 3, "beyond the limit");
    };
    assert!(answer.starts_with("error LimitReached"), "{answer}");
    assert!(answer.contains("RLIMIT_SIGPENDING"), "{answer}");
    for _ in 0..sent {
        assert!(ask(&mut listener, "try").starts_with("event "));
    }
    assert_eq!(ask(&mut listener, "try"), "none");
}

/// Role: another user, who tries both ends.
pub(crate) fn stranger(arguments: &[String]) {
    become_ordinary_user();
    let event = Event::open(&arguments[0]).expect("an event");
    let notified = event.notifier().and_then(|mut end| end.notify());
    report(notified.map_or_else(|error| failed(&error), |()| "done".to_owned()));
    if !arguments[0].starts_with("signal:") {
        let taken = event.listener().and_then(|mut end| end.try_wait());
        report(taken.map_or_else(|error| failed(&error), |taken| format!("{taken:?}")));
    }
}

#[test]
fn others_are_kept_out() {
    let root = switchboard_kernel::process::effective_user_id() == 0;
    each_row_of("event", |place| {
        if !place.row.capabilities.outlives_processes {
            return;
        }
        let root = switchboard_kernel::process::effective_user_id() == 0;
        let folder = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.scratch.path(), folder).expect("an open folder");
        // An ordinary user locks itself out.
        let mode = if root { "?value=1" } else { "?value=1&mode=0000" };
        object::create(&place.parsed(mode)).expect("created");
        let again = object::create(&place.parsed(mode)).expect_err("it is there");
        assert_eq!(again.kind(), ErrorKind::AddressInUse, "{again}");
        let mut stranger = Child::role("event-stranger", &[&place.address]);
        for end in ["notifier", "listener"] {
            let answer = stranger.line().expect("an answer");
            assert!(answer.starts_with("error PermissionDenied"), "{end}: {answer}");
        }
    });
    if root {
        let address = format!("signal:{}/SIGRTMIN+1", std::process::id());
        let answer = Child::role("event-stranger", &[&address]).line().expect("an answer");
        assert!(answer.starts_with("error PermissionDenied"), "{answer}");
    }
}

#[test]
fn a_set_reaches_up_to_its_index() {
    let place = Place::of("sysv-sem");
    let mut third = notifying(&place.with("?index=2"));
    assert_eq!(ask(&mut third, "many 2"), "done");
    let mut first = notifying(&place.address);
    assert_eq!(ask(&mut first, "notify"), "done");
    let taken = |query: &str| {
        let mut end = Event::open(&place.with(query)).and_then(|event| event.listener());
        let end = end.as_mut().expect("a listener");
        std::iter::from_fn(|| end.try_wait().expect("a semaphore")).count()
    };
    assert_eq!([taken(""), taken("?index=1"), taken("?index=2")], [1, 0, 2]);
    let mut fourth = notifying(&place.with("?index=3"));
    let answer = ask(&mut fourth, "notify");
    assert!(answer.starts_with("error NotFound"), "{answer}");
}

/// Role: in an IPC namespace of its own, with few semaphores and small segments.
pub(crate) fn few_objects(arguments: &[String]) {
    let set =
        |file: &str, value: &str| std::fs::write(format!("/proc/sys/kernel/{file}"), value).is_ok();
    // Before Linux 6.2, only root outside may lower them.
    if !(set("sem", "3 100 10 1") && set("shmmax", "8192") && set("shmmni", "1")) {
        return report("not lowered");
    }
    report("lowered");
    let event = |query: &str| {
        let event = Event::open(&format!("sysv-sem:{}{query}", arguments[0])).expect("an event");
        event.notifier().map_or_else(|error| failed(&error), |_| "open".to_owned())
    };
    report(event("?index=3"));
    report(event("?index=2"));
    report(event("#2"));
    let state = |query: &str| {
        let state = State::open(&format!("sysv-shm:{}{query}", arguments[0])).expect("a state");
        state.writer().map_or_else(|error| failed(&error), |_| "open".to_owned())
    };
    report(state("?size=8KiB"));
    report(state("?layout=bare&size=8KiB"));
    report(state("#2?layout=bare&size=1KiB"));
}

#[test]
fn limits_of_system_v_objects_are_named() {
    let test = "limits_of_system_v_objects_are_named";
    let starter: &[&str] = match switchboard_kernel::process::effective_user_id() {
        0 => &["unshare", "--ipc"],
        _ => &["unshare", "--user", "--map-root-user", "--ipc"],
    };
    let scratch = Scratch::new();
    let mut child = Child::role_under(starter, "few-objects", &[scratch.path().display()]);
    match child.line().as_deref() {
        Some("lowered") => {}
        Some(_) => return,
        None => return skip(test, "no IPC namespace of its own to be had"),
    }
    for expected in ["SEMMSL", "open", "SEMMNI", "kernel.shmmax", "open", "kernel.shmmni"] {
        let answer = child.line().expect("an answer");
        let refused = answer.starts_with("error LimitReached");
        assert!(refused != (expected == "open") && answer.contains(expected), "{answer}");
    }
}
