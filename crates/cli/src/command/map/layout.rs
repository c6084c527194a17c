//! Where everything stands on the map: groups in frames, what is connected in columns from left to right, the rest in a grid.
//!
//! Source: docs/design/map.md, "Layout". Layers by breadth, one barycentre pass (Sugiyama, 1981), frames on shelves. Whatever there is,
//! it takes time in proportion to the number of processes and connections, but for sorting.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::Serialize;
use switchboard_inspect::analysis::graph::{Graph, Hold};

use super::lines::{self, Line};

/// A rectangle; pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rect {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) w: f64,
    pub(crate) h: f64,
}

impl Rect {
    pub(crate) fn right(&self) -> f64 {
        self.x + self.w
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.y + self.h
    }

    pub(crate) fn middle(&self) -> f64 {
        self.y + self.h / 2.0
    }

    fn moved(mut self, x: f64, y: f64) -> Self {
        (self.x, self.y) = (self.x + x, self.y + y);
        self
    }
}

/// Something that has a place: a process by its id, or a channel by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Process(u32),
    Object(usize),
}

/// The whole map.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// A frame for each group, and a last one for what nobody has.
    pub(crate) frames: Vec<Rect>,
    pub(crate) places: BTreeMap<Place, Rect>,
    pub(crate) lines: Vec<Line>,
}

/// How wide a character of the map's font is, at 12 pixels: a fixed one.
pub(crate) const CHARACTER: f64 = 7.3;
/// Characters of a name that are shown in a box.
pub(crate) const LONGEST_LABEL: usize = 26;
const PROCESS: (f64, f64) = (LONGEST_LABEL as f64 * CHARACTER + 14.0, 26.0);
const OBJECT: (f64, f64) = (PROCESS.0, 22.0);
/// The most rows of a column.
const MOST_ROWS: usize = 16;
const ROW_GAP: f64 = 16.0;
/// Between columns that are connected, room for a label.
const COLUMN_GAP: f64 = 110.0;
const GRID_GAP: f64 = 10.0;
const PADDING: f64 = 16.0;
/// The name of a group.
const HEADER: f64 = 24.0;
const BETWEEN_FRAMES: f64 = 28.0;
const BETWEEN_PARTS: f64 = 34.0;
/// Width to height.
const ASPECT: f64 = 1.7;

/// Places of one part, from 0 on.
struct Block {
    places: Vec<(Place, Rect)>,
    w: f64,
    h: f64,
}

/// Who is connected with whom: in which direction, if in one.
struct Links {
    all: HashMap<Place, Vec<Place>>,
    into: HashSet<Place>,
    out: HashSet<Place>,
}

impl Layout {
    pub(crate) fn new(graph: &Graph) -> Self {
        let links = Links::new(graph);
        let mut members: Vec<Vec<Place>> = vec![Vec::new(); graph.groups.len() + 1];
        for node in &graph.processes {
            members[node.group].push(Place::Process(node.pid));
        }
        for (at, channel) in graph.channels.iter().enumerate().filter(|(_, one)| one.is_node()) {
            members[home(graph, channel)].push(Place::Object(at));
        }
        let frames: Vec<Option<Block>> = members.iter().map(|each| frame(each, &links)).collect();
        let sizes: Vec<(f64, f64)> = frames.iter().flatten().map(|one| (one.w, one.h)).collect();
        let (corners, width, height) = shelves(&sizes, BETWEEN_FRAMES);
        let mut layout = Self { width, height, ..Self::default() };
        let mut corners = corners.into_iter();
        for block in frames {
            let Some(block) = block else {
                layout.frames.push(Rect::default());
                continue;
            };
            let (x, y) = corners.next().unwrap_or_default();
            layout.frames.push(Rect { x, y, w: block.w, h: block.h });
            let moved = block.places.into_iter().map(|(place, rect)| (place, rect.moved(x, y)));
            layout.places.extend(moved);
        }
        layout.lines = lines::of(graph, &layout);
        layout
    }
}

/// The group an object is drawn in: that of most of its processes; the last one if it has none.
fn home(graph: &Graph, channel: &switchboard_inspect::analysis::graph::Channel) -> usize {
    let mut count: BTreeMap<usize, usize> = BTreeMap::new();
    for node in channel.parties.iter().filter_map(|party| graph.process(party.pid)) {
        *count.entry(node.group).or_insert(0) += 1;
    }
    let most = count.into_iter().max_by_key(|&(group, n)| (n, std::cmp::Reverse(group)));
    most.map_or(graph.groups.len(), |(group, _)| group)
}

impl Links {
    fn new(graph: &Graph) -> Self {
        let mut links = Self { all: HashMap::new(), into: HashSet::new(), out: HashSet::new() };
        for (at, channel) in graph.channels.iter().enumerate() {
            if channel.is_node() {
                for party in &channel.parties {
                    let process = Place::Process(party.pid);
                    let (reads, writes) = (party.reads.is_some(), party.writes.is_some());
                    match (writes, reads) {
                        (true, false) => links.add(process, Place::Object(at), true),
                        (false, true) => links.add(Place::Object(at), process, true),
                        _ => links.add(process, Place::Object(at), false),
                    }
                }
            } else if let [a, b] = &channel.parties[..] {
                let (a, b) = (a.pid, b.pid);
                match &channel.flows()[..] {
                    [one] if one.hold > Hold::Held => {
                        links.add(Place::Process(one.from), Place::Process(one.to), true);
                    }
                    _ => links.add(Place::Process(a), Place::Process(b), false),
                }
            }
        }
        links
    }

    fn add(&mut self, from: Place, to: Place, directed: bool) {
        self.all.entry(from).or_default().push(to);
        self.all.entry(to).or_default().push(from);
        if directed {
            self.out.insert(from);
            self.into.insert(to);
        }
    }

    fn of(&self, place: Place) -> &[Place] {
        self.all.get(&place).map_or(&[], Vec::as_slice)
    }
}

/// A group: what is connected within it, part by part, then the rest.
fn frame(members: &[Place], links: &Links) -> Option<Block> {
    if members.is_empty() {
        return None;
    }
    let inside: HashSet<Place> = members.iter().copied().collect();
    let mut seen: HashSet<Place> = HashSet::new();
    let (mut blocks, mut single) = (Vec::new(), Vec::new());
    for &start in members {
        if !seen.insert(start) {
            continue;
        }
        let mut part = vec![start];
        let mut at = 0;
        while let Some(&place) = part.get(at) {
            at += 1;
            for &other in links.of(place) {
                if inside.contains(&other) && seen.insert(other) {
                    part.push(other);
                }
            }
        }
        if part.len() == 1 {
            single.push(start)
        } else {
            blocks.push(columns(part, &inside, links))
        }
    }
    if !single.is_empty() {
        blocks.push(grid(&single));
    }
    let sizes: Vec<(f64, f64)> = blocks.iter().map(|block| (block.w, block.h)).collect();
    let (corners, w, h) = shelves(&sizes, BETWEEN_PARTS);
    let mut places = Vec::new();
    for (block, (x, y)) in blocks.into_iter().zip(corners) {
        let (x, y) = (x + PADDING, y + PADDING + HEADER);
        places.extend(block.places.into_iter().map(|(place, rect)| (place, rect.moved(x, y))));
    }
    Some(Block { places, w: w + 2.0 * PADDING, h: h + 2.0 * PADDING + HEADER })
}

fn size(place: Place) -> (f64, f64) {
    match place {
        Place::Process(_) => PROCESS,
        Place::Object(_) => OBJECT,
    }
}

/// Connected places in columns: from where things come on the left to where they go on the right.
fn columns(mut part: Vec<Place>, inside: &HashSet<Place>, links: &Links) -> Block {
    part.sort_unstable();
    let sources: Vec<Place> = part
        .iter()
        .copied()
        .filter(|place| links.out.contains(place) && !links.into.contains(place))
        .collect();
    // Without a source, who has most connections comes first.
    let hub = || part.iter().copied().rev().max_by_key(|&place| links.of(place).len());
    let starts = if sources.is_empty() { hub().into_iter().collect() } else { sources };
    let mut level: HashMap<Place, usize> = starts.iter().map(|&place| (place, 0)).collect();
    let mut next: VecDeque<Place> = starts.into();
    let mut levels: Vec<Vec<Place>> = Vec::new();
    while let Some(place) = next.pop_front() {
        let at = level.get(&place).copied().unwrap_or(0);
        if levels.len() <= at {
            levels.resize(at + 1, Vec::new());
        }
        levels[at].push(place);
        for &other in links.of(place).iter().filter(|other| inside.contains(other)) {
            level.entry(other).or_insert_with(|| {
                next.push_back(other);
                at + 1
            });
        }
    }
    // Each below the middle of those before it that it is connected with.
    let mut row: HashMap<Place, f64> = HashMap::new();
    let mut block = Block { places: Vec::new(), w: 0.0, h: 0.0 };
    let mut stacks: Vec<(Vec<Place>, bool)> = Vec::new();
    for (at, places) in levels.iter_mut().enumerate() {
        let middle = |place: &Place| {
            let before: Vec<f64> =
                links.of(*place).iter().filter_map(|other| row.get(other).copied()).collect();
            let count = before.len().max(1);
            before.iter().sum::<f64>() / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
        };
        let mut keyed: Vec<(f64, Place)> = places.iter().map(|p| (middle(p), *p)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let sorted: Vec<Place> = keyed.into_iter().map(|(_, place)| place).collect();
        for (number, place) in sorted.iter().enumerate() {
            row.insert(*place, number_of(number) / number_of(sorted.len()));
        }
        let rows = balanced_rows(sorted.len());
        for (number, stack) in sorted.chunks(rows).enumerate() {
            stacks.push((stack.to_vec(), number == 0 && at > 0));
        }
    }
    let height =
        |stack: &[Place]| stack.iter().map(|&place| size(place).1 + ROW_GAP).sum::<f64>() - ROW_GAP;
    block.h = stacks.iter().map(|(stack, _)| height(stack)).fold(0.0, f64::max);
    for (stack, begins) in &stacks {
        if block.w > 0.0 {
            block.w += if *begins { COLUMN_GAP } else { 3.0 * GRID_GAP };
        }
        let mut y = (block.h - height(stack)) / 2.0;
        for &place in stack {
            let (w, h) = size(place);
            block.places.push((place, Rect { x: block.w, y, w, h }));
            y += h + ROW_GAP;
        }
        block.w += PROCESS.0;
    }
    block
}

/// So many rows that the columns are about equally high, and the whole not higher than wide.
fn balanced_rows(count: usize) -> usize {
    let most = MOST_ROWS.max(number_to(number_of(count).sqrt() * 1.6));
    let columns = count.div_ceil(most).max(1);
    count.div_ceil(columns).max(1)
}

fn grid(places: &[Place]) -> Block {
    let (w, h) = PROCESS;
    let count = number_of(places.len());
    let across = (count * (h + GRID_GAP) * ASPECT / (w + GRID_GAP)).sqrt();
    let across = number_to(across.ceil()).clamp(1, places.len().max(1));
    let mut block = Block { places: Vec::new(), w: 0.0, h: 0.0 };
    for (at, &place) in places.iter().enumerate() {
        let (column, row) = (number_of(at % across), number_of(at / across));
        let rect =
            Rect { x: column * (w + GRID_GAP), y: row * (h + GRID_GAP), w, h: size(place).1 };
        block.w = block.w.max(rect.right());
        block.h = block.h.max(rect.bottom());
        block.places.push((place, rect));
    }
    block
}

/// Puts rectangles on shelves, in their order; their corners, and how large the whole is.
fn shelves(sizes: &[(f64, f64)], gap: f64) -> (Vec<(f64, f64)>, f64, f64) {
    let area: f64 = sizes.iter().map(|(w, h)| (w + gap) * (h + gap)).sum();
    let widest = sizes.iter().map(|(w, _)| *w).fold(0.0, f64::max);
    let limit = widest.max((area * ASPECT).sqrt());
    let (mut x, mut y, mut shelf, mut width, mut height) =
        (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    let mut corners = Vec::with_capacity(sizes.len());
    for &(w, h) in sizes {
        if x > 0.0 && x + w > limit {
            (x, y, shelf) = (0.0, y + shelf + gap, 0.0);
        }
        corners.push((x, y));
        (width, height) = (width.max(x + w), height.max(y + h));
        shelf = shelf.max(h);
        x += w + gap;
    }
    (corners, width, height)
}

fn number_of(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn number_to(number: f64) -> usize {
    // Counts of things on a map: never below 0, nor near what a usize holds.
    number.max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::map::world;

    fn overlap(a: &Rect, b: &Rect) -> bool {
        a.x < b.right() && b.x < a.right() && a.y < b.bottom() && b.y < a.bottom()
    }

    #[test]
    fn nothing_lies_on_anything_else() {
        for (processes, seed) in [(1, 1), (2, 2), (7, 3), (60, 4), (300, 5)] {
            let graph = world::graph(processes, seed);
            let layout = Layout::new(&graph);
            let places: Vec<(&Place, &Rect)> = layout.places.iter().collect();
            assert!(places.len() >= processes);
            for (at, (place, a)) in places.iter().enumerate() {
                for (other, b) in &places[at + 1..] {
                    assert!(!overlap(a, b), "{place:?} {a:?} {other:?} {b:?}");
                }
                assert!(a.x >= 0.0 && a.right() <= layout.width && a.bottom() <= layout.height);
                let frames = layout.frames.iter().filter(|frame| overlap(frame, a));
                assert_eq!(frames.count(), 1, "{place:?} is in one frame");
            }
            for (at, a) in layout.frames.iter().enumerate() {
                assert!(layout.frames[at + 1..].iter().all(|b| !overlap(a, b)), "{a:?}");
            }
            let labels: Vec<Rect> = layout.lines.iter().filter_map(|line| line.label).collect();
            for (at, a) in labels.iter().enumerate() {
                assert!(labels[at + 1..].iter().all(|b| !overlap(a, b)), "{a:?}");
                assert!(places.iter().all(|(_, b)| !overlap(a, b)), "{a:?}");
            }
        }
    }

    #[test]
    fn what_flows_goes_to_the_right() {
        let graph = world::pipeline(5);
        let layout = Layout::new(&graph);
        let left: Vec<f64> = (1..=5).map(|n| layout.places[&Place::Process(n * 10)].x).collect();
        assert!(left.is_sorted_by(|a, b| a < b), "{left:?}");
    }

    #[test]
    fn a_crowded_machine_is_laid_out_in_no_time() {
        let graph = world::graph(3_000, 9);
        let began = std::time::Instant::now();
        let layout = Layout::new(&graph);
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{took:?}");
        let shape = layout.width / layout.height;
        assert!((0.3..6.0).contains(&shape), "{} x {}", layout.width, layout.height);
    }
}
