//! The pane of what is full: pipes, sockets, queues, and who waits because of it.
//!
//! Source: docs/design/top.md, "Pressure".

use std::collections::HashMap;

use serde_json::{Value, json};
use switchboard_inspect::analysis::pressure::{self, Pressure, unit};
use switchboard_inspect::{Limit, Object, Snapshot, Via};

use super::rows::{Cell, Column, Key, Mark, Row, short, short_signed};
use super::sample::Sample;

pub(super) const COLUMNS: &[Column] = &[
    Column { title: "FULL", width: 5, right: true, spare: 0 },
    Column { title: "OBJECT", width: 18, right: false, spare: 0 },
    Column { title: "FILL", width: 13, right: true, spare: 2 },
    Column { title: "GROWS/s", width: 8, right: true, spare: 5 },
    Column { title: "IN/s", width: 7, right: true, spare: 4 },
    Column { title: "OUT/s", width: 7, right: true, spare: 4 },
    Column { title: "BLOCKED", width: 7, right: true, spare: 3 },
    Column { title: "WAITING", width: 7, right: true, spare: 6 },
    Column { title: "BETWEEN", width: 12, right: false, spare: 1 },
];

/// From here on it is near.
const NEAR: f64 = 0.9;

/// All but what this command alone has.
fn all(sample: &Sample) -> Vec<Pressure<'_>> {
    let own = sample.now.viewer.pid;
    let is_own =
        |object: &Object| !object.ends.is_empty() && object.ends.iter().all(|end| end.pid == own);
    let mut all = pressure::all(&sample.now);
    all.retain(|one| !is_own(one.object));
    all
}

pub(super) fn rows(sample: &Sample) -> Vec<Row> {
    let (rates, ends) = (sample.rates(), Ends::of(&sample.now));
    let all = all(sample);
    all.iter()
        .map(|one| {
            let rate = rates.object(&one.object.id);
            let mark = match one.part {
                _ if one.blocked > 0 => Mark::Bad,
                Some(part) if part >= NEAR => Mark::Near,
                _ if rate.dropped_per_s.is_some() => Mark::Near,
                _ => Mark::Plain,
            };
            let grows = rate.fill_per_s.map_or_else(Cell::unknown, |change| Cell {
                // It is as full as before, and still something went through.
                text: if change == 0 && rate.moved {
                    "moves".to_owned()
                } else {
                    short_signed(change)
                },
                number: Some(change as f64),
            });
            let traffic = rate.traffic;
            Row {
                key: Key::Object(one.object.id.clone()),
                mark,
                cells: vec![
                    Cell::percent(one.part),
                    Cell::text(one.object.id.clone()),
                    fill(one.object),
                    grows,
                    Cell::number(traffic.map(|rate| rate.received_bytes_per_s)),
                    Cell::number(traffic.map(|rate| rate.sent_bytes_per_s)),
                    count(one.blocked),
                    count(one.waiting),
                    Cell::text(ends.text(one.object)),
                ],
            }
        })
        .collect()
}

/// A number of threads; nothing for none.
fn count(threads: u32) -> Cell {
    let text = if threads == 0 { String::new() } else { threads.to_string() };
    Cell { text, number: Some(f64::from(threads)) }
}

/// `60.0K/64.0K`.
fn fill(object: &Object) -> Cell {
    let text = match (object.fill, object.size) {
        (Some(fill), Some(size)) => format!("{}/{}", short(fill), short(size)),
        (Some(fill), None) => short(fill),
        _ => return Cell::unknown(),
    };
    Cell { text, number: object.fill.map(|fill| fill as f64) }
}

/// Who is at the ends of objects, looked up quickly.
pub(super) struct Ends<'a> {
    snapshot: &'a Snapshot,
    objects: HashMap<&'a str, &'a Object>,
}

impl<'a> Ends<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let objects = snapshot.objects.iter().map(|object| (object.id.as_str(), object)).collect();
        Self { snapshot, objects }
    }

    /// `yes[12] -> wc[13]`, and its last name.
    fn text(&self, object: &Object) -> String {
        let mut text = match object.peer.as_deref() {
            Some(peer) => {
                let peer = self.objects.get(peer).map(|peer| self.who(peer, |_| true));
                let peer = peer.filter(|who| !who.is_empty()).unwrap_or_else(|| "?".to_owned());
                format!("{} <-> {peer}", self.who(object, |_| true))
            }
            None if object.ends.iter().any(|end| end.reads != end.writes) => {
                let writers = self.who(object, |end| end.writes);
                let readers = self.who(object, |end| end.reads);
                let or_nobody = |who: String| if who.is_empty() { "?".to_owned() } else { who };
                format!("{} -> {}", or_nobody(writers), or_nobody(readers))
            }
            None => self.who(object, |_| true),
        };
        if let Some(name) = object.names.last() {
            text += if text.is_empty() { "" } else { "  " };
            text += name;
        }
        text
    }

    /// The first few of those who have it.
    fn who(
        &self,
        object: &Object,
        is_wanted: impl Fn(&switchboard_inspect::End) -> bool,
    ) -> String {
        const MOST: usize = 2;
        let ends = object.ends.iter().filter(|end| end.via != Via::Waits && is_wanted(end));
        let mut pids: Vec<u32> = ends.map(|end| end.pid).collect();
        pids.dedup();
        let shown = pids.iter().take(MOST).map(|&pid| self.snapshot.label(pid));
        let mut text = shown.collect::<Vec<_>>().join(" ");
        if pids.len() > MOST {
            text += &format!(" +{}", pids.len() - MOST);
        }
        text
    }
}

pub(super) fn json(sample: &Sample, most: usize) -> Value {
    let rates = sample.rates();
    let all = all(sample);
    let row = |one: &Pressure<'_>| {
        let (object, rate) = (one.object, rates.object(&one.object.id));
        let (received, sent) = match rate.traffic {
            Some(traffic) => (Some(traffic.received_bytes_per_s), Some(traffic.sent_bytes_per_s)),
            None => (None, None),
        };
        let mut pids: Vec<u32> = object.ends.iter().map(|end| end.pid).collect();
        pids.dedup();
        json!({
            "object": object.id, "kind": object.kind, "names": object.names, "peer": object.peer,
            "part": one.part, "fill": object.fill, "size": object.size, "unit": unit(object),
            "fill_per_s": rate.fill_per_s, "moved": rate.moved,
            "received_bytes_per_s": received, "sent_bytes_per_s": sent,
            "dropped_per_s": rate.dropped_per_s,
            "blocked": one.blocked, "waiting": one.waiting, "pids": pids,
        })
    };
    all.iter().take(most).map(row).collect()
}

/// How many objects somebody waits for room in, and how many limits are near.
pub(super) fn summary(sample: &Sample) -> (usize, usize) {
    let blocked = pressure::all(&sample.now).iter().filter(|one| one.blocked > 0).count();
    (blocked, sample.limits.iter().filter(|limit| Limit::is_near(limit)).count())
}
