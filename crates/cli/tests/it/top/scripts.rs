//! `top --once`, `--json`, `--count`, `--from`: what scripts read.

use serde_json::Value;
use switchboard_testkit::Scratch;

use super::Full;
use crate::run::{Ended, Run, run};

fn top(arguments: &[&str]) -> Ended {
    run(Scratch::new().path(), &[&["top"], arguments].concat(), "")
}

fn objects(ended: &Ended) -> Vec<Value> {
    let lines = ended.text();
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn row<'a>(seen: &'a Value, pane: &str, key: &str, value: &Value) -> &'a Value {
    let rows = seen[pane].as_array().expect("rows");
    rows.iter().find(|row| row[key] == *value).unwrap_or_else(|| panic!("no {value} in {seen}"))
}

#[test]
fn a_full_pipe_and_its_writer_as_json() {
    let full = Full::new();
    // Who has waited for less than a second is not yet called blocked.
    let ended = top(&["--json", "--once", "--interval", "1500ms"]).code(0);
    let seen = &objects(&ended)[0];
    let pipe = row(seen, "pressure", "object", &full.id.clone().into());
    assert_eq!((&pipe["part"], &pipe["blocked"]), (&1.0.into(), &1.into()), "{pipe}");
    assert_eq!((&pipe["fill_per_s"], &pipe["unit"]), (&0.into(), &"bytes".into()), "{pipe}");
    assert!(pipe["received_bytes_per_s"].is_null() && pipe["sent_bytes_per_s"].is_null(), "{pipe}");
    // Those in which somebody is blocked come before all others.
    let blocked = seen["pressure"].as_array().expect("rows").iter();
    let blocked: Vec<bool> = blocked.map(|row| row["blocked"] != 0).collect();
    assert!(blocked.is_sorted_by(|a, b| a >= b), "{blocked:?}");
    let yes = row(seen, "processes", "pid", &full.writer().into());
    assert_eq!((&yes["blocked"], &yes["written_bytes_per_s"]), (&true.into(), &0.into()), "{yes}");
    let does = yes["does"].as_str().expect("a sentence");
    assert!(does.contains(&format!("to write to {}", full.id)), "{does}");
    assert!(seen["coverage"]["processes"].as_u64() >= seen["coverage"]["readable"].as_u64());
    assert!(seen["elapsed_ms"].as_u64().is_some_and(|ms| ms >= 1490), "{}", seen["elapsed_ms"]);
    assert!(!seen["limits"].as_array().expect("limits").is_empty());
    assert!(seen["channels"].is_array());
}

#[test]
fn one_pane_and_some_rows() {
    let _full = Full::new();
    let ended = top(&["pressure", "--json", "--count", "2", "--rows", "1", "--interval", "100ms"]);
    let all = objects(&ended.code(0));
    assert_eq!(all.len(), 2);
    for seen in all {
        assert_eq!(seen["pressure"].as_array().map(Vec::len), Some(1), "{seen}");
        assert!(seen["pressure"][0]["blocked"] != 0, "{seen}");
        assert!(seen.get("processes").is_none() && seen.get("limits").is_none(), "{seen}");
    }
}

#[test]
fn tables() {
    let full = Full::new();
    let text = top(&["--once", "--rows", "1000", "--interval", "200ms"]).code(0).text();
    let line = text.lines().find(|line| line.contains(&format!("{} ", full.id)));
    let line = line.unwrap_or_else(|| panic!("no {} in {text}", full.id));
    assert!(line.trim_start().starts_with("100%"), "{line}");
    assert!(line.contains(&format!("yes[{}] -> ", full.writer())), "{line}");
    for title in ["FULL", "PID", "CHANNEL", "USED"] {
        assert!(text.lines().any(|line| line.starts_with(title)), "{title} in {text}");
    }
    assert!(text.lines().next().is_some_and(|line| line.contains(" processes;")), "{text}");
    let few = top(&["pressure", "--once", "--rows", "0", "--interval", "100ms"]).code(0).text();
    assert!(few.contains("more rows: say --rows"), "{few}");
}

/// A connection's bytes, and those of a channel in a scope, in a second.
#[test]
fn rates_of_a_connection_and_of_a_channel() {
    let scratch = Scratch::new();
    let scope = scratch.join("scope");
    let address = format!("shm:rates?scope={}", scope.display());
    let subscriber = Run::start(scratch.path(), &["subscribe", &address]);
    let mut publisher = Run::start(scratch.path(), &["publish", &format!("{address}&history=3")]);
    publisher.write(b"a\nb\n");
    subscriber.wait_stdout("two lines", |out| out == b"a\nb\n");
    let scope = scope.to_str().expect("a path");
    let watch = Run::start(
        scratch.path(),
        &["top", "channels", "--json", "--interval", "100ms", "--scope", scope],
    );
    watch.wait_stdout("a look", |out| out.contains(&b'\n'));
    publisher.write(&b"another one\n".repeat(100));
    let of_channel = |out: &[u8]| -> Vec<Value> {
        let text = String::from_utf8_lossy(out);
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let rows = whole.flat_map(|seen| seen["channels"].as_array().cloned().unwrap_or_default());
        rows.filter(|row| row["channel"] == address).collect()
    };
    watch.wait_stdout("a rate", |out| {
        let rows = of_channel(out);
        let sum = |of: &str| -> u64 { rows.iter().filter_map(|row| row[of].as_u64()).sum() };
        sum("sent_per_s") > 0 && sum("received_per_s") > 0 && sum("sent_bytes_per_s") > 0
    });
    let rows = of_channel(watch.stdout_so_far().as_bytes());
    let last = rows.last().expect("a row");
    assert_eq!((&last["writers"], &last["readers"]), (&1.into(), &1.into()), "{last}");
    assert_eq!((&last["pattern"], &last["problems"]), (&"topic".into(), &Value::Array(vec![])));
    // Whoever reads no more ends it.
    drop(watch);
    // Without the scope its ends are known, and where they meet is not.
    let ended = top(&["channels", "--json", "--once", "--interval", "100ms"]).code(0);
    let seen = &objects(&ended)[0];
    assert!(seen["ends_elsewhere"].as_u64().is_some_and(|ends| ends >= 2), "{seen}");
}

#[test]
fn two_saved_snapshots() {
    let scratch = Scratch::new();
    let full = Full::new();
    let in_folder = |arguments: &[&str]| run(scratch.path(), arguments, "");
    in_folder(&["snapshot", "a.json"]).code(0);
    in_folder(&["snapshot", "b.json"]).code(0);
    let ended = in_folder(&["top", "--from", "a.json", "b.json", "--json"]).code(0);
    let seen = &objects(&ended)[0];
    assert!(seen["elapsed_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", seen["elapsed_ms"]);
    assert_eq!(row(seen, "pressure", "object", &full.id.clone().into())["part"], 1.0);
    let turned = in_folder(&["top", "--from", "b.json", "a.json", "--json"]).code(0);
    assert!(objects(&turned)[0]["elapsed_ms"].is_null());
    turned.says("no rates");
    in_folder(&["top", "--from", "a.json", "c.json"]).code(3).says("c.json");
    in_folder(&["top", "--from", "a.json"]).code(2);
}

#[test]
fn without_a_terminal_it_says_what_to_say() {
    top(&[]).code(2).says("standard output is no terminal").says("--once");
    for (wrong, problem) in [
        (&["--interval", "1ms"][..], "between 100ms and 24h"),
        (&["--interval", "x"], "write it as"),
        (&["--count", "0"], "0"),
        (&["--once", "--count", "3"], "cannot be used with"),
        (&["nonsense"], "nonsense"),
    ] {
        top(wrong).code(2).says(problem);
    }
}

#[test]
fn nobody_reads_what_it_prints() {
    let scratch = Scratch::new();
    let line = "\"$0\" top pressure --json --rows 1 --interval 100ms | head -1";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).arg(crate::run::binary()).current_dir(scratch.path());
    let ended = Run::command(command).end().code(0);
    assert_eq!(ended.text().lines().count(), 1);
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("error")).count(), 0, "{ended}");
}
