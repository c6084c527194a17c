//! The gallery: every situation on stage at once, one look at the machine, and what was written down by hand is found;
//! the healthy ones are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use switchboard_inspect::analysis::deadlocks::{self, Deadlock};
use switchboard_inspect::analysis::stuck;
use switchboard_inspect::analysis::wakers::{Grade, Index};
use switchboard_inspect::analysis::why;
use switchboard_inspect::{Request, Snapshot};
use switchboard_testkit::Child;
use switchboard_testkit::gallery::{self, Situation, Sure};

/// A situation on stage.
struct Staged {
    situation: &'static Situation,
    keeper: Child,
    actors: BTreeMap<String, u32>,
}

impl Staged {
    fn start(situation: &'static Situation) -> Self {
        let keeper = Child::role("gallery", &[situation.name]);
        Self { situation, keeper, actors: BTreeMap::new() }
    }

    fn wait_until_ready(&mut self) {
        loop {
            let line =
                self.keeper.line().unwrap_or_else(|| panic!("{}: ended", self.situation.name));
            if line == "ready" {
                return;
            }
            let mut words = line.split(' ').skip(1);
            let name = words.next().expect("a name").to_owned();
            self.actors.insert(name, words.next().and_then(|pid| pid.parse().ok()).expect("a pid"));
        }
    }

    /// Actors, and what descends from them.
    fn processes(&self, snapshot: &Snapshot) -> BTreeSet<u32> {
        let mut all: BTreeSet<u32> = self.actors.values().copied().collect();
        for _ in 0..3 {
            let children = snapshot.processes.iter().filter(|one| all.contains(&one.parent));
            let children: Vec<u32> = children.map(|one| one.pid).collect();
            all.extend(children);
        }
        all
    }
}

fn names(snapshot: &Snapshot, pids: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    pids.into_iter().filter_map(|pid| snapshot.process(pid)).map(|one| one.name.clone()).collect()
}

/// The phrase, with the labels of the actors it names.
fn phrase(staged: &Staged, phrase: &str) -> String {
    let mut text = phrase.to_owned();
    // The longest first: a name may begin like another.
    let mut names: Vec<&String> = staged.actors.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        text = text.replace(&format!("@{name}"), &format!("{name}[{}]", staged.actors[name]));
    }
    text
}

fn grade(sure: Sure) -> Grade {
    match sure {
        Sure::Certain => Grade::Certain,
        Sure::Probable => Grade::Probable,
        Sure::Possible => Grade::Possible,
    }
}

/// What is wrong with how a situation was seen.
fn problems(
    staged: &Staged,
    index: &Index<'_>,
    set: &stuck::Set<'_>,
    found: &[Deadlock],
) -> Vec<String> {
    let (snapshot, situation) = (index.snapshot, staged.situation);
    let own = staged.processes(snapshot);
    let mut wrong = Vec::new();
    for (actor, phrases) in situation.waits {
        let process = snapshot.process(staged.actors[*actor]).expect("an actor");
        let sentences: Vec<String> = process
            .threads
            .iter()
            .map(|thread| why::sentence(index, set, process, thread))
            .collect();
        for wanted in phrases.iter().map(|text| phrase(staged, text)) {
            if !sentences.iter().any(|sentence| sentence.contains(&wanted)) {
                wrong.push(format!("{actor}: no {wanted:?} in {sentences:?}"));
            }
        }
    }
    let looks = |one: &&switchboard_inspect::Process| {
        one.threads.iter().any(|thread| why::looks_stuck(index, set, one, thread, Duration::ZERO))
    };
    let ours = snapshot.processes.iter().filter(|one| own.contains(&one.pid));
    let stuck: BTreeSet<String> = ours.filter(looks).map(|one| one.name.clone()).collect();
    let expected = situation.deadlock.map(|deadlock| {
        let mut sure = grade(deadlock.grade);
        if deadlock.by_ends && !snapshot.coverage.is_whole() {
            sure = sure.min(Grade::Probable);
        }
        // Somebody else on this machine may send descriptors just now.
        if deadlock.by_ends && !index.flights().is_empty() {
            sure = Grade::Possible;
        }
        (sure, deadlock)
    });
    let possible = expected.is_some_and(|(sure, _)| sure == Grade::Possible);
    for actor in situation.stuck.iter().filter(|_| !possible) {
        if !stuck.contains(*actor) {
            wrong.push(format!("{actor} does not look stuck"));
        }
    }
    let behind = situation.deadlock.map_or(&[][..], |deadlock| deadlock.behind);
    for actor in &stuck {
        // Here, after no while at all.
        let expected = [situation.stuck, behind, situation.stuck_after_a_while].concat();
        if !expected.contains(&actor.as_str()) {
            wrong.push(format!("{actor} looks stuck, and is not"));
        }
    }
    let of_it: Vec<&Deadlock> = found
        .iter()
        .filter(|deadlock| deadlock.processes.iter().any(|pid| own.contains(pid)))
        .collect();
    let serious: Vec<&&Deadlock> =
        of_it.iter().filter(|deadlock| deadlock.grade > Grade::Possible).collect();
    match expected {
        None => {
            if !serious.is_empty() {
                wrong.push(format!("a deadlock where none is: {serious:#?}"));
            }
        }
        Some((sure, expected)) => {
            let actors: BTreeSet<String> =
                expected.actors.iter().map(|&name| name.to_owned()).collect();
            let right = |one: &&&Deadlock| {
                one.grade == sure && names(snapshot, one.processes.iter().copied()) == actors
            };
            match of_it.iter().find(right) {
                None => wrong.push(format!("no {sure:?} deadlock of {actors:?}: {of_it:#?}")),
                Some(one) => {
                    let tids = one.behind.iter().filter_map(|&tid| index.process_of(tid));
                    let behind = names(snapshot, tids);
                    if behind != expected.behind.iter().map(|&name| name.to_owned()).collect() {
                        wrong.push(format!("{behind:?} is behind it, not {:?}", expected.behind));
                    }
                }
            }
            if serious.len() > 1 {
                wrong.push(format!("more than one: {serious:#?}"));
            }
        }
    }
    wrong
}

#[test]
fn all_that_is_planted_is_found_and_the_healthy_are_left_alone() {
    let _turn = turn();
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    let situations: Vec<&Situation> =
        gallery::all().filter(|situation| is_root || !situation.root).collect();
    assert!(situations.iter().filter(|one| !one.is_healthy()).count() >= 25);
    assert!(situations.iter().filter(|one| one.is_healthy()).count() >= 15);
    assert!(situations.len() >= 65, "{}", situations.len());
    let is_alone = std::env::var_os(ALONE).is_some();
    let (doubtful, others): (Vec<_>, Vec<_>) =
        situations.into_iter().partition(|one| one.casts_doubt);
    let mut report = perform(&others, is_alone);
    for situation in doubtful {
        report += &perform(&[situation], is_alone);
    }
    assert!(report.is_empty(), "{report}");
    if is_alone {
        // Now everything that there is in this namespace is at rest.
        let snapshot = Request::everything().twice(Duration::from_millis(200)).take();
        let serious: Vec<Deadlock> = deadlocks::find(&snapshot)
            .into_iter()
            .filter(|deadlock| deadlock.grade > Grade::Possible)
            .collect();
        assert!(serious.is_empty(), "at rest, and yet {serious:#?}");
    }
}

/// Puts situations on stage, looks once, and ends them; what is wrong with how they were seen. `is_alone`: nobody else is in this PID
/// namespace.
fn perform(situations: &[&'static Situation], is_alone: bool) -> String {
    let mut staged: Vec<Staged> = situations.iter().copied().map(Staged::start).collect();
    for one in &mut staged {
        one.wait_until_ready();
    }
    let snapshot = Request::everything().twice(Duration::from_millis(200)).take();
    if is_alone {
        // All that are in it can be looked into; those outside of it are not there.
        let coverage = &snapshot.coverage;
        assert_eq!(coverage.readable, coverage.processes, "{coverage:?}");
        assert!(!coverage.is_whole() && coverage.outside, "{coverage:?}");
        let said =
            coverage.missing.iter().any(|text| text.contains("outside of this PID namespace"));
        assert!(said, "{coverage:?}");
    }
    // As a file says it, too.
    let snapshot = Snapshot::from_json(&snapshot.to_json()).expect("a snapshot");
    let index = Index::new(&snapshot);
    let set = stuck::set(&index);
    let found = deadlocks::find(&snapshot);
    let mut report = String::new();
    for one in &staged {
        for problem in problems(one, &index, &set, &found) {
            report += &format!("{}: {problem}\n", one.situation.name);
        }
    }
    for one in &mut staged {
        one.keeper.tell("end");
    }
    for one in &mut staged {
        assert!(one.keeper.wait().success(), "{}", one.situation.name);
    }
    report
}

/// What some situations have on stage is a reason to be less sure of all others on the machine, as descriptors in flight are: tests that
/// stage many take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static STAGE: Mutex<()> = Mutex::new(());
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says to a test that it and its children are all the processes that there are.
const ALONE: &str = "SWITCHBOARD_INSPECT_ALONE";

#[test]
fn in_a_pid_namespace_what_those_outside_can_share_is_at_most_probable() {
    const TEST: &str = "a_pid_namespace_of_its_own";
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(arguments).args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command
    };
    // Root may do so; others, where they may have a user namespace.
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let mut command = unshare(way);
        command.args(["true"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        return switchboard_testkit::skip::skip(TEST, "`unshare --pid --mount-proc` is refused");
    };
    let _turn = turn();
    let own = std::env::current_exe().expect("this program");
    let test = "gallery::all_that_is_planted_is_found_and_the_healthy_are_left_alone";
    let output = unshare(way)
        // The first process of a namespace has to collect others' children, which a shell does.
        .args(["sh", "-c", "\"$0\" \"$@\"; exit $?"])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("a run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{failed}");
}

#[test]
fn names_are_unique() {
    let mut names = BTreeSet::new();
    for situation in gallery::all() {
        assert!(names.insert(situation.name), "{}", situation.name);
        assert!(!situation.tells.is_empty());
    }
}
