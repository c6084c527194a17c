//! Counters in the text format that Prometheus reads, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/practices/naming/>.

use std::fmt::Write;

use switchboard::counters::{Channel, Counts, End, LinkCounts};

use super::channel::user;
use crate::machine::Users;

/// A metric of an end: its name, its type, its help, and its value where the end has one.
type OfEnd = (&'static str, &'static str, &'static str, fn(&Counts) -> Option<u64>);
/// A metric of a link.
type OfLink = (&'static str, &'static str, &'static str, fn(&LinkCounts) -> Option<u64>);

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

const ENDS: &[OfEnd] = &[
    ("sent_messages_total", COUNTER, "Messages accepted.", |c| c.sent),
    ("sent_bytes_total", COUNTER, "Payload of messages accepted, in bytes.", |c| c.sent_bytes),
    ("received_messages_total", COUNTER, "Messages handed to the program.", |c| c.received),
    ("dropped_messages_total", COUNTER, "Messages of a topic that are missing.", |c| c.dropped),
    ("settled_messages_total", COUNTER, "Messages of a queue that were settled.", |c| {
        c.acknowledged
    }),
    ("rejected_messages_total", COUNTER, "Messages of a queue that were given up.", |c| c.rejected),
    ("waiting_messages", GAUGE, "Messages of a queue that are in nobody's ring.", |c| c.waiting),
    ("waits_total", COUNTER, "How often the caller slept.", |c| Some(c.waits)),
    ("wake_ups_total", COUNTER, "Wake-ups given to peers.", |c| Some(c.wake_ups)),
    ("late_waits_total", COUNTER, "Sleeps that nobody ended although something was there.", |c| {
        Some(c.late)
    }),
    ("peers", GAUGE, "Links that are open.", |c| Some(c.links.len() as u64)),
];

const LINKS: &[OfLink] = &[
    ("link_received_messages_total", COUNTER, "Messages received over a link.", |l| l.received),
    ("link_dropped_messages_total", COUNTER, "Messages missing from a link.", |l| l.dropped),
    ("link_behind_messages", GAUGE, "Messages of a link that are not taken or settled.", |l| {
        l.behind
    }),
    ("link_behind_bytes", GAUGE, "Bytes of a link's ring up to the cursor stored last.", |l| {
        l.behind_bytes
    }),
];

/// All channels as one exposition: each metric's samples are together.
pub(super) fn text(channels: &[(&str, Channel)], users: &Users) -> String {
    let ends: Vec<(String, &End)> = channels
        .iter()
        .flat_map(|(word, channel)| channel.ends.iter().map(move |end| (word, end)))
        .map(|(word, end)| (labels(word, end, users), end))
        .collect();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: Vec<(String, u64)>| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP switchboard_{name} {help}");
        let _ = writeln!(text, "# TYPE switchboard_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "switchboard_{name}{{{labels}}} {value}");
        }
    };
    let known = channels.iter().map(|(word, channel)| {
        (format!("channel=\"{}\"", escaped(word)), channel.ends.len() as u64)
    });
    metric("ends", GAUGE, "Ends of a channel that are there.", known.collect());
    let answers = ends.iter().map(|(labels, end)| (labels.clone(), u64::from(end.answer.is_ok())));
    metric("end_answers", GAUGE, "1 if an end answered, else 0.", answers.collect());
    for (name, kind, help, of) in ENDS {
        let samples = ends.iter().filter_map(|(labels, end)| {
            let value = end.answer.as_ref().ok().and_then(of)?;
            Some((labels.clone(), value))
        });
        metric(name, kind, help, samples.collect());
    }
    for (name, kind, help, of) in LINKS {
        let samples = ends.iter().flat_map(|(labels, end)| {
            let links = end.answer.iter().flat_map(|counts| &counts.links);
            links.filter_map(move |link| Some((of_link(labels, link), of(link)?)))
        });
        metric(name, kind, help, samples.collect());
    }
    text
}

fn labels(word: &str, end: &End, users: &Users) -> String {
    let pid = end.pid.map(|pid| pid.to_string()).unwrap_or_default();
    let all = [
        ("channel", word),
        ("end", &end.id),
        ("role", end.role),
        ("pid", &pid),
        ("program", &end.program),
        ("user", &user(end, users)),
    ];
    all.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).join(",")
}

fn of_link(end: &str, link: &LinkCounts) -> String {
    format!("{end},peer=\"{}\",peer_name=\"{}\"", escaped(&link.peer), escaped(&link.name))
}

/// A label's value between quotation marks.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
        assert_eq!(escaped("plain ü"), "plain ü");
    }
}
