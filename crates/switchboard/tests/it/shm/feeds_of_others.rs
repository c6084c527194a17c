//! Events and states over `shm:` between users: they are for one user, and others are told so, with real users.

use std::time::{Duration, Instant};

use switchboard::{Error, ErrorKind, Event, Listener, Notifier, State, WaitError};
use switchboard_kernel::process::effective_user_id;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::access::{ALICE, BOB, CAROL, ROOT, become_one, folder, identity, words};

const VERBS: [&str; 4] = ["notify", "wait", "set", "get"];
const KEY: &str = "key";

/// What an address says of others: of no use here, and refused.
const RULES: [&str; 6] =
    ["mode=0666", "mode=0640", "group=0", "subscribe=any", "send=user:0", "call=user:0&serve=any"];

enum End {
    Notifies(Notifier),
    Listens(Listener),
    Writes(switchboard::pattern::state::Writer),
    Reads(switchboard::pattern::state::Reader),
}

fn open(verb: &str, address: &str) -> Result<End, Error> {
    match verb {
        "notify" => Event::open(address)?.notifier().map(End::Notifies),
        "wait" => Event::open(address)?.listener().map(End::Listens),
        "set" => State::open(address)?.writer().map(End::Writes),
        _ => State::open(address)?.reader().map(End::Reads),
    }
}

impl End {
    /// Does what it does, once. Whether somebody else had to do with it.
    fn act(&mut self) -> Result<bool, Error> {
        match self {
            Self::Notifies(notifier) => {
                notifier.notify()?;
                notifier.drive()?;
                Ok(notifier.peers().is_some_and(|peers| peers > 0))
            }
            Self::Listens(listener) => match listener.wait_timeout(Duration::from_millis(2)) {
                Ok(_) => Ok(true),
                Err(WaitError::Failed(error)) => Err(error),
                Err(_) => Ok(false),
            },
            Self::Writes(writer) => {
                writer.set_key(KEY, b"value")?;
                writer.drive()?;
                Ok(writer.peers().is_some_and(|peers| peers > 0))
            }
            Self::Reads(reader) => Ok(reader.get_key(KEY)?.is_some()),
        }
    }
}

/// Role: somebody's ends, one for each verb of others.
pub(crate) fn host(arguments: &[String]) {
    become_one(&identity(&arguments[0]));
    let mut all: Vec<End> =
        [("notify", "wait"), ("wait", "notify"), ("set", "get"), ("get", "set")]
            .iter()
            .map(|(verb, mine)| {
                let address = format!("shm:{verb}?{}", arguments[1]);
                open(mine, &address).unwrap_or_else(|error| panic!("{mine}: {error}"))
            })
            .collect();
    report("open");
    let (over, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = instruction();
        drop(over);
    });
    while ended.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
        for end in &mut all {
            // It is told of who was turned away.
            if let Err(error) = end.act() {
                let told = [ErrorKind::Mismatch, ErrorKind::PermissionDenied];
                assert!(told.contains(&error.kind()), "{error}");
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Role: tries each verb, and says what came of it.
pub(crate) fn visitor(arguments: &[String]) {
    become_one(&identity(&arguments[0]));
    for verb in VERBS {
        report(format!("{verb} {}", attempt(verb, &format!("shm:{verb}?{}", arguments[1]))));
    }
}

fn attempt(verb: &str, address: &str) -> String {
    let mut end = match open(verb, address) {
        Ok(end) => end,
        Err(error) => return said(&error),
    };
    let since = Instant::now();
    while since.elapsed() < DEADLINE / 3 {
        match end.act() {
            Ok(true) => return "done".to_owned(),
            Ok(false) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return said(&error),
        }
    }
    "nothing happened".to_owned()
}

fn said(error: &Error) -> String {
    let text = error.to_string();
    // By the ends, or by the folder, which nobody else can reach without rules.
    let told = ["are for processes of one user", "does not let user"];
    match error.kind() {
        ErrorKind::PermissionDenied if told.iter().any(|told| text.contains(told)) => {
            "denied".to_owned()
        }
        _ => format!("failed: {text}"),
    }
}

#[test]
fn events_and_states_of_shm_are_for_one_user() {
    let root = effective_user_id() == 0;
    for is_open in [false, true] {
        let scratch = Scratch::new();
        folder(&scratch.join("scope"), 0o1777, 0);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), mode).expect("a mode");
        let scope = format!("scope={}", scratch.join("scope").display());
        // Nothing that an address says opens them to others; somebody may, all the same.
        for verb in VERBS.iter().filter(|_| is_open) {
            folder(&scratch.join("scope").join(verb), 0o1777, 2001);
        }
        let mut host = Child::role("shm-feeds-host", &[words(ALICE), scope.clone()]);
        host.expect("open");
        // Only root can be others.
        let others = if root { &[ALICE, BOB, CAROL, ROOT][..] } else { &[ALICE][..] };
        for who in others {
            let mut visitor = Child::role("shm-feeds-visitor", &[words(who), scope.clone()]);
            for verb in VERBS {
                let expected = if *who == ALICE { "done" } else { "denied" };
                let line = visitor.line().expect("a result");
                assert_eq!(
                    line,
                    format!("{verb} {expected}"),
                    "{who:?}, in folders that are open: {is_open}"
                );
            }
            assert!(visitor.wait().success());
        }
        // Whoever was turned away changed nothing for its own.
        let mut again = Child::role("shm-feeds-visitor", &[words(ALICE), scope]);
        for verb in VERBS {
            again.expect(&format!("{verb} done"));
        }
    }
}

/// A rule that would let in nobody is none.
#[test]
fn events_and_states_of_shm_take_no_rules() {
    let scratch = Scratch::new();
    folder(&scratch.join("scope"), 0o1777, 0);
    for rules in RULES {
        for verb in VERBS {
            let address = format!("shm:x?scope={}&{rules}", scratch.join("scope").display());
            let refused = open(verb, &address).map(drop).expect_err("it is of no use");
            assert_eq!(refused.kind(), ErrorKind::BadAddress, "{refused}");
            let option = rules.split('=').next().expect("an option");
            let text = refused.to_string();
            assert!(text.contains(&format!("?{option}=")) && text.contains("one user"), "{text}");
        }
    }
    // No more is made for that; and what says the same as nothing is taken.
    assert_eq!(std::fs::read_dir(scratch.join("scope")).expect("a folder").count(), 0);
    let address = format!("shm:x?scope={}&mode=0600", scratch.join("scope").display());
    open("set", &address).map(drop).expect("a writer");
}
