//! The map in the language of graphviz.
//!
//! Source: <https://graphviz.org/doc/info/lang.html>. In a quoted string, `"` and `\` are escaped: a label may hold `\n` or `\N`, which
//! graphviz would read as its own.

use std::fmt::Write;

use switchboard_inspect::analysis::graph::{Channel, Graph, Hold};

use super::layout::{Layout, Place};
use super::words;

const RED: &str = "#c0241c";

/// The whole text.
pub(super) fn dot(graph: &Graph, groups: &[String]) -> String {
    let mut text = String::from(
        "digraph map {\n  rankdir=LR;\n  node [shape=box, fontname=\"monospace\", fontsize=10];\n  \
         edge [fontname=\"monospace\", fontsize=8, color=\"#667788\"];\n",
    );
    for (at, (group, name)) in graph.groups.iter().zip(groups).enumerate() {
        let _ = writeln!(text, "  subgraph cluster_{at} {{\n    label={};", quoted(name));
        for node in group.processes.iter().filter_map(|&pid| graph.process(pid)) {
            let mut label = node.label.clone();
            for mark in words::marks(node) {
                label += &format!(", {mark}");
            }
            let wrong = !node.stuck.is_empty() || node.deadlocked;
            let style = if wrong {
                format!(", color=\"{RED}\", penwidth=2, tooltip={}", quoted(&node.stuck.join("; ")))
            } else {
                String::new()
            };
            let _ = writeln!(text, "    p{} [label={}{style}];", node.pid, quoted(&label));
        }
        text += "  }\n";
    }
    for (at, channel) in graph.channels.iter().enumerate().filter(|(_, one)| one.is_node()) {
        let color = if is_wrong(channel) { format!(", color=\"{RED}\"") } else { String::new() };
        let label = quoted(&words::title(channel));
        let _ = writeln!(text, "  c{at} [label={label}, shape=ellipse{color}];");
    }
    // The same lines as everywhere else; where they run is graphviz's.
    for line in Layout::new(graph).lines {
        let [a, b] = line.ends.map(|place| match place {
            Place::Process(pid) => format!("p{pid}"),
            Place::Object(at) => format!("c{at}"),
        });
        let direction = match line.arrows {
            [true, true] => "both",
            [true, false] => "back",
            [false, true] => "forward",
            [false, false] => "none",
        };
        let style = match line.hold {
            Hold::Used => "solid",
            Hold::Perhaps => "dotted",
            Hold::Held => "dashed",
        };
        let mut options = format!("dir={direction}, style={style}");
        if matches!(line.ends[1], Place::Process(_)) {
            let _ = write!(options, ", label={}", quoted(&line.text));
        }
        if line.stuck || line.leaks {
            let _ = write!(options, ", color=\"{RED}\", penwidth=2");
        }
        let _ = writeln!(text, "  {a} -> {b} [{options}];");
    }
    text += "}\n";
    text
}

fn is_wrong(channel: &Channel) -> bool {
    channel.stuck || !channel.leak.is_empty()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_graphviz_would_take_for_its_own_is_escaped() {
        for (text, expected) in [
            ("plain", "\"plain\""),
            ("a\"b", "\"a\\\"b\""),
            ("a\\nb", "\"a\\\\nb\""),
            ("\\", "\"\\\\\""),
            ("];}", "\"];}\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
