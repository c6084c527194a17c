//! `map`: who talks to whom, in each form. The graph itself, the inspector's own tests check; pages are opened by `pages`.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchboard_kernel::process::effective_user_id;
use switchboard_kernel::{Permissions, fifo};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, Scratch};

use crate::run::{Ended, Run, eventually, run};
use crate::world;

fn here(arguments: &[&str]) -> Ended {
    run(Scratch::new().path(), arguments, "")
}

fn json(ended: Ended) -> Value {
    serde_json::from_slice(&ended.code(0).stdout).expect("JSON")
}

/// A situation of the gallery, and its actors' ids.
fn staged(name: &str) -> (Child, Vec<String>) {
    let mut keeper = Child::role("gallery", &[name]);
    let mut actors = Vec::new();
    loop {
        let line = keeper.line().expect("a line");
        if line == "ready" {
            return (keeper, actors);
        }
        actors.extend(line.rsplit(' ').next().map(str::to_owned));
    }
}

fn end(mut keeper: Child) {
    keeper.tell("end");
    assert!(keeper.wait().success());
}

#[test]
fn who_talks_to_whom_and_who_is_stuck() {
    let (keeper, actors) = staged("pipes-both-full");
    let (left, right) = (format!("left[{}]", actors[0]), format!("right[{}]", actors[1]));
    let text = here(&["map", &actors[0], "--depth", "1"]).code(0).text();
    assert!(text.contains(&format!("\n  {left}, DEADLOCKED\n    ! {left} has waited ")), "{text}");
    assert!(text.contains(&format!("    -> {right}  pipe:")), "{text}");
    assert!(text.contains(&format!("    <- {left}  pipe:")), "{text}");
    assert!(text.contains(", FULL, somebody stuck waits for it\n"), "{text}");
    let graph = json(here(&["map", "--json", &format!("pid:{}", actors[1])]));
    let nodes = graph["graph"]["processes"].as_array().expect("processes");
    let both = nodes.iter().filter(|node| node["deadlocked"] == true).count();
    assert_eq!(both, 2, "{graph}");
    for name in ["dot", "svg", "html"] {
        let written = here(&["map", &actors[0], "--format", name]).code(0).text();
        assert!(written.contains(&left) && written.contains("has waited"), "{name}: {written}");
    }
    end(keeper);
}

/// The shell keeps the end that it gave to `cat`, and so does a `sleep` that has nothing to do with it.
#[test]
fn an_inherited_end_is_told_from_a_used_one() {
    let scratch = Scratch::new();
    let path = scratch.join("jobs");
    fifo::create(&path, Permissions::default()).expect("a FIFO");
    let script =
        "exec 7<./jobs; sleep 100 & s=$!; echo $s; cat <&7 >/dev/null & echo $!; wait $!; kill $s";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(scratch.path());
    let shell = Run::command(shell);
    let writer = OpenOptions::new().write(true).open(&path).expect("a writer");
    shell.wait_stdout("two ids", |said| said.iter().filter(|byte| **byte == b'\n').count() == 2);
    let ids: Vec<u64> =
        shell.stdout_so_far().lines().map(|line| line.parse().expect("an id")).collect();
    let holds = || {
        let graph = json(here(&["map", "--json", &shell.id().to_string()]));
        let channels = graph["graph"]["channels"].as_array().expect("channels").clone();
        let fifo = channels.into_iter().find(|one| one["kind"] == "fifo").expect("the FIFO");
        let parties = fifo["parties"].as_array().expect("parties").clone();
        let of = |pid: u64| {
            let party = parties.iter().find(|party| party["pid"] == pid)?;
            party["reads"]["hold"].as_str().map(str::to_owned)
        };
        [u64::from(shell.id()), ids[0], ids[1]].map(|pid| of(pid).unwrap_or_default())
    };
    // They take a moment until each is in its wait.
    eventually("held, held, used", || holds() == ["held", "held", "used"]);
    let text = here(&["map", &shell.id().to_string()]).code(0).text();
    assert!(text.contains(", merely held: inherited\n"), "{text}");
    drop(writer);
    shell.end().code(0);
}

#[test]
fn a_file_says_by_its_name_what_it_is_to_be() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("s.json"), world::snapshot(12, 1).to_json()).expect("a snapshot");
    let map = |arguments: &[&str]| {
        run(scratch.path(), &[&["map", "--from", "s.json"], arguments].concat(), "")
    };
    for (name, begin) in [
        ("m.html", "<!doctype html>"),
        ("m.svg", "<svg "),
        ("m.dot", "digraph map {"),
        ("m.json", "{\""),
        ("m.txt", "nginx["),
    ] {
        map(&["--output", name]).code(0).says("12 processes, ").prints("");
        let file = std::fs::read_to_string(scratch.join(name)).expect("a file");
        let same = name.ends_with("txt") || file.starts_with(begin);
        assert!(same && !file.is_empty(), "{name}: {}", &file[..60.min(file.len())]);
        let mode = std::fs::metadata(scratch.join(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    map(&["--output", "m.svg"]).code(1).says("--force");
    map(&["--output", "m.svg", "--force", "--format", "text"]).code(0);
    assert!(!std::fs::read_to_string(scratch.join("m.svg")).expect("a file").starts_with('<'));
    map(&["--output", "none/m.svg"]).code(1).says("none/m.svg");
    map(&["--json", "--format", "svg"]).code(2).says("--json");
    map(&["--depth", "1"]).code(2);
    map(&["7"]).code(3).says("no process 7");
    map(&["7", "--output", "gone.svg"]).code(3);
    assert!(!scratch.join("gone.svg").exists(), "an empty file is no map");
    assert!(map(&["--group", "user"]).code(0).text().contains("user 1001: "));
    assert!(map(&["--group", "container"]).code(0).text().starts_with("this machine: 12"));
}

/// A segment whose maker is gone: half an hour later, as a snapshot says, nobody is setting it up any more.
#[test]
fn what_leaks_is_on_it() {
    let scratch = Scratch::new();
    let made = Command::new("ipcmk").args(["-M", "64", "-p", "0600"]).output().expect("ipcmk");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let number = said.trim().rsplit(' ').next().expect("a number").to_owned();
    let taken = here(&["snapshot", "-"]);
    let removed = Command::new("ipcrm").args(["-m", &number]).status().expect("ipcrm");
    assert!(removed.success(), "{said}");
    let mut snapshot: Value = serde_json::from_slice(&taken.code(0).stdout).expect("JSON");
    let later = snapshot["taken_unix_ms"].as_u64().expect("a time") + 1_800_000;
    snapshot["taken_unix_ms"] = later.into();
    std::fs::write(scratch.join("s.json"), snapshot.to_string()).expect("a snapshot");
    let id = format!("sysv-shm:{number}");
    let text = run(scratch.path(), &["map", "--from", "s.json"], "").code(0).text();
    let (_, shared) = text.split_once("\nshared objects:\n").expect("objects");
    let (_, about) = shared.split_once(&format!("  {id}")).expect("the segment");
    assert!(about.lines().nth(1).is_some_and(|line| line.starts_with("    ! leaks: ")), "{about}");
    let graph = json(run(scratch.path(), &["map", "--from", "s.json", "--json"], ""));
    let leaks = graph["leaks"].as_array().expect("leaks");
    assert!(leaks.iter().any(|leak| leak["object"] == id.as_str()), "{graph}");
}

#[test]
fn graphviz_takes_it_whatever_processes_are_called() {
    if Command::new("dot").arg("-V").output().is_err() {
        return skip("graphviz_takes_it_whatever_processes_are_called", "no graphviz");
    }
    let scratch = Scratch::new();
    let names = ["a\"];}\\N<b>{|}", "\\\"--x\u{1f600}\u{fc}"];
    let worlds = [
        world::stuck_pair(names, "/q\"\\G];").to_json(),
        world::snapshot(80, 3).to_json(),
        here(&["snapshot", "-"]).code(0).stdout,
    ];
    for world in worlds {
        std::fs::write(scratch.join("s.json"), world).expect("a snapshot");
        let dot = run(scratch.path(), &["map", "--from", "s.json", "--format", "dot"], "").code(0);
        let mut graphviz = Command::new("dot");
        graphviz.args(["-Tplain"]).current_dir(scratch.path());
        let drawn = Run::command(graphviz).feed(dot.stdout.clone()).wait().code(0);
        assert_eq!(drawn.stderr, "", "{}", dot.text());
        let nodes = drawn.text().lines().filter(|line| line.starts_with("node p")).count();
        assert_eq!(nodes, dot.text().lines().filter(|line| line.starts_with("    p")).count());
    }
}

#[test]
fn five_hundred_processes_are_drawn_in_a_moment() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("s.json"), world::snapshot(500, 7).to_json()).expect("a snapshot");
    for format in ["text", "dot", "svg", "html", "json"] {
        let began = Instant::now();
        let written = run(scratch.path(), &["map", "--from", "s.json", "--format", format], "");
        assert!(written.code(0).stdout.len() > 50_000, "{format}");
        assert!(began.elapsed() < Duration::from_secs(20), "{format}: {:?}", began.elapsed());
    }
}

#[test]
fn it_says_what_it_cannot_see() {
    let scratch = Scratch::new();
    let map = Run::start(scratch.path(), &["map", "--json"]);
    let own = map.id();
    let map = map.end().code(0);
    if effective_user_id() != 0 {
        assert!(map.stderr.contains("not seen: descriptors of "), "{}", map.stderr);
    }
    let json: Value = serde_json::from_slice(&map.stdout).expect("JSON");
    let missing = json["coverage"]["missing"].as_array().expect("a list");
    assert_eq!(missing.is_empty(), !map.stderr.contains("not seen:"), "{missing:?}");
    // Who looks is not in it.
    let nodes = json["graph"]["processes"].as_array().expect("processes");
    assert!(nodes.iter().all(|node| node["pid"] != own), "{own}");
    assert!(nodes.iter().any(|node| node["pid"] == std::process::id()));
}
