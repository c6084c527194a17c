//! All about one process: what `ps` says of it, who it is, each thread's wait, and each object that it has, with whom.

use switchboard_inspect::analysis::peers::{others, via};
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{stuck, why};
use switchboard_inspect::{Object, Process, Snapshot};

use crate::command::ps::Tree;
use crate::exit_code::Exit;
use crate::machine::{Source, Users, fill};
use crate::output::{Outcome, print, print_json};

/// Shows the process of this id.
pub(super) fn show(snapshot: &Snapshot, pid: u32, source: &Source) -> Outcome {
    let Some(process) = snapshot.process(pid) else { return Ok(Exit::Nothing) };
    let objects: Vec<&Object> = snapshot.objects_of(pid).collect();
    if source.json {
        print_json(&serde_json::json!({
            "coverage": snapshot.coverage, "process": process, "objects": objects,
        }))?;
    } else {
        print(&text(snapshot, process, &objects, &Users::of(source)))?;
    }
    Ok(Exit::Done)
}

fn text(snapshot: &Snapshot, process: &Process, objects: &[&Object], users: &Users) -> String {
    let mut text = Tree::new(snapshot, true).text(process.pid, 0, users);
    let mut line = |name: &str, value: String| text += &format!("    {name:<14}  {value}\n");
    let parent = if process.parent == 0 {
        "none, or one of another PID namespace".to_owned()
    } else {
        snapshot.label(process.parent)
    };
    line("parent", parent);
    line("session", process.session.to_string());
    line("user, group", format!("{}, {}", users.name(process.uid), process.gid));
    if !process.cgroup.is_empty() {
        line("control group", process.cgroup.clone());
    }
    let spaces = process.namespaces;
    let all = [("net", spaces.net), ("ipc", spaces.ipc), ("pid", spaces.pid), ("mnt", spaces.mnt)];
    let all = all.map(|(name, inode)| inode.map(|inode| format!("{name} {inode}")));
    let all: Vec<String> = all.into_iter().flatten().collect();
    if !all.is_empty() {
        line("namespaces", all.join(", "));
    }
    if process.readable && !process.kernel {
        line("descriptors", process.descriptors.to_string());
    }
    if process.io_uring {
        line("io_uring", "what it does there cannot be seen".to_owned());
    }
    let index = Index::new(snapshot);
    let set = stuck::set(&index);
    for thread in &process.threads {
        line("thread", why::sentence(&index, &set, process, thread));
    }
    for object in objects {
        line("has", held(snapshot, object, process.pid));
    }
    text
}

/// `fd:3 pipe:4471 0/65536 with logger[790] fd:0`.
fn held(snapshot: &Snapshot, object: &Object, pid: u32) -> String {
    const MOST: usize = 4;
    let own: Vec<String> = object.ends.iter().filter(|end| end.pid == pid).map(via).collect();
    let mut text = format!("{} {}", own.join(" "), object.id);
    for more in object.names.last().map(String::as_str).into_iter().chain(object.state.as_deref()) {
        text += &format!(" {more}");
    }
    if object.fill.is_some() {
        text += &format!(" {}", fill(object));
    }
    let with = others(snapshot, object, pid);
    let mut shown: Vec<String> = with
        .iter()
        .take(MOST)
        .map(|other| format!("{} {}", snapshot.label(other.end.pid), via(other.end)))
        .collect();
    if with.len() > MOST {
        shown.push(format!("{} more", with.len() - MOST));
    }
    if !shown.is_empty() {
        text += &format!(", with {}", shown.join(", "));
    }
    text
}
