//! Who may do what, with real users: a table that is written down by itself, and processes that try.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use switchboard::Bytes;
use switchboard::{CallError, Client, Error, ErrorKind, Options, Receiver, RecvError, SendError};
use switchboard::{Sender, Server, Service};
use switchboard_kernel::process::effective_user_id;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

/// Identities: a user, and the groups that it is in, its own first.
pub(super) const ALICE: &[u32] = &[2001, 2001];
pub(super) const BOB: &[u32] = &[2002, 2002, ROBOTS];
pub(super) const CAROL: &[u32] = &[2003, 2003];
pub(super) const ROOT: &[u32] = &[0, 0];
const ROBOTS: u32 = 2100;

/// What an end does.
const VERBS: [&str; 6] = ["publish", "subscribe", "send", "receive", "call", "serve"];
pub(super) const ALL: &[&str] = &VERBS;
const WRITE: &[&str] = &["publish", "send"];
pub(super) const READ: &[&str] = &["subscribe", "receive"];
pub(super) const NONE: &[&str] = &[];

/// Who may do what at an end of Alice's in a scope that all share: the rules of its address; what Alice, Bob (a
/// robot), Carol and root may.
pub(super) type Row = (&'static str, [&'static [&'static str]; 4]);
pub(super) const SHARED: &[Row] = &[
    ("", [ALL, NONE, NONE, NONE]),
    ("&mode=0660", [ALL, NONE, NONE, NONE]),
    ("&group=2100", [ALL, NONE, NONE, NONE]),
    ("&mode=0660&group=2100", [ALL, ALL, NONE, NONE]),
    ("&mode=0640&group=2100", [ALL, READ, NONE, NONE]),
    ("&mode=0620&group=2100", [ALL, WRITE, NONE, NONE]),
    ("&mode=0664&group=2100", [ALL, ALL, READ, READ]),
    ("&mode=0666", [ALL, ALL, ALL, ALL]),
    ("&mode=0602", [ALL, WRITE, WRITE, WRITE]),
    ("&publish=user:2002", [ALL, &["publish"], NONE, NONE]),
    ("&subscribe=user:2003,user:0", [ALL, NONE, &["subscribe"], &["subscribe"]]),
    ("&send=group:2100&receive=user:2003", [ALL, &["send"], &["receive"], NONE]),
    (
        "&publish=any&mode=0640&group=2100",
        [ALL, &["publish", "subscribe", "receive"], &["publish"], &["publish"]],
    ),
    ("&call=user:2002&serve=group:2003", [ALL, &["call"], &["serve"], NONE]),
    ("&serve=any", [ALL, &["serve"], &["serve"], &["serve"]]),
];
/// The same in Alice's own scope.
const PRIVATE: &[Row] = &[("", [ALL, NONE, NONE, NONE])];

/// Becomes this identity for good. An ordinary user stays who it is.
pub(super) fn become_one(identity: &[u32]) {
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    if effective_user_id() != 0 {
        return;
    }
    let groups: Vec<_> = identity[1..].iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups).expect("groups");
    set_thread_gid(groups[0]).expect("a group");
    set_thread_uid(rustix::fs::Uid::from_raw(identity[0])).expect("a user");
}

/// Does something as this identity, in words; where they begin with [`CONTAINED`], in a user namespace of its own, which
/// has a number for nobody else.
fn as_one(who: &str, does: impl FnOnce()) {
    match who.strip_prefix(CONTAINED) {
        Some(who) => {
            become_one(&identity(who));
            // Only a process of one thread can enter one.
            let done = switchboard_testkit::fork::in_child(|| {
                switchboard_testkit::user_namespace::enter();
                does();
                true
            });
            assert!(done, "{who} in a namespace");
        }
        None => {
            become_one(&identity(who));
            does();
        }
    }
}

const CONTAINED: &str = "contained ";

pub(super) fn words(identity: &[u32]) -> String {
    identity.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn identity(words: &str) -> Vec<u32> {
    words.split(',').map(|word| word.parse().expect("a number")).collect()
}

enum End {
    Writes(Sender<Bytes>),
    Reads(Receiver<Bytes>),
    Calls(Client<Bytes, Bytes>),
    Serves(Server<Bytes, Bytes>),
}

/// Opens the end that does this, as soon as that can be.
fn open(verb: &str, address: &str) -> Result<End, Error> {
    let pattern =
        if ["publish", "subscribe"].contains(&verb) { Pattern::Topic } else { Pattern::Queue };
    let options = Options::default().linger(Some(Duration::from_millis(10)));
    let service = || Service::<Bytes, Bytes>::open_with(address, Options::default());
    match verb {
        "call" => service()?.client().map(End::Calls),
        "serve" => service()?.server().map(End::Serves),
        "publish" | "send" => ends::writer(pattern, address, options).map(End::Writes),
        _ => ends::reader(pattern, address, options.follow(true)).map(End::Reads),
    }
}

fn complement(verb: &str) -> &'static str {
    match verb {
        "publish" => "subscribe",
        "subscribe" => "publish",
        "send" => "receive",
        "receive" => "send",
        "call" => "serve",
        _ => "call",
    }
}

/// Role: somebody's ends, one for each verb of others, which exchange messages with whoever comes; or, with a third
/// argument, one that does each verb itself, at channels whose names end with that.
pub(crate) fn host(arguments: &[String]) {
    as_one(&arguments[0], || exchange(arguments));
}

fn exchange(arguments: &[String]) {
    let suffix = arguments.get(2).map_or("", String::as_str);
    let mut all: Vec<End> = VERBS
        .iter()
        .map(|verb| {
            let address = format!("shm:{verb}{suffix}?{}", arguments[1]);
            open(if suffix.is_empty() { complement(verb) } else { verb }, &address)
                .unwrap_or_else(|error| panic!("{error}"))
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
            match end {
                End::Writes(sender) => {
                    let _ = sender.try_send(&Bytes(vec![7]));
                }
                End::Reads(receiver) => {
                    if let Ok(delivery) = receiver.try_recv() {
                        let _ = receiver.acknowledge(delivery);
                    }
                }
                End::Calls(client) => {
                    let _ = client.call_timeout(&Bytes(vec![1]), Duration::from_millis(3));
                }
                End::Serves(server) => {
                    if let Ok(call) = server.try_recv_call() {
                        let _ = call.reply(&Bytes(vec![2]));
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Role: tries each verb, or those that are named behind its address's options, and says what came of it.
pub(crate) fn visitor(arguments: &[String]) {
    as_one(&arguments[0], || try_each(arguments));
}

fn try_each(arguments: &[String]) {
    let named = &arguments[2..];
    for verb in VERBS.iter().filter(|verb| named.is_empty() || named.iter().any(|one| one == *verb))
    {
        let address = format!("shm:{verb}?{}", arguments[1]);
        report(format!("{verb} {}", attempt(verb, &address, || false)));
    }
}

/// Role: visits several hosts, as one who has rules: for each of them and each verb that it does, opens the other end,
/// and says what came of it. Arguments: who it is, its address's options, its audit log, whose ends there are.
pub(crate) fn choosy(arguments: &[String]) {
    become_one(&identity(&arguments[0]));
    for host in &arguments[3..] {
        let uid: u64 = host.parse().expect("a user");
        for verb in VERBS {
            let address = format!("shm:{verb}-{host}?{}", arguments[1]);
            // A client cannot do without a server, and is told; others go on, and it is written down.
            let is_client = verb == "serve";
            let refused = || {
                !is_client
                    && audited(Path::new(&arguments[2])).contains_key(&(uid, verb.to_owned()))
            };
            report(format!("{host} {verb} {}", attempt(complement(verb), &address, refused)));
        }
    }
}

/// What came of opening an end: `has_refused` says that its own rules kept out who was there.
fn attempt(verb: &str, address: &str, has_refused: impl Fn() -> bool) -> String {
    let refused = |error: &Error| match error.kind() {
        ErrorKind::PermissionDenied => "denied".to_owned(),
        _ => format!("failed: {error}"),
    };
    let mut end = match open(verb, address) {
        Ok(end) => end,
        Err(error) => return refused(&error),
    };
    let until = Instant::now() + DEADLINE / 3;
    while Instant::now() < until {
        if has_refused() {
            return "kept out".to_owned();
        }
        match &mut end {
            End::Writes(sender) => {
                match sender.try_send(&Bytes(vec![9])).and_then(|()| sender.drive()) {
                    Ok(()) if sender.peers() > 0 => return "done".to_owned(),
                    Err(SendError::Full) => {
                        if let Err(SendError::Failed(error)) = sender.drive() {
                            return refused(&error);
                        }
                    }
                    Ok(()) | Err(SendError::Slow { .. }) => {}
                    Err(SendError::Failed(error)) => return refused(&error),
                    Err(error) => return format!("failed: {error}"),
                }
            }
            End::Reads(receiver) => match receiver.recv_timeout(Duration::from_millis(5)) {
                Ok(delivery) => {
                    let _ = receiver.acknowledge(delivery);
                    return "done".to_owned();
                }
                Err(RecvError::Empty | RecvError::PeerRefused { .. }) => {}
                Err(RecvError::Failed(error)) => return refused(&error),
                Err(error) => return format!("failed: {error}"),
            },
            End::Calls(client) => {
                match client.call_timeout(&Bytes(vec![1]), Duration::from_millis(100)) {
                    Ok(_) => return "done".to_owned(),
                    Err(CallError::Failed(error)) => return refused(&error),
                    Err(CallError::TimedOut { .. }) => {}
                    Err(error) => return format!("failed: {error}"),
                }
            }
            End::Serves(server) => match server.recv_call_timeout(Duration::from_millis(5)) {
                Ok(call) => {
                    let _ = call.reply(&Bytes(vec![2]));
                    return "done".to_owned();
                }
                Err(RecvError::Empty | RecvError::PeerRefused { .. }) => {}
                Err(RecvError::Failed(error)) => return refused(&error),
                Err(error) => return format!("failed: {error}"),
            },
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    "nothing happened".to_owned()
}

pub(super) fn folder(path: &Path, mode: u32, owner: u32) {
    std::fs::create_dir(path).expect("a folder");
    if effective_user_id() == 0 {
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("an owner");
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// A scope that every user can enter, and the folder that it goes with.
fn shared_scope() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), open).expect("a mode");
    let scope = scratch.join("scope");
    folder(&scope, 0o1777, 0);
    (scratch, scope)
}

/// Who refused whom what, by the audit log.
fn audited(path: &Path) -> BTreeMap<(u64, String), usize> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record");
        assert_eq!(record["event"], "refused");
        let key =
            (record["uid"].as_u64().expect("a user"), record["verb"].as_str().expect("a verb"));
        *found.entry((key.0, key.1.to_owned())).or_insert(0) += 1;
    }
    found
}

/// The same table with the rules at the end that comes second, and dials: ends of all of them are there, and let
/// everybody in.
fn check_who_dials(rows: &[Row]) {
    let root = effective_user_id() == 0;
    let all = [ALICE, BOB, CAROL, ROOT];
    let identities = if root { &all[..] } else { &all[..1] };
    let scratch = Scratch::new();
    let open = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(scratch.path(), open(0o755)).expect("a mode");
    let scope = scratch.join("scope");
    folder(&scope, 0o1777, 0);
    let anybody: String = VERBS.iter().map(|verb| format!("&{verb}=any")).collect();
    let mut hosts: Vec<Child> = Vec::new();
    for who in identities {
        let address = format!("scope={}{anybody}", scope.display());
        let suffix = format!("-{}", who[0]);
        hosts.push(Child::role("shm-access-host", &[words(who), address, suffix]));
    }
    hosts.iter_mut().for_each(|host| host.expect("open"));
    for (at, (rules, expected)) in rows.iter().enumerate() {
        if !root && rules.contains("group=2100") {
            continue;
        }
        let log = scratch.join(&format!("log-{at}"));
        folder(&log, 0o700, 2001);
        let log = log.join("audit").display().to_string();
        let owner = if rules.contains("group=2100") { &[2001, 2001, ROBOTS][..] } else { ALICE };
        let address = format!("scope={}&audit={log}{rules}", scope.display());
        let mut arguments = vec![words(owner), address, log.clone()];
        arguments.extend(identities.iter().map(|who| who[0].to_string()));
        let mut visitor = Child::role("shm-access-choosy", &arguments);
        let mut refused = Vec::new();
        for (who, may) in identities.iter().zip(expected) {
            for verb in VERBS {
                let line = visitor.line().expect("a result");
                let result = line.strip_prefix(&format!("{} {verb} ", who[0])).expect("in turn");
                if may.contains(&verb) {
                    assert_eq!(result, "done", "{rules:?} for {who:?}, who is to {verb}");
                } else {
                    let expected = if verb == "serve" { "denied" } else { "kept out" };
                    assert_eq!(result, expected, "{rules:?} for {who:?}, who may not {verb}");
                    refused.push((u64::from(who[0]), verb.to_owned()));
                }
            }
        }
        assert!(visitor.wait().success());
        refused.sort_unstable();
        let audited = audited(Path::new(&log));
        assert_eq!(audited.into_keys().collect::<Vec<_>>(), refused, "{rules}");
    }
}

/// Where a table is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// In Alice's own scope.
    Private,
    /// In a scope that all share.
    Shared,
    /// In the system's scope, which is there.
    System,
    /// In a shared scope; visitors are in PID and user namespaces of their own.
    ContainedVisitors,
    /// In a shared scope; Alice's ends are in PID and user namespaces of their own.
    ContainedHost,
}

pub(super) fn check(rows: &[Row], place: Where) {
    let root = effective_user_id() == 0;
    let is_shared = place != Where::Private;
    let all = [ALICE, BOB, CAROL, ROOT];
    // Only root can be others: an ordinary user is Alice.
    let identities = if root { &all[..] } else { &all[..1] };
    let start = |contained: bool, role: &str, who: &[u32], address: String| match contained {
        true => {
            let who = format!("{CONTAINED}{}", words(who));
            Child::role_under(super::namespaces::starter(), role, &[who, address])
        }
        false => Child::role(role, &[words(who), address]),
    };
    for (rules, expected) in rows {
        if !root && rules.contains("group=2100") {
            // Nor can it be in a group of others.
            continue;
        }
        let scratch = Scratch::new();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755))
            .expect("a mode");
        let (scope, log) = (scratch.join("scope"), scratch.join("log"));
        folder(&scope, if is_shared { 0o1777 } else { 0o700 }, if is_shared { 0 } else { 2001 });
        folder(&log, 0o700, 2001);
        let log = log.join("audit");
        let scope = match place {
            Where::System => "system".to_owned(),
            _ => scope.display().to_string(),
        };
        // Whoever is in the group of robots can give a folder to it.
        let owner = if rules.contains("group=2100") { &[2001, 2001, ROBOTS][..] } else { ALICE };
        let of_host = format!("scope={scope}&audit={}{rules}", log.display());
        let is_contained = place == Where::ContainedHost;
        let mut host = start(is_contained, "shm-access-host", owner, of_host);
        host.expect("open");
        let mut told = BTreeMap::new();
        for (who, may) in identities.iter().zip(expected) {
            // A visitor lets Alice in, and nobody else; where it has no number for her, everybody.
            let (is_contained, whom) = match place {
                Where::ContainedVisitors => (true, "any"),
                _ => (false, "user:2001"),
            };
            let trusts: String = VERBS.iter().map(|verb| format!("&{verb}={whom}")).collect();
            let trusts = if is_shared && root { trusts } else { String::new() };
            let address = format!("scope={scope}{trusts}");
            let mut visitor = start(is_contained, "shm-access-visitor", who, address);
            for verb in VERBS {
                let expected = if may.contains(&verb) { "done" } else { "denied" };
                let line = visitor.line().expect("a result");
                assert_eq!(line, format!("{verb} {expected}"), "{place:?}, {rules:?} for {who:?}");
                if expected == "denied" {
                    // Whom a namespace has no number for is called nobody there.
                    let uid = if place == Where::ContainedHost { 65_534 } else { who[0] };
                    told.insert((u64::from(uid), verb.to_owned()), 1);
                }
            }
            assert!(visitor.wait().success());
        }
        let audited = audited(&log);
        for refused in audited.keys() {
            assert!(told.contains_key(refused), "{rules}: {refused:?} was not refused");
        }
        if is_shared
            && ["any", "user:", "mode=0666", "mode=0602"].iter().any(|word| rules.contains(word))
        {
            // Everybody can reach the folder: so all of them were refused by Alice's ends.
            assert_eq!(
                audited.keys().collect::<Vec<_>>(),
                told.keys().collect::<Vec<_>>(),
                "{rules}"
            );
        }
        drop(host);
    }
}

#[test]
fn in_a_shared_scope_it_is_as_the_table_says() {
    check(SHARED, Where::Shared);
}

#[test]
fn in_a_private_scope_there_is_only_its_user() {
    check(PRIVATE, Where::Private);
}

/// Role: is refused at an address, and says why and what to do. Arguments: who it is, the address.
pub(crate) fn refused(arguments: &[String]) {
    become_one(&identity(&arguments[0]));
    let error = ends::reader(Pattern::Queue, &arguments[1], Options::default());
    let error = error.map(drop).expect_err("it cannot be opened");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    report(format!("{error}; {}", error.advice().unwrap_or_default()));
}

/// Else it would be the wrong user's folder, and the owner be kept out.
#[test]
fn who_names_another_owner_makes_no_folder() {
    let scratch = Scratch::new();
    let scope = scratch.join("scope");
    let own = effective_user_id();
    folder(&scope, 0o1777, own);
    let other = if own == 0 { 65_534 } else { 0 };
    let address = format!("shm:engine?scope={}&owner={other}", scope.display());
    let error = open("call", &address).map(drop).expect_err("its owner has not come");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(std::fs::read_dir(&scope).expect("the scope").count(), 0, "nothing is made");
    let address = format!("shm:engine?scope={}&owner={own}", scope.display());
    let _end = open("serve", &address).expect("its owner makes it");
}

/// What is in the way of a channel's folder, or of giving it to a group, is said with what to do.
#[test]
fn what_is_in_the_way_of_a_channels_folder_is_named() {
    let (_scratch, scope) = shared_scope();
    std::fs::write(scope.join("file"), "").expect("a file");
    std::os::unix::fs::symlink("/tmp", scope.join("link")).expect("a link");
    let user = effective_user_id().to_string();
    for (name, rules, told) in [
        ("file", "", vec!["/scope/file,", "is no folder", &user, "rm ", "?scope="]),
        ("link", "", vec!["/scope/link,", "is a symbolic link", &user, "rm ", "?scope="]),
        ("new", "&mode=0660&group=0", vec!["is not in group", "(0)", "a member", "usermod"]),
    ] {
        let address = format!("shm:{name}?scope={}{rules}", scope.display());
        let mut child = Child::role("shm-access-refused", &[words(CAROL), address.clone()]);
        let line = child.line().expect("what it is told");
        for word in told {
            assert!(line.contains(word), "{word:?} is not in {line}");
        }
        assert!(child.wait().success());
        if name != "new" {
            let address = address.parse().expect("an address");
            let error = switchboard::counters::look(&address, DEADLINE).expect_err("no channel");
            assert!(error.to_string().contains("this channel's folder, is "), "{error}");
        }
    }
}

/// A client waits; who comes and may not serve is turned away, and the call goes to the server that comes then.
#[test]
fn a_stranger_that_comes_to_serve_ends_no_call() {
    if effective_user_id() != 0 {
        // An ordinary user is one identity only.
        return;
    }
    let (_scratch, scope) = shared_scope();
    // The rules let others in, but not as servers.
    let address = format!("shm:serve?scope={}&call=any", scope.display());
    let service = Service::<Bytes, Bytes>::open(&address).expect("a service");
    let client = service.client().expect("a client");
    std::thread::scope(|threads| {
        let call =
            threads.spawn(move || client.call_timeout(&Bytes(b"who".to_vec()), DEADLINE * 2));
        let options = format!("scope={}&call=any", scope.display());
        let mut stranger =
            Child::role("shm-access-visitor", &[words(CAROL), options, "serve".to_owned()]);
        stranger.expect("serve denied");
        assert!(stranger.wait().success());
        assert!(!call.is_finished(), "it ended the call: {:?}", call.join());
        let server = service.server().expect("a server");
        let asked = server.recv_call_timeout(DEADLINE).expect("a call");
        asked.reply(&Bytes(b"me".to_vec())).expect("a reply");
        assert_eq!(call.join().expect("a thread").expect("a reply").0, b"me");
    });
}

/// Role: looks at the counters of a channel's only end. Arguments: who it is, the address.
pub(crate) fn looker(arguments: &[String]) {
    become_one(&identity(&arguments[0]));
    let address = arguments[1].parse().expect("an address");
    let channel = switchboard::counters::look(&address, DEADLINE).expect("a channel");
    let [end] = &channel.ends[..] else { panic!("{channel:?}") };
    report(match &end.answer {
        Ok(counts) => format!("sent {:?}", counts.sent),
        Err(why) => why.clone(),
    });
}

/// Who may read what an end sends may read its counters.
#[test]
fn counters_are_for_whom_the_rules_let_in() {
    if effective_user_id() != 0 {
        // An ordinary user is one identity only.
        return;
    }
    let (_scratch, scope) = shared_scope();
    let address = format!("shm:counted?scope={}", scope.display());
    let rules = format!("{address}&subscribe=user:{}", CAROL[0]);
    let _publisher = ends::writer(Pattern::Topic, &rules, Options::default()).expect("an end");
    let look = |who: &[u32]| {
        let mut child = Child::role("shm-access-looker", &[words(who), address.clone()]);
        let said = child.line().expect("what it sees");
        assert!(child.wait().success());
        said
    };
    assert_eq!(look(CAROL), "sent Some(0)");
    assert_eq!(look(ROOT), "sent Some(0)");
    let refused = look(BOB);
    assert!(refused.contains("may not subscribe here"), "{refused}");
}

#[test]
fn who_dials_has_rules_too() {
    check_who_dials(SHARED);
}
