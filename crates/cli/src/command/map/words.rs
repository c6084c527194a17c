//! What all forms of the map say in the same words.

use switchboard_inspect::analysis::graph::{Channel, Graph, Node, Party};

/// `12 processes`.
pub(super) fn processes(count: usize) -> String {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    switchboard_inspect::text::counted(count, "process", "processes")
}

/// The label of a process of the graph.
pub(super) fn label(graph: &Graph, pid: u32) -> String {
    graph.process(pid).map_or_else(|| format!("process {pid}"), |node| node.label.clone())
}

/// `pipe:4471 (12/65536)`, with a name that people know it by.
pub(super) fn title(channel: &Channel) -> String {
    let mut text = channel.objects.join(" = ");
    if let Some(name) = channel.names.last() {
        text += &format!(" {name}");
    }
    let amounts: Vec<String> = amounts(channel).into_iter().flatten().collect();
    if !amounts.is_empty() {
        text += &format!(" ({})", amounts.join(", "));
    }
    text
}

/// What is written in a box of so many characters: the kind with the end of a name, which says more than its beginning; else the title.
pub(super) fn label_of(channel: &Channel, most: usize) -> String {
    let Some(name) = channel.names.last() else { return title(channel) };
    let kind = channel.kind.name();
    let room = most.saturating_sub(kind.len() + 1);
    let count = name.chars().count();
    if count <= room {
        return format!("{kind} {name}");
    }
    let end: String = name.chars().skip(count + 1 - room.max(1)).collect();
    format!("{kind} …{end}")
}

/// How full each of its objects is.
fn amounts(channel: &Channel) -> Vec<Option<String>> {
    let each = channel.fill.iter().zip(&channel.size);
    each.map(|(fill, size)| match (fill, size) {
        (Some(fill), Some(size)) if !channel.kind.is_memory() => Some(format!("{fill}/{size}")),
        (Some(fill), None) => Some(fill.to_string()),
        _ => None,
    })
    .collect()
}

/// What is said of a process besides its name.
pub(super) fn marks(node: &Node) -> Vec<&'static str> {
    let mut marks = Vec::new();
    if node.deadlocked {
        marks.push("DEADLOCKED");
    } else if !node.stuck.is_empty() {
        marks.push("STUCK");
    }
    marks.extend(node.marks.iter().map(|mark| match *mark {
        "unreadable" => "what it holds cannot be seen",
        mark => mark,
    }));
    marks
}

/// `->`, as seen from one end.
pub(super) fn arrow(out: bool, into: bool) -> &'static str {
    match (out, into) {
        (true, true) => "<->",
        (true, false) => "->",
        (false, true) => "<-",
        (false, false) => "--",
    }
}

/// The same, of a process at an object.
pub(super) fn arrow_of(party: &Party) -> &'static str {
    arrow(party.writes.is_some(), party.reads.is_some())
}

/// `reads`, `writes`, `both`.
pub(super) fn way(party: &Party) -> &'static str {
    match (party.reads.is_some(), party.writes.is_some()) {
        (true, true) => "reads and writes",
        (true, false) => "reads",
        (false, true) => "writes",
        (false, false) => "has it",
    }
}

/// A text that takes no more than so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::map::world;

    #[test]
    fn a_label_keeps_the_end_of_a_name() {
        let graph = world::graph(60, 4);
        let named = graph.channels.iter().find(|one| !one.names.is_empty()).expect("memory");
        let name = named.names.last().expect("a name");
        assert!(label_of(named, 100).ends_with(name.as_str()));
        let short = label_of(named, 20);
        assert_eq!(short.chars().count(), 20, "{short}");
        let end: String = name.chars().skip(name.chars().count() - 6).collect();
        assert!(short.starts_with("posix-shm …") && short.ends_with(&end), "{short}");
    }
}
