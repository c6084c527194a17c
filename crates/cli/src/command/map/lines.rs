//! The lines of the map: one for all channels between the same two, with a label where there is room for it.
//!
//! Source: docs/design/map.md, "Layout".

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use switchboard_inspect::analysis::graph::{Channel, Graph, Hold};

use super::layout::{Layout, Place, Rect};

/// A line from one place to another.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// From where.
    #[serde(skip)]
    pub(crate) ends: [Place; 2],
    /// Its path, as SVG writes one.
    pub(crate) path: String,
    /// The channels that it stands for, by number.
    pub(crate) channels: Vec<usize>,
    /// The best that is known of the use of one of them.
    pub(crate) hold: Hold,
    /// Something flows to its first end, and to its second.
    pub(crate) arrows: [bool; 2],
    /// Somebody who looks stuck waits for one of them.
    pub(crate) stuck: bool,
    /// One of them leaks.
    pub(crate) leaks: bool,
    /// What it carries, in words.
    pub(crate) text: String,
    /// Where that can be written.
    pub(crate) label: Option<Rect>,
}

/// How wide a character of a label is.
const LABEL_CHARACTER: f64 = 6.1;
const LABEL_HEIGHT: f64 = 13.0;
/// Beyond so many lines a label is no help.
const MOST_LABELS: usize = 600;

#[derive(Default)]
struct Bundle {
    channels: Vec<usize>,
    hold: Option<Hold>,
    arrows: [bool; 2],
    stuck: bool,
    leaks: bool,
}

/// All lines of a graph.
pub(super) fn of(graph: &Graph, layout: &Layout) -> Vec<Line> {
    let mut bundles: BTreeMap<[Place; 2], Bundle> = BTreeMap::new();
    for (at, channel) in graph.channels.iter().enumerate() {
        if channel.is_node() {
            for party in &channel.parties {
                let ends = [Place::Process(party.pid), Place::Object(at)];
                // Memory that is mapped to be read and written needs no arrows.
                let both = party.reads.is_some() && party.writes.is_some();
                let arrows = [party.reads.is_some() && !both, party.writes.is_some() && !both];
                bundles.entry(ends).or_default().add(at, channel, party.hold(), arrows);
            }
        } else if let [a, b] = &channel.parties[..] {
            let flows = channel.flows();
            let arrows = [a, b].map(|party| {
                flows.iter().any(|flow| flow.to == party.pid) && !channel.kind.is_memory()
            });
            let hold = flows.iter().map(|flow| flow.hold).max().unwrap_or(channel.hold());
            let ends = [Place::Process(a.pid), Place::Process(b.pid)];
            bundles.entry(ends).or_default().add(at, channel, hold, arrows);
        }
    }
    let mut taken = Taken::default();
    layout.places.values().for_each(|rect| taken.take(*rect));
    for (frame, _) in layout.frames.iter().zip(0..).filter(|(frame, _)| frame.w > 0.0) {
        taken.take(Rect { h: 24.0, ..*frame });
    }
    let mut lines = Vec::with_capacity(bundles.len());
    for (ends, bundle) in bundles {
        let [Some(a), Some(b)] = ends.map(|place| layout.places.get(&place)) else { continue };
        let curve = Curve::between(a, b);
        let text = words(graph, &bundle.channels);
        let is_edge = matches!(ends[1], Place::Process(_));
        let label = (is_edge && lines.len() < MOST_LABELS).then(|| taken.room(&curve, &text));
        lines.push(Line {
            ends,
            path: curve.path(),
            channels: bundle.channels,
            hold: bundle.hold.unwrap_or(Hold::Held),
            arrows: bundle.arrows,
            stuck: bundle.stuck,
            leaks: bundle.leaks,
            text,
            label: label.flatten(),
        });
    }
    lines
}

impl Bundle {
    fn add(&mut self, at: usize, channel: &Channel, hold: Hold, arrows: [bool; 2]) {
        self.channels.push(at);
        self.hold = self.hold.max(Some(hold));
        self.arrows = [self.arrows[0] || arrows[0], self.arrows[1] || arrows[1]];
        self.stuck |= channel.stuck;
        self.leaks |= !channel.leak.is_empty();
    }
}

/// `pipe, unix ×3`; with `full` where one is.
fn words(graph: &Graph, channels: &[usize]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let each = || channels.iter().filter_map(|&at| graph.channels.get(at));
    for channel in each() {
        *kinds.entry(channel.kind.name()).or_insert(0) += 1;
    }
    let mut all: Vec<String> = kinds
        .into_iter()
        .map(|(kind, n)| if n > 1 { format!("{kind} ×{n}") } else { kind.to_owned() })
        .collect();
    if each().any(Channel::is_full) {
        all.push("full".to_owned());
    }
    all.join(", ")
}

/// A cubic Bézier curve.
struct Curve([(f64, f64); 4]);

impl Curve {
    fn between(a: &Rect, b: &Rect) -> Self {
        const APART: f64 = 12.0;
        let (ay, by) = (a.middle(), b.middle());
        let bend = |from: f64, to: f64| ((to - from) / 2.0).max(30.0);
        if b.x > a.right() + APART {
            let (from, to) = (a.right(), b.x);
            let dx = bend(from, to);
            Self([(from, ay), (from + dx, ay), (to - dx, by), (to, by)])
        } else if a.x > b.right() + APART {
            let (from, to) = (a.x, b.right());
            let dx = bend(to, from);
            Self([(from, ay), (from - dx, ay), (to + dx, by), (to, by)])
        } else {
            // One above the other: around on the right.
            let dx = 26.0 + (by - ay).abs() / 6.0;
            let x = a.right().max(b.right()) + dx.min(COLUMN_MOST);
            Self([(a.right(), ay), (x, ay), (x, by), (b.right(), by)])
        }
    }

    fn at(&self, t: f64) -> (f64, f64) {
        let s = 1.0 - t;
        let weights = [s * s * s, 3.0 * s * s * t, 3.0 * s * t * t, t * t * t];
        let sum = |of: fn(&(f64, f64)) -> f64| {
            self.0.iter().zip(weights).map(|(point, weight)| of(point) * weight).sum()
        };
        (sum(|point| point.0), sum(|point| point.1))
    }

    fn path(&self) -> String {
        let [a, b, c, d] = self.0;
        format!(
            "M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}",
            a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1
        )
    }
}

/// How far a line that goes around may go.
const COLUMN_MOST: f64 = 90.0;

/// What lies where, by squares of the map.
#[derive(Default)]
struct Taken(HashMap<(i64, i64), Vec<Rect>>);

impl Taken {
    fn take(&mut self, rect: Rect) {
        for square in squares(&rect) {
            self.0.entry(square).or_default().push(rect);
        }
    }

    fn is_free(&self, rect: &Rect) -> bool {
        let hits = |other: &Rect| {
            rect.x < other.right()
                && other.x < rect.right()
                && rect.y < other.bottom()
                && other.y < rect.bottom()
        };
        squares(rect).all(|square| {
            self.0.get(&square).is_none_or(|there| there.iter().all(|other| !hits(other)))
        })
    }

    /// The first place along a curve where the text fits.
    fn room(&mut self, curve: &Curve, text: &str) -> Option<Rect> {
        let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let (w, h) = (f64::from(characters) * LABEL_CHARACTER + 6.0, LABEL_HEIGHT);
        for t in [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8] {
            let (x, y) = curve.at(t);
            let rect = Rect { x: x - w / 2.0, y: y - h / 2.0, w, h };
            if rect.x >= 0.0 && rect.y >= 0.0 && self.is_free(&rect) {
                self.take(rect);
                return Some(rect);
            }
        }
        None
    }
}

fn squares(rect: &Rect) -> impl Iterator<Item = (i64, i64)> + use<> {
    const SIDE: f64 = 64.0;
    #[allow(clippy::cast_possible_truncation)]
    let square = |at: f64| (at / SIDE).floor() as i64;
    let (top, bottom) = (square(rect.y), square(rect.bottom()));
    let (left, right) = (square(rect.x), square(rect.right()));
    (top..=bottom).flat_map(move |y| (left..=right).map(move |x| (x, y)))
}
