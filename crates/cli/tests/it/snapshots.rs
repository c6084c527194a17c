//! `snapshot`, `diff`, `doctor`: what is saved can be asked like the machine itself.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use switchboard_kernel::pipe;
use switchboard_testkit::Scratch;

use crate::run::run;

#[test]
fn every_command_works_on_a_saved_machine() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    let (read, _write) = pipe::pipe().expect("a pipe");
    let pid = std::process::id();
    here(&["snapshot", "a.json"]).code(0).says("saved ");
    let mode = std::fs::metadata(scratch.join("a.json")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    here(&["snapshot", "a.json"]).code(1).says("--force");
    here(&["snapshot", "--force", "a.json", "--json"]).code(0);

    let name = format!("pid:{pid}/fd:{}", read.as_raw_fd());
    drop(read);
    let shown = here(&["show", &name, "--from", "a.json"]).code(0).text();
    assert!(shown.starts_with("pipe:"), "{shown}");
    let id = shown.split(": ").next().expect("an id");
    assert!(here(&["who", id, "--from", "a.json"]).code(0).text().starts_with(id));
    assert!(here(&["list", "--from", "a.json", "--name", id]).code(0).text().contains(id));
    let own = pid.to_string();
    assert!(here(&["ps", &own, "--from", "a.json"]).code(0).text().contains(&format!("[{own}]")));
    assert!(!here(&["why", &own, "--from", "a.json"]).code(0).text().is_empty());
    let deadlocks = here(&["deadlocks", "--from", "a.json", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&deadlocks.stdout).expect("JSON");
    let some = found["deadlocks"].as_array().is_some_and(|all| !all.is_empty());
    assert_eq!(deadlocks.code, Some(if some { 4 } else { 0 }), "{deadlocks}");
    let doctor = here(&["doctor", "--from", "a.json", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(doctor.code, Some(if json["near"] == true { 4 } else { 0 }));
    let names = json["limits"].as_array().expect("limits").iter().map(|limit| &limit["name"]);
    assert!(names.into_iter().any(|name| name == "System V queues"), "{json}");
    assert!(!json["features"].as_array().expect("features").is_empty());
}

#[test]
fn what_may_not_be_seen_is_said() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    here(&["snapshot", "all.json"]).code(0);
    let text = std::fs::read(scratch.join("all.json")).expect("a file");
    let mut all: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let pid = std::process::id();
    for process in all["processes"].as_array_mut().expect("processes") {
        if process["pid"] == pid {
            process["readable"] = false.into();
        }
    }
    all["objects"] = serde_json::Value::Array(Vec::new());
    std::fs::write(scratch.join("some.json"), all.to_string()).expect("written");
    let process = format!("pid:{pid}");
    for words in [["show", &format!("{process}/fd:0")], ["who", &process]] {
        here(&[words[0], words[1], "--from", "some.json"]).code(5).says("cannot be seen");
    }
}

#[test]
fn what_changed_is_shown() {
    let scratch = Scratch::new();
    let here = |arguments: &[&str]| run(scratch.path(), arguments, "");
    let (_read, write) = pipe::pipe().expect("a pipe");
    let name = format!("pid:{}/fd:{}", std::process::id(), write.as_raw_fd());
    here(&["snapshot", "a.json"]).code(0);
    let shown = here(&["show", &name, "--from", "a.json"]).code(0).text();
    let id = shown.split(": ").next().expect("an id");
    switchboard_kernel::io::write_all(&write, b"12345").expect("written");
    here(&["snapshot", "b.json"]).code(0);
    let changed = here(&["diff", "a.json", "b.json"]).code(0).text();
    let line = changed.lines().find(|line| line.starts_with(&format!("~ {id}  ")));
    assert!(line.is_some_and(|line| line.contains("fill 0 -> 5")), "{changed}");
    here(&["diff", "a.json", "a.json"]).code(0).says("nothing changed");
    let now = here(&["diff", "a.json", "--json"]).code(0);
    let json: serde_json::Value = serde_json::from_slice(&now.stdout).expect("JSON");
    let list = json["difference"]["changed"].as_array().expect("a list");
    assert!(list.iter().any(|one| one["id"] == id), "{json}");
    here(&["diff", "a.json", "c.json"]).code(3).says("c.json");
}
