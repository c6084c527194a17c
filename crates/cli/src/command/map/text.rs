//! The map as text: group by group, each process with its connections.
//!
//! Source: docs/design/map.md.

use std::fmt::Write;

use switchboard_inspect::analysis::graph::{Channel, Graph, Group, Hold, Node};

use super::words;

/// The whole text.
pub(super) fn text(graph: &Graph, groups: &[String]) -> String {
    let mut text = String::new();
    let channels = graph.by_process();
    for (group, name) in graph.groups.iter().zip(groups) {
        if !text.is_empty() {
            text.push('\n');
        }
        let count = group.processes.len();
        let _ = writeln!(text, "{name}: {}", words::processes(count));
        let mut quiet = Vec::new();
        for node in in_order(graph, group) {
            let own = channels.get(&node.pid).map_or(&[][..], Vec::as_slice);
            if own.is_empty() && node.stuck.is_empty() {
                quiet.push(node.label.as_str());
                continue;
            }
            let marks: String = words::marks(node).iter().map(|mark| format!(", {mark}")).collect();
            let _ = writeln!(text, "  {}{marks}", node.label);
            for sentence in &node.stuck {
                let _ = writeln!(text, "    ! {sentence}");
            }
            for &at in own {
                text += &connection(graph, &graph.channels[at], node);
            }
        }
        if !quiet.is_empty() {
            const MOST: usize = 12;
            let more = quiet.len().saturating_sub(MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            quiet.truncate(MOST);
            let _ = writeln!(text, "  without connections: {}{more}", quiet.join(", "));
        }
    }
    let shared: Vec<&Channel> = graph.channels.iter().filter(|one| one.is_node()).collect();
    if !shared.is_empty() {
        text += "\nshared objects:\n";
    }
    for channel in shared {
        let _ = writeln!(text, "  {}", words::title(channel));
        for why in &channel.leak {
            let _ = writeln!(text, "    ! leaks: {why}");
        }
        for hold in [Hold::Used, Hold::Perhaps, Hold::Held] {
            let each = channel.parties.iter().filter(|party| party.hold() == hold);
            let each: Vec<String> = each
                .map(|party| format!("{} ({})", words::label(graph, party.pid), words::way(party)))
                .collect();
            if !each.is_empty() {
                let _ = writeln!(text, "    {}: {}", hold.words(), each.join(", "));
            }
        }
    }
    text
}

/// The processes of a group, children after their parents as far as the ids say so.
fn in_order<'a>(graph: &'a Graph, group: &'a Group) -> impl Iterator<Item = &'a Node> {
    group.processes.iter().filter_map(|&pid| graph.process(pid))
}

/// A line for one connection of a process.
fn connection(graph: &Graph, channel: &Channel, node: &Node) -> String {
    let Some(own) = channel.parties.iter().find(|party| party.pid == node.pid) else {
        return String::new();
    };
    let mut text = String::from("    ");
    if channel.is_node() {
        let _ = write!(text, "{} {}", words::arrow_of(own), words::title(channel));
        let _ = write!(text, ", with {} others", channel.parties.len().saturating_sub(1));
    } else {
        let flows = channel.flows();
        let out = flows.iter().any(|flow| flow.from == node.pid);
        let into = flows.iter().any(|flow| flow.to == node.pid);
        let other = channel.parties.iter().find(|party| party.pid != node.pid);
        let label = other.map_or_else(String::new, |party| words::label(graph, party.pid));
        let _ = write!(text, "{} {label}  {}", words::arrow(out, into), words::title(channel));
        if let Some(other) = other.filter(|other| other.hold() < Hold::Used) {
            let _ = write!(text, ", there {}", other.hold().words());
        }
    }
    match own.hold() {
        Hold::Held => text += ", merely held: inherited",
        Hold::Perhaps => text += ", perhaps not used",
        Hold::Used => {}
    }
    if channel.is_full() {
        text += ", FULL";
    }
    if channel.stuck {
        text += ", somebody stuck waits for it";
    }
    for why in &channel.leak {
        let _ = write!(text, ", leaks: {why}");
    }
    text.push('\n');
    text
}
