//! `why` and `deadlocks`: what they print, and their exit codes. What they find, the inspector's own tests check.

use switchboard_testkit::{Child, Scratch};

use crate::run::{Ended, run};

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
    let staged = Staged::new("pipes-both-full");
    let (left, right) =
        (format!("left[{}]", staged.actors[0]), format!("right[{}]", staged.actors[1]));
    let found = here(&["deadlocks"]).code(4).text();
    let cycle =
        found.split("\n\n").find(|one| one.contains(&left)).expect("the deadlock").to_owned();
    let title = cycle.lines().next().expect("a title");
    assert!(title.ends_with(&format!(" cycle: {left}, {right}")), "{cycle}");
    assert!(cycle.contains(&format!("its only reader {right} is stuck itself")), "{cycle}");
    assert!(cycle.contains(&format!("\n  way out: end one of {left}, {right}\n")), "{cycle}");
    let json = here(&["deadlocks", "--json"]).code(4);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let of_it =
        |one: &&serde_json::Value| one["processes"][0].as_u64() == staged.actors[0].parse().ok();
    let deadlocks = json["deadlocks"].as_array().expect("a list");
    assert_eq!(deadlocks.iter().find(of_it).expect("the deadlock")["shape"], "cycle");
    staged.end();
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
    here(&["why", "postgres"]).code(2).says("no process id");
    staged.end();
}
