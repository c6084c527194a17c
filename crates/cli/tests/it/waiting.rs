//! `why` and `deadlocks`: what they print, and their exit codes. What they find, the inspector's own tests check.

use switchboard_testkit::{Child, Scratch};

use crate::run::{Ended, Run, run};

fn here(arguments: &[&str]) -> Ended {
    run(Scratch::new().path(), arguments, "")
}

/// A situation of the gallery, and its actors' ids.
struct Staged {
    keeper: Child,
    actors: Vec<String>,
}

impl Staged {
    fn new(name: &str) -> Self {
        let mut keeper = Child::role("gallery", &[name]);
        let mut actors = Vec::new();
        loop {
            let line = keeper.line().expect("a line");
            if line == "ready" {
                return Self { keeper, actors };
            }
            actors.extend(line.rsplit(' ').next().map(str::to_owned));
        }
    }

    fn end(mut self) {
        self.keeper.tell("end");
        assert!(self.keeper.wait().success());
    }
}

#[test]
fn a_deadlock_is_printed_with_its_evidence() {
    // In memory: what descriptors do is less sure while somebody sends descriptors.
    let staged = Staged::new("robust-mutexes-crossed");
    let (left, right) =
        (format!("left[{}]", staged.actors[0]), format!("right[{}]", staged.actors[1]));
    let found = here(&["deadlocks"]).code(4).text();
    let cycle =
        found.split("\n\n").find(|one| one.contains(&left)).expect("the deadlock").to_owned();
    let title = cycle.lines().next().expect("a title");
    assert!(title.ends_with(&format!(" cycle: {left}, {right}")), "{cycle}");
    assert!(cycle.contains(&format!("its owner {right} is stuck itself")), "{cycle}");
    assert!(cycle.contains(&format!("\n  way out: end one of {left}, {right}")), "{cycle}");
    let json = here(&["deadlocks", "--json"]).code(4);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let of_it =
        |one: &&serde_json::Value| one["processes"][0].as_u64() == staged.actors[0].parse().ok();
    let deadlocks = json["deadlocks"].as_array().expect("a list");
    assert_eq!(deadlocks.iter().find(of_it).expect("the deadlock")["shape"], "cycle");
    staged.end();
}

/// It says what there is at first, and again when that has changed, with the time: also that there is nothing.
#[test]
fn a_watch_says_when_nothing_is_stuck_any_more() {
    use switchboard_kernel::process::Signal;
    let scratch = Scratch::new();
    let staged = Staged::new("pipe-stopped-reader");
    let snapshot = run(scratch.path(), &["why", "--json"], "").code(0);
    let json: serde_json::Value = serde_json::from_slice(&snapshot.stdout).expect("JSON");
    assert!(json["taken_unix_ms"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000), "{json}");
    let text = Run::start(scratch.path(), &["why", "--watch"]);
    let values = Run::start(scratch.path(), &["why", "--watch", "--json"]);
    let stuck = format!("  writer[{}] has waited ", staged.actors[0]);
    let is_timed = |line: &str| {
        let (time, _) = line.split_once("  ").unwrap_or_default();
        humantime::parse_rfc3339(time).is_ok()
    };
    text.wait_stdout("who is stuck", |out| String::from_utf8_lossy(out).contains(&stuck));
    let writer = format!("writer[{}]", staged.actors[0]);
    values.wait_stdout("the same", |out| String::from_utf8_lossy(out).contains(&writer));
    let before = text.stdout_so_far().len();
    staged.end();
    // Others may be stuck on this machine: it is not this one any more.
    text.wait_stdout("that it is over", |out| {
        let later = String::from_utf8_lossy(out.get(before..).unwrap_or_default()).into_owned();
        later.ends_with('\n') && !later.contains(&stuck)
    });
    for watch in [&text, &values] {
        watch.signal(Signal::INT);
    }
    let said = text.stdout_so_far();
    assert!(said.lines().all(is_timed), "{said}");
    let looks: Vec<serde_json::Value> = values
        .stdout_so_far()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(!looks.is_empty());
    text.wait().code(1);
    values.wait().code(1);
}

/// In a PID namespace that has nobody but the command nobody is stuck.
#[test]
fn a_watch_of_nothing_says_so_at_once() {
    const TEST: &str = "a_watch_of_nothing_says_so_at_once";
    let root = switchboard_kernel::process::effective_user_id() == 0;
    let user: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    let alone = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(user).args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.args(arguments);
        command
    };
    if Run::command(alone(&["true"])).end().code != Some(0) {
        return switchboard_testkit::skip::skip(TEST, "PID namespaces are refused");
    }
    for (json, expected) in [(false, "  nothing looks stuck\n"), (true, "\"waits\":[]}\n")] {
        let mut command = alone(&[]);
        command.arg(crate::run::binary()).args(["why", "--watch"]);
        command.args(json.then_some("--json"));
        let watch = Run::command(command);
        watch.wait_stdout(expected, |out| String::from_utf8_lossy(out).ends_with(expected));
    }
}

#[test]
fn why_says_one_sentence_per_thread() {
    let staged = Staged::new("pipe-stopped-reader");
    let (writer, reader) = (&staged.actors[0], &staged.actors[1]);
    let said = here(&["why", writer]).code(0).text();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with(&format!("writer[{writer}] has waited ")), "{said}");
    assert!(
        said.ends_with(&format!("its only reader reader[{reader}] is stopped (SIGSTOP)\n")),
        "{said}"
    );
    let all = here(&["why"]).code(0).text();
    assert!(all.contains(&format!("writer[{writer}] has waited ")), "{all}");
    assert!(!all.contains(&format!("\nreader[{reader}] ")), "{all}");
    let of_both = here(&["why", writer, &format!("pid:{reader}"), "--json"]).code(0);
    let json: serde_json::Value = serde_json::from_slice(&of_both.stdout).expect("JSON");
    assert_eq!(json["waits"].as_array().map(Vec::len), Some(2), "{json}");
    here(&["why", "0"]).code(3).says("no process 0");
    here(&["why", "postgres"]).code(3).says("nothing here is called postgres");
    staged.end();
}
