//! The map as a page: what it shows as JSON, and the file that holds everything.
//!
//! Source: docs/design/map.md, "The page". The JSON stands in a script element that no browser runs; what could end that
//! element, or begin a comment in it, is escaped, so that no name of a process can.

use std::collections::HashMap;

use serde::Serialize;
use switchboard_inspect::analysis::graph::{Flow, Graph, Hold, Node, Role};
use switchboard_inspect::{Kind, Process, Snapshot, WaitOn};

use super::layout::{LONGEST_LABEL, Layout, Place, Rect};
use super::lines::Line;
use super::words::{self, cut};
use super::{Leaking, Picture};
use crate::machine::Users;

const HTML: &str = include_str!("page.html");
/// The page's style.
pub(crate) const STYLE: &str = include_str!("page.css");
/// The page's program.
pub(crate) const SCRIPT: &str = include_str!("page.js");

/// More objects than that are counted and not sent.
const MOST_OBJECTS: usize = 20_000;
const LONGEST_COMMAND: usize = 200;

/// What the page shows.
#[derive(Debug, Serialize)]
pub(crate) struct Page<'a> {
    title: &'a str,
    machine: &'a str,
    taken_unix_ms: u64,
    live: bool,
    grouping: &'static str,
    missing: &'a [String],
    longest_label: usize,
    width: f64,
    height: f64,
    groups: Vec<GroupOf<'a>>,
    processes: Vec<ProcessOf<'a>>,
    channels: Vec<ChannelOf<'a>>,
    lines: Vec<LineOf>,
    objects: Vec<ObjectOf<'a>>,
    more_objects: usize,
    leaks: &'a [Leaking],
}

#[derive(Debug, Serialize)]
struct GroupOf<'a> {
    name: &'a str,
    rect: Rect,
}

#[derive(Debug, Serialize)]
struct ProcessOf<'a> {
    #[serde(flatten)]
    node: &'a Node,
    rect: Rect,
    user: String,
    parent: u32,
    started: u64,
    command: String,
    state: char,
    waits: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ChannelOf<'a> {
    objects: &'a [String],
    kind: Kind,
    title: String,
    /// What is written in its box.
    short: String,
    state: Option<&'a str>,
    parties: Vec<PartyOf<'a>>,
    flows: Vec<Flow>,
    hold: Hold,
    full: bool,
    stuck: bool,
    leak: &'a [String],
    /// Of one that is drawn as an object.
    rect: Option<Rect>,
    /// The group it is drawn in.
    home: Option<usize>,
}

#[derive(Debug, Serialize)]
struct PartyOf<'a> {
    pid: u32,
    ends: &'a [String],
    reads: bool,
    writes: bool,
    hold: Hold,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct LineOf {
    a: String,
    b: String,
    #[serde(flatten)]
    line: Line,
}

#[derive(Debug, Serialize)]
struct ObjectOf<'a> {
    id: &'a str,
    kind: Kind,
    name: &'a str,
    owner: String,
    size: Option<u64>,
    fill: Option<u64>,
    state: Option<&'a str>,
    pids: Vec<u32>,
    leak: Vec<&'a str>,
}

/// The page's data as JSON.
pub(crate) fn json(picture: &Picture, users: &Users, live: bool) -> String {
    let page = Page::new(picture, users, live);
    // Strings, numbers and lists can always be written.
    serde_json::to_string(&page).unwrap_or_default()
}

/// The whole file: it needs nothing else, and asks for nothing. `nonce` is new each time.
pub(crate) fn html(picture: &Picture, users: &Users, nonce: &str) -> String {
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'"
    );
    let head = format!(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n<style nonce=\"{nonce}\">\n{STYLE}</style>"
    );
    let data = format!(
        "<script type=\"application/json\" id=\"data\">{}</script>",
        safe_in_script(&json(picture, users, false))
    );
    let script = format!("<script nonce=\"{nonce}\">\n{SCRIPT}</script>");
    fill(&head, &data, &script)
}

/// The page that gets its data from where it came from.
pub(crate) fn live_html() -> String {
    fill(
        "<link rel=\"stylesheet\" href=\"page.css\">",
        "",
        "<script src=\"page.js\" defer></script>",
    )
}

fn fill(head: &str, data: &str, script: &str) -> String {
    // The data last: whatever is in it is looked at no more.
    let html = HTML.replace("{{HEAD}}", head).replace("{{SCRIPT}}", script);
    html.replace("{{DATA}}", data)
}

/// JSON that can stand in a script element: `<`, `>` and `&` only occur in strings, where they can be written otherwise.
fn safe_in_script(json: &str) -> String {
    let mut safe = String::with_capacity(json.len() + json.len() / 16);
    for c in json.chars() {
        match c {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            c => safe.push(c),
        }
    }
    safe
}

impl<'a> Page<'a> {
    fn new(picture: &'a Picture, users: &Users, live: bool) -> Self {
        let Picture { snapshot, graph, groups, title, .. } = picture;
        let layout = Layout::new(graph);
        let rect = |place| layout.places.get(&place).copied();
        let nobody = "nobody has these";
        let names = groups.iter().map(String::as_str).chain([nobody]);
        let processes = graph.processes.iter().filter_map(|node| {
            let process = snapshot.process(node.pid)?;
            Some(ProcessOf {
                node,
                rect: rect(Place::Process(node.pid))?,
                user: users.name(process.uid),
                parent: process.parent,
                started: process.started_ticks,
                command: cut(&process.command.join(" "), LONGEST_COMMAND),
                state: process.state,
                waits: waits(process),
            })
        });
        let processes = processes.collect();
        let channels = channels(graph, &layout);
        let frames = names.zip(&layout.frames).map(|(name, rect)| GroupOf { name, rect: *rect });
        let groups = frames.collect();
        let key = |place| match place {
            Place::Process(pid) => format!("p{pid}"),
            Place::Object(at) => format!("c{at}"),
        };
        let (width, height) = (layout.width, layout.height);
        let lines = layout.lines.into_iter().map(|line| LineOf {
            a: key(line.ends[0]),
            b: key(line.ends[1]),
            line,
        });
        Self {
            title,
            machine: &snapshot.machine,
            taken_unix_ms: snapshot.taken_unix_ms,
            live,
            grouping: picture.grouping,
            missing: &snapshot.coverage.missing,
            longest_label: LONGEST_LABEL,
            width,
            height,
            groups,
            processes,
            channels,
            lines: lines.collect(),
            objects: objects(snapshot, &picture.leaks, users),
            more_objects: snapshot.objects.len().saturating_sub(MOST_OBJECTS),
            leaks: &picture.leaks,
        }
    }
}

fn channels<'a>(graph: &'a Graph, layout: &Layout) -> Vec<ChannelOf<'a>> {
    let each = graph.channels.iter().enumerate().map(|(at, channel)| {
        let rect = layout.places.get(&Place::Object(at)).copied();
        let inside = |rect: Rect| {
            layout.frames.iter().position(|frame| {
                (frame.x..=frame.right()).contains(&rect.x)
                    && (frame.y..=frame.bottom()).contains(&rect.y)
            })
        };
        let can = |role: &Option<Role>| role.is_some();
        let parties = channel.parties.iter().map(|party| PartyOf {
            pid: party.pid,
            ends: &party.ends,
            reads: can(&party.reads),
            writes: can(&party.writes),
            hold: party.hold(),
            why: party.why(),
        });
        ChannelOf {
            objects: &channel.objects,
            kind: channel.kind,
            title: words::title(channel),
            short: words::label_of(channel, LONGEST_LABEL),
            state: channel.state.as_deref(),
            parties: parties.collect(),
            flows: channel.flows(),
            hold: channel.hold(),
            full: channel.is_full(),
            stuck: channel.stuck,
            leak: &channel.leak,
            rect,
            home: rect.and_then(inside),
        }
    });
    each.collect()
}

fn objects<'a>(snapshot: &'a Snapshot, leaks: &'a [Leaking], users: &Users) -> Vec<ObjectOf<'a>> {
    let leaks: HashMap<&str, &Leaking> =
        leaks.iter().map(|leak| (leak.object.as_str(), leak)).collect();
    let each = snapshot.objects.iter().take(MOST_OBJECTS).map(|object| {
        let mut pids: Vec<u32> = object.ends.iter().map(|end| end.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        let leak = leaks.get(object.id.as_str());
        ObjectOf {
            id: &object.id,
            kind: object.kind,
            name: object.names.last().map_or("", String::as_str),
            owner: object.uid.map(|uid| users.name(uid)).unwrap_or_default(),
            size: object.size,
            fill: object.fill,
            state: object.state.as_deref(),
            pids,
            leak: leak
                .map(|leak| leak.reasons.iter().map(String::as_str).collect())
                .unwrap_or_default(),
        }
    });
    each.collect()
}

/// What its threads wait in: `read for pipe:1`, each once.
fn waits(process: &Process) -> Vec<String> {
    const MOST: usize = 8;
    let mut all: Vec<String> = Vec::new();
    for wait in process.threads.iter().filter_map(|thread| thread.wait.as_ref()) {
        let on = match &wait.on {
            WaitOn::Objects(targets) => {
                let mut ids: Vec<&str> = targets.iter().map(|t| t.object.as_str()).collect();
                ids.dedup();
                let more = ids.len().saturating_sub(4);
                ids.truncate(4);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!(" for {}{more}", ids.join(" "))
            }
            WaitOn::Children(_) => " for a child".to_owned(),
            WaitOn::Signal => " for a signal".to_owned(),
            WaitOn::Time => " for time to pass".to_owned(),
            WaitOn::Other(_) => String::new(),
        };
        let text = format!("{}{on}", wait.call);
        if !all.contains(&text) && all.len() < MOST {
            all.push(text);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_script_element() {
        let json = r#"{"a":"</script><!-- <script>&\u2028"}"#.replace("\\u2028", "\u{2028}");
        let safe = safe_in_script(&json);
        assert!(!safe.contains(['<', '>', '&', '\u{2028}']), "{safe}");
        let value: serde_json::Value = serde_json::from_str(&safe).expect("JSON");
        assert_eq!(value["a"], "</script><!-- <script>&\u{2028}");
    }

    #[test]
    fn the_page_has_its_places() {
        for place in ["{{HEAD}}", "{{DATA}}", "{{SCRIPT}}"] {
            assert_eq!(HTML.matches(place).count(), 1, "{place}");
        }
        // They stand in an element each, which nothing in them may end.
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
        let page = fill("h", "{{SCRIPT}}", "s");
        assert!(page.contains("{{SCRIPT}}"), "what is in the data is data");
    }
}
