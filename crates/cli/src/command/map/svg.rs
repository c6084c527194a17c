//! The map as a picture: SVG that needs no browser and no script.
//!
//! Source: <https://www.w3.org/TR/SVG11/>; docs/design/map.md, "Layout".

use std::fmt::Write;

use switchboard_inspect::analysis::graph::{Graph, Hold};

use super::layout::{CHARACTER, LONGEST_LABEL, Layout, Place, Rect};
use super::lines::Line;
use super::words::{self, cut};

/// Around everything.
const MARGIN: f64 = 24.0;
/// What is wrong is written below, so many lines at most.
const MOST_SENTENCES: usize = 40;
const SENTENCE_HEIGHT: f64 = 17.0;
const NARROWEST: f64 = 640.0;

/// The whole picture; `title` is what it shows, `foot` what there is to say of all of it.
pub(super) fn svg(graph: &Graph, groups: &[String], title: &str, foot: &[String]) -> String {
    let layout = Layout::new(graph);
    let wrong = wrong(graph);
    let width = (layout.width + 2.0 * MARGIN + 90.0).max(NARROWEST);
    let lines = wrong.len() + foot.len() + 2;
    let below = f64::from(u32::try_from(lines).unwrap_or(u32::MAX)) * SENTENCE_HEIGHT;
    let top = MARGIN + 30.0;
    let height = top + layout.height + MARGIN + below + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" font-size=\"12\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n{MARKERS}\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{1}\" font-size=\"14\" font-weight=\"bold\">{0}</text>\n\
         <g transform=\"translate({MARGIN} {top})\">\n",
        escaped(title),
        MARGIN + 6.0
    );
    for (frame, name) in
        layout.frames.iter().zip(groups.iter().map(String::as_str).chain(["nobody has these"]))
    {
        if frame.w > 0.0 {
            let most = characters(frame.w - 16.0);
            let _ = writeln!(
                text,
                "<rect class=\"group\" {} rx=\"8\"/><text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                place(frame),
                frame.x + 10.0,
                frame.y + 18.0,
                escaped(&cut(name, most))
            );
        }
    }
    layout.lines.iter().for_each(|line| draw_line(&mut text, graph, line));
    for (place, rect) in &layout.places {
        draw_place(&mut text, graph, *place, rect);
    }
    for line in &layout.lines {
        if let Some(label) = &line.label {
            let _ = writeln!(
                text,
                "<rect class=\"paper\" {}/><text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                place(label),
                label.x + 3.0,
                label.y + 10.0,
                escaped(&line.text)
            );
        }
    }
    text += "</g>\n";
    let mut y = top + layout.height + MARGIN + SENTENCE_HEIGHT;
    let most = characters(width - 2.0 * MARGIN);
    for (class, sentence) in wrong
        .iter()
        .map(|sentence| ("wrong", sentence.as_str()))
        .chain([("foot", LEGEND)])
        .chain(foot.iter().map(|sentence| ("foot", sentence.as_str())))
    {
        let shown = escaped(&cut(sentence, most));
        let _ = writeln!(
            text,
            "<text class=\"{class}\" x=\"{MARGIN}\" y=\"{y:.1}\">{shown}<title>{}</title></text>",
            escaped(sentence)
        );
        y += SENTENCE_HEIGHT;
    }
    text += "</svg>\n";
    text
}

const LEGEND: &str = "line: used · thin: perhaps used · dashed: merely held, inherited · rounded: an object of several processes · red: stuck or leaking";

const STYLE: &str = "\
.group{fill:#f4f6f8;stroke:#b8c2cc}.name{font-weight:bold;fill:#445566}\
.process{fill:#ffffff;stroke:#556677}.object{fill:#fff7e0;stroke:#b09040}\
.line{fill:none;stroke:#5b7083;stroke-width:1.4}.perhaps{stroke-width:.8;stroke:#8899aa}\
.held{stroke-width:.9;stroke:#99a5b1;stroke-dasharray:5 4}\
.red{stroke:#c0241c}.process.red,.object.red{fill:#fdeceb;stroke-width:2}.line.red{stroke-width:2}\
.paper{fill:#ffffff;fill-opacity:.9}.label{font-size:10px;fill:#334455}\
.wrong{fill:#c0241c}.foot{fill:#667788}";

const MARKERS: &str = "<defs>\
<marker id=\"to\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#5b7083\"/></marker>\
<marker id=\"from\" viewBox=\"0 0 8 8\" refX=\"1\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M8 0L0 4L8 8z\" fill=\"#5b7083\"/></marker>\
</defs>\n";

fn draw_line(text: &mut String, graph: &Graph, line: &Line) {
    let mut class = match line.hold {
        Hold::Used => "line".to_owned(),
        Hold::Perhaps => "line perhaps".to_owned(),
        Hold::Held => "line held".to_owned(),
    };
    if line.stuck || line.leaks {
        class += " red";
    }
    let start = if line.arrows[0] { " marker-start=\"url(#from)\"" } else { "" };
    let end = if line.arrows[1] { " marker-end=\"url(#to)\"" } else { "" };
    let about: Vec<String> = line
        .channels
        .iter()
        .take(20)
        .filter_map(|&at| graph.channels.get(at))
        .map(words::title)
        .collect();
    let _ = writeln!(
        text,
        "<path class=\"{class}\" d=\"{}\"{start}{end}><title>{}</title></path>",
        line.path,
        escaped(&about.join(", "))
    );
}

fn draw_place(text: &mut String, graph: &Graph, at: Place, rect: &Rect) {
    let (class, label, about, round) = match at {
        Place::Process(pid) => {
            let Some(node) = graph.process(pid) else { return };
            let wrong = node.deadlocked || !node.stuck.is_empty();
            let mut about = vec![node.label.clone()];
            about.extend(words::marks(node).into_iter().map(str::to_owned));
            about.extend(node.stuck.iter().cloned());
            let class = if wrong { "process red" } else { "process" };
            (class, node.label.clone(), about.join("; "), 3.0)
        }
        Place::Object(number) => {
            let Some(channel) = graph.channels.get(number) else { return };
            let wrong = channel.stuck || !channel.leak.is_empty();
            let class = if wrong { "object red" } else { "object" };
            let label = words::label_of(channel, LONGEST_LABEL);
            (class, label, words::title(channel), rect.h / 2.0)
        }
    };
    let _ = writeln!(
        text,
        "<g><title>{}</title><rect class=\"{class}\" {} rx=\"{round}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        escaped(&about),
        place(rect),
        rect.x + 7.0,
        rect.middle() + 4.0,
        escaped(&cut(&label, LONGEST_LABEL))
    );
}

/// What is wrong, a sentence each, and how many more there are.
fn wrong(graph: &Graph) -> Vec<String> {
    let stuck = graph.processes.iter().flat_map(|node| node.stuck.iter().cloned());
    let leaking = graph.channels.iter().filter(|channel| !channel.leak.is_empty());
    let leaks = leaking.map(|one| format!("{} leaks: {}", words::title(one), one.leak.join("; ")));
    let mut all: Vec<String> = stuck.chain(leaks).collect();
    if all.len() > MOST_SENTENCES {
        let more = all.len() - MOST_SENTENCES;
        all.truncate(MOST_SENTENCES);
        all.push(format!("… and {more} more"));
    }
    all
}

fn characters(width: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let most = (width / CHARACTER).max(1.0) as usize;
    most
}

fn place(rect: &Rect) -> String {
    format!(
        "x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"",
        rect.x, rect.y, rect.w, rect.h
    )
}

/// Text as XML writes it.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML 1.0 has no place for these, escaped or not.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("<a b=\"c\">&'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
        assert_eq!(escaped("a\u{1b}b\u{ffff}"), "a\u{fffd}b\u{fffd}");
    }
}
