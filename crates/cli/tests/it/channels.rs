//! `show shm:NAME`: a table, JSON, and what Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};

use switchboard_testkit::Scratch;

use crate::run::{Run, run};

/// A channel in a folder of its own, with a quotation mark in its name.
fn address(scratch: &Scratch) -> String {
    format!("shm:en\"gine?scope={}", scratch.join("scope").display())
}

/// A topic that three messages have gone through.
fn talking(scratch: &Scratch) -> (Run, Run) {
    let address = address(scratch);
    let subscriber = Run::start(scratch.path(), &["subscribe", &address]);
    // Whichever comes first, all three are received.
    let mut publisher = Run::start(scratch.path(), &["publish", &format!("{address}&history=3")]);
    publisher.write(b"a\nb\nc\n");
    subscriber.wait_stdout("three lines", |out| out == b"a\nb\nc\n");
    (publisher, subscriber)
}

/// What `show` prints. On a machine that is very busy ends take more than a moment to answer.
fn show(scratch: &Scratch, arguments: &[&str]) -> String {
    let arguments = [&["show", "--timeout", "20s"], arguments].concat();
    run(scratch.path(), &arguments, "").code(0).text()
}

#[test]
fn a_table_says_who_sent_and_received_how_much() {
    let scratch = Scratch::new();
    let (publisher, subscriber) = talking(&scratch);
    let text = show(&scratch, &[&address(&scratch)]);
    let line = |begin: &str| {
        let line = text.lines().find(|line| line.starts_with(begin));
        let line = line.unwrap_or_else(|| panic!("no {begin} in {text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (from, to) = (line("publisher"), line("subscriber"));
    assert_eq!(from[2], format!("switchboard[{}]", publisher.id()));
    assert_eq!(to[2], format!("switchboard[{}]", subscriber.id()));
    assert_eq!((&*from[4], &*from[5], &*to[4], &*to[5]), ("3", "-", "-", "3"));
    let nobody = format!("shm:nobody?scope={}", scratch.join("scope").display());
    run(scratch.path(), &["show", &nobody], "").code(3).says("nobody has this channel open");
    run(scratch.path(), &["show", "shm:"], "").code(2).says("nothing after the scheme");
    run(scratch.path(), &["show", &nobody, "/run/x"], "").code(2).says("can only be channels");
    run(scratch.path(), &["show", "--prometheus", "/run/x"], "").code(2).says("has no counters");
}

#[test]
fn json_has_the_same() {
    let scratch = Scratch::new();
    let (_publisher, _subscriber) = talking(&scratch);
    let text = show(&scratch, &["--json", &address(&scratch)]);
    let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let ends = shown["channels"][0]["ends"].as_array().expect("ends");
    assert_eq!(ends.len(), 2);
    assert_eq!((&ends[0]["role"], &ends[0]["counters"]["sent"]), (&"publisher".into(), &3.into()));
    assert_eq!(ends[1]["counters"]["received"], 3);
    assert_eq!(ends[0]["counters"]["links"][0]["peer"], ends[1]["id"]);
    assert!(ends[0]["counters"].get("received").is_none(), "{text}");
}

type Labels = BTreeMap<String, String>;
/// Type and samples.
type Metric = (String, Vec<(Labels, f64)>);

/// Reads the exposition format by its grammar: the metrics by their names.
fn exposition(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').expect("a help");
            assert!(helped.insert(name.to_owned()), "{name} is helped twice");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge"].contains(&kind) && helped.contains(name), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(metrics.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none());
            name.clone_into(&mut current);
            continue;
        }
        let (name, rest) = line.split_once('{').expect("labels");
        assert_eq!(name, current, "samples of a metric are together");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        let (labels, value) = labels(rest);
        let samples = &mut metrics.get_mut(name).expect("a type before its samples").1;
        assert!(samples.iter().all(|(other, _)| *other != labels), "{line} is there twice");
        samples.push((labels, value.trim().parse().expect("a number")));
    }
    metrics
}

/// The labels up to the closing brace, and what follows.
fn labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        let (mut value, mut end) = (String::new(), None);
        let mut chars = after.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                '\\' => value.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("no escape: {other}"),
                }),
                c => value.push(c),
            }
        }
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        let after = &after[end.expect("a closing quotation mark")..];
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, after.strip_prefix('}').expect("a closing brace")),
        }
    }
}

#[test]
fn prometheus_reads_it() {
    let scratch = Scratch::new();
    let (publisher, subscriber) = talking(&scratch);
    let address = address(&scratch);
    let nobody = format!("shm:nobody?scope={}", scratch.join("scope").display());
    let metrics = exposition(&show(&scratch, &["--prometheus", &address, &nobody]));
    let sample = |name: &str, role: &str| {
        let (_, samples) = &metrics[&format!("switchboard_{name}")];
        let found = samples.iter().filter(|(labels, _)| labels["role"] == role);
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "{name} {role}");
        found[0].clone()
    };
    let (labels, sent) = sample("sent_messages_total", "publisher");
    assert_eq!((&labels["channel"], sent), (&address, 3.0));
    assert_eq!(labels["pid"], publisher.id().to_string());
    let (labels, received) = sample("received_messages_total", "subscriber");
    assert_eq!((labels["pid"].clone(), received), (subscriber.id().to_string(), 3.0));
    assert_eq!(sample("end_answers", "publisher").1, 1.0);
    let (labels, behind) = sample("link_behind_messages", "publisher");
    assert_eq!(behind, 0.0);
    assert!(labels["peer_name"].contains(&subscriber.id().to_string()), "{labels:?}");
    let ends = &metrics["switchboard_ends"].1;
    let counts: Vec<(&str, f64)> =
        ends.iter().map(|(labels, count)| (labels["channel"].as_str(), *count)).collect();
    assert_eq!(counts, [(address.as_str(), 2.0), (nobody.as_str(), 0.0)]);
}

#[test]
fn both_ends_of_a_service_are_there_once() {
    let scratch = Scratch::new();
    let address = format!("shm:work?scope={}", scratch.join("scope").display());
    let server = Run::start(scratch.path(), &["serve", &address, "--", "cat"]);
    run(scratch.path(), &["call", &address, "hello"], "").code(0).prints("hello");
    let metrics = exposition(&show(&scratch, &["--prometheus", &address]));
    let (_, samples) = &metrics["switchboard_received_messages_total"];
    assert_eq!(samples.len(), 1);
    let (labels, count) = &samples[0];
    assert_eq!((&*labels["role"], labels["pid"].clone()), ("server", server.id().to_string()));
    assert!(*count >= 1.0);
}
