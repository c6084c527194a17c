//! The gallery of leaks: all that was left behind is found and graded as it was written down, and nothing that only looks like it is.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use switchboard_inspect::analysis::leaks::{Leak, LeakOptions, leaks};
use switchboard_inspect::analysis::wakers::Grade;
use switchboard_inspect::{Kind, Request, Snapshot};
use switchboard_testkit::gallery::Sure;
use switchboard_testkit::gallery::left::{self, Leftover};
use switchboard_testkit::{Child, DEADLINE};

use super::gallery::turn;

/// One of the gallery.
struct Staged {
    leftover: &'static Leftover,
    keeper: Child,
    /// The ids of the objects that it is about.
    objects: Vec<String>,
}

impl Staged {
    fn start(leftover: &'static Leftover) -> Self {
        let keeper = Child::role("gallery", &[leftover.name]);
        Self { leftover, keeper, objects: Vec::new() }
    }

    fn wait_until_ready(&mut self) {
        loop {
            let line = self.keeper.line();
            let line = line.unwrap_or_else(|| panic!("{}: ended", self.leftover.name));
            if line == "ready" {
                return;
            }
            self.objects.extend(line.strip_prefix("object ").map(str::to_owned));
        }
    }
}

/// Whether an id is the one that was written down, of which `*` stands for a device.
fn is(written: &str, id: &str) -> bool {
    match written.split_once('*') {
        Some((start, end)) => id.starts_with(start) && id.ends_with(end),
        None => id == written,
    }
}

fn grade(sure: Sure) -> Grade {
    match sure {
        Sure::Certain => Grade::Certain,
        Sure::Probable => Grade::Probable,
        Sure::Possible => Grade::Possible,
    }
}

fn look() -> Snapshot {
    let snapshot = Request::everything().leaks(&[std::env::temp_dir()]).take();
    // As a file says it, too.
    Snapshot::from_json(&snapshot.to_json()).expect("a snapshot")
}

/// Nothing is too young.
const AT_ONCE: LeakOptions = LeakOptions { young: Duration::ZERO };

/// What is wrong with how one was seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Problems {
    /// Taken for more than it is: never right, whatever others on this machine do.
    too_sure: Vec<String>,
    /// Not found, or taken for less: others may hide something for a moment.
    less_sure: Vec<String>,
}

fn problems(staged: &Staged, snapshot: &Snapshot) -> Problems {
    let found = leaks(snapshot, &AT_ONCE);
    let outside = snapshot.coverage.outside;
    let mut wrong = Problems::default();
    for written in &staged.objects {
        let name = staged.leftover.name;
        let most = staged.leftover.graded.map_or(Grade::Possible, grade);
        match (staged.leftover.graded, found.iter().find(|leak| is(written, &leak.object))) {
            (_, Some(leak)) if leak.certainty > most => {
                wrong.too_sure.push(format!("{name}: {written} is at most {most:?}: {leak:#?}\n"));
            }
            (Some(_), None) => wrong.less_sure.push(format!("{name}: {written} was not found\n")),
            // Who looks from within a namespace is less sure.
            (Some(_), Some(leak)) if leak.certainty < most && !outside => {
                wrong.less_sure.push(format!("{name}: {written} is {most:?}: {leak:#?}\n"));
            }
            _ => {}
        }
    }
    wrong
}

/// Those that can be made here: some need users that a user namespace does not have.
fn possible_here() -> Vec<&'static Leftover> {
    let users = std::fs::read_to_string("/proc/self/uid_map").expect("users");
    let has_users = users.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok());
    let own = std::fs::metadata("/proc/self").expect("this process");
    let is_root = std::os::unix::fs::MetadataExt::uid(&own) == 0 && has_users > Some(61_007);
    left::all().filter(|one| is_root || !one.root).collect()
}

#[test]
fn what_was_left_is_found_and_what_only_looks_so_is_not() {
    let _turn = turn();
    let (clouds, all): (Vec<_>, Vec<_>) = possible_here().into_iter().partition(|one| one.clouds);
    let mut staged: Vec<Staged> = all.into_iter().map(Staged::start).collect();
    for one in &mut staged {
        one.wait_until_ready();
    }
    // All is set up: whoever is taken for left behind now, and is not, makes this fail.
    let mut report = String::new();
    let mut look_at_all = || -> (Snapshot, String) {
        let snapshot = look();
        let mut less_sure = String::new();
        for one in &staged {
            let wrong = problems(one, &snapshot);
            report.extend(wrong.too_sure);
            less_sure.extend(wrong.less_sure);
        }
        (snapshot, less_sure)
    };
    // Others on this machine send descriptors of which nobody can say what they are: for a moment all is less sure.
    let until = Instant::now() + DEADLINE;
    let (mut snapshot, mut less_sure) = look_at_all();
    while !less_sure.is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
        (snapshot, less_sure) = look_at_all();
    }
    report += &less_sure;
    // What was made a moment ago may be in the making.
    let young = leaks(&snapshot, &LeakOptions { young: Duration::from_secs(3600) });
    let others = BTreeMap::from_iter(young.iter().map(|leak| (leak.object.as_str(), leak)));
    for written in staged.iter().flat_map(|one| &one.objects) {
        let leak = others.iter().find(|(id, _)| is(written, id));
        if let Some((_, leak)) = leak.filter(|(_, leak)| leak.certainty > Grade::Possible) {
            report += &format!("young, and yet {leak:#?}\n");
        }
    }
    if is_alone() {
        report += &unexpected(&snapshot, &staged);
    }
    // Where it cannot be told what is in flight, nothing that may be is more than possible.
    let mut clouds: Vec<Staged> = clouds.into_iter().map(Staged::start).collect();
    clouds.iter_mut().for_each(Staged::wait_until_ready);
    let snapshot = look();
    let found = leaks(&snapshot, &AT_ONCE);
    for one in &clouds {
        assert_eq!(problems(one, &snapshot), Problems::default());
    }
    let sure = |leak: &&Leak| leak.kind == Kind::PosixShm && leak.certainty > Grade::Possible;
    let own =
        |leak: &&Leak| staged.iter().flat_map(|one| &one.objects).any(|id| is(id, &leak.object));
    assert_eq!(found.iter().filter(sure).find(own), None, "under {}", clouds.len());
    staged.extend(clouds);
    for one in &mut staged {
        one.keeper.tell("end");
    }
    for one in &mut staged {
        assert!(one.keeper.wait().success(), "{}", one.leftover.name);
    }
    assert!(report.is_empty(), "{report}");
    gone(&staged, until + DEADLINE);
}

/// What is found besides, where nobody else is.
fn unexpected(snapshot: &Snapshot, staged: &[Staged]) -> String {
    let mut report = String::new();
    let coverage = &snapshot.coverage;
    assert_eq!(coverage.readable, coverage.processes, "{coverage:?}");
    for leak in leaks(snapshot, &AT_ONCE) {
        let planted = staged.iter().filter(|one| one.leftover.graded.is_some());
        let is_planted = planted.flat_map(|one| &one.objects).any(|id| is(id, &leak.object));
        let names = snapshot.object(&leak.object).map_or(&[][..], |object| &object.names);
        // Others' folders are seen from here.
        let elsewhere = matches!(leak.kind, Kind::Unix | Kind::Fifo);
        if leak.certainty > Grade::Possible && !is_planted && !elsewhere {
            report += &format!("nobody planted {names:?} {leak:#?}\n");
        }
    }
    report
}

/// The caretakers remove everything.
fn gone(staged: &[Staged], until: Instant) {
    loop {
        let snapshot = look();
        let written: Vec<&String> = staged.iter().flat_map(|one| &one.objects).collect();
        let there: Vec<&str> = snapshot.objects.iter().map(|object| object.id.as_str()).collect();
        let left: Vec<&&String> =
            written.iter().filter(|id| there.iter().any(|there| is(id, there))).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "still there: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Says to a test that it and its children are all the processes and objects that there are.
const ALONE: &str = "SWITCHBOARD_LEAKS_ALONE";

#[test]
fn where_nobody_else_is_nothing_else_is_found() {
    const TEST: &str = "left::where_nobody_else_is_nothing_else_is_found";
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(arguments);
        command.args(["--pid", "--ipc", "--mount", "--fork", "--mount-proc", "--kill-child"]);
        command
    };
    // Root may do so; others, where they may have a user namespace.
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    let mount = "mount -t tmpfs none /dev/shm";
    let works = |way: &&&[&str]| {
        let mut command = unshare(way);
        command.args(["sh", "-c", mount]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        return switchboard_testkit::skip::skip(TEST, "`unshare --pid --ipc --mount` is refused");
    };
    let _turn = turn();
    let own = std::env::current_exe().expect("this program");
    let test = "left::what_was_left_is_found_and_what_only_looks_so_is_not";
    let script = format!("{mount} && \"$0\" \"$@\"; exit $?");
    let output = unshare(way)
        // The first process of a namespace has to collect others' children, which a shell does.
        .args(["sh", "-c", &script])
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
fn there_is_enough_of_both() {
    let count = |of: &dyn Fn(&Leftover) -> bool| left::all().filter(|one| of(one)).count();
    let serious = |one: &Leftover| one.graded.is_some_and(|sure| sure != Sure::Possible);
    assert!(count(&serious) >= 25, "{}", count(&serious));
    assert!(count(&|one| serious(one) && !one.root) >= 18);
    assert!(count(&|one| one.graded.is_none()) >= 35);
    assert!(count(&|one| one.graded.is_none() && !one.root) >= 25);
    let mut names: Vec<&str> = left::all().map(|one| one.name).collect();
    names.extend(switchboard_testkit::gallery::all().map(|one| one.name));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "names are unique");
}
