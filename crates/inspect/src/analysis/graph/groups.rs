//! Groups of processes: by tree, user, or container.
//!
//! Source: docs/design/map.md, "Groups"; `cgroups(7)`, `namespaces(7)`.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Graph;
use crate::model::{Process, Snapshot};

/// What makes a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// A process that the machine's first one started or took over, with all that descend from it.
    #[default]
    Tree,
    /// The effective user.
    User,
    /// The control group of a container, or the namespaces.
    Container,
}

/// What its processes have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The first process of the tree.
    Tree(u32),
    /// The user.
    User(u32),
    /// None: the machine itself.
    Container(Option<String>),
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What its processes have in common.
    pub key: Key,
    /// That in words.
    pub name: String,
    /// Them, by id.
    pub processes: Vec<u32>,
}

impl Graph {
    /// Puts the processes into groups, in the order of the first process of each.
    pub(super) fn group(&mut self, snapshot: &Snapshot, grouping: Grouping) {
        let roots = if grouping == Grouping::Tree { roots(snapshot) } else { HashMap::new() };
        let home = home(snapshot);
        let mut known: BTreeMap<Key, usize> = BTreeMap::new();
        self.groups.clear();
        for node in &mut self.processes {
            let Some(process) = snapshot.process(node.pid) else { continue };
            let key = match grouping {
                Grouping::Tree => Key::Tree(roots.get(&node.pid).copied().unwrap_or(node.pid)),
                Grouping::User => Key::User(process.uid),
                Grouping::Container => Key::Container(container(process, home)),
            };
            let groups = &mut self.groups;
            node.group = *known.entry(key.clone()).or_insert_with(|| {
                let name = name(snapshot, &key);
                groups.push(Group { key, name, processes: Vec::new() });
                groups.len() - 1
            });
            self.groups[node.group].processes.push(node.pid);
        }
    }
}

fn name(snapshot: &Snapshot, key: &Key) -> String {
    match key {
        Key::Tree(pid) => snapshot.label(*pid),
        Key::User(uid) => format!("user {uid}"),
        Key::Container(None) => "this machine".to_owned(),
        Key::Container(Some(name)) => name.clone(),
    }
}

/// The first process of each one's tree: below the machine's first one, or one whose parent is not seen.
pub(super) fn roots(snapshot: &Snapshot) -> HashMap<u32, u32> {
    walk(snapshot).into_iter().map(|(pid, (root, _))| (pid, root)).collect()
}

/// How far each is from the first process of its tree.
pub(super) fn depths(snapshot: &Snapshot) -> HashMap<u32, usize> {
    walk(snapshot).into_iter().map(|(pid, (_, depth))| (pid, depth)).collect()
}

fn walk(snapshot: &Snapshot) -> HashMap<u32, (u32, usize)> {
    let mut found: HashMap<u32, (u32, usize)> = HashMap::new();
    for process in &snapshot.processes {
        let mut path = Vec::new();
        let mut at = process;
        let (root, mut depth) = loop {
            if let Some(&(root, depth)) = found.get(&at.pid) {
                break (root, depth + 1);
            }
            path.push(at.pid);
            match snapshot.process(at.parent) {
                // A saved snapshot may have loops.
                Some(parent) if parent.pid > 1 && !path.contains(&parent.pid) => at = parent,
                _ => break (at.pid, 0),
            }
        };
        for pid in path.into_iter().rev() {
            found.insert(pid, (root, depth));
            depth += 1;
        }
    }
    found
}

type Home = (Option<u64>, Option<u64>);

/// The namespaces of the machine itself: those of its first process, or of who looked.
fn home(snapshot: &Snapshot) -> Home {
    let of = |pid| snapshot.process(pid).map(|process| process.namespaces);
    let known = |pid| of(pid).filter(|spaces| spaces.pid.is_some() || spaces.mnt.is_some());
    let spaces = known(1).or_else(|| known(snapshot.viewer.pid)).unwrap_or_default();
    (spaces.pid, spaces.mnt)
}

/// The container of a process; none: the machine itself, or nothing is known.
fn container(process: &Process, home: Home) -> Option<String> {
    if let Some(name) = container_of_group(&process.cgroup) {
        return Some(name);
    }
    // A mount namespace of its own alone is what a service manager gives to a service.
    let space = process.namespaces.pid.filter(|pid| home.0.is_some_and(|home| home != *pid))?;
    Some(format!("PID namespace {space}"))
}

/// What a control group's path says: `docker 4f3a…`; the inmost one counts.
fn container_of_group(path: &str) -> Option<String> {
    const ENGINES: &[(&str, &str)] = &[
        ("docker", "docker"),
        ("libpod", "podman"),
        ("cri-containerd", "containerd"),
        ("crio", "cri-o"),
        ("nerdctl", "nerdctl"),
    ];
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for (at, part) in parts.iter().enumerate().rev() {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        if let Some((engine, id)) = part.rsplit_once('-')
            && is_id(id)
            && let Some((_, name)) = ENGINES.iter().find(|(prefix, _)| engine.ends_with(prefix))
        {
            return Some(format!("{name} {}", &id[..12]));
        }
        if is_id(part) {
            let before = at.checked_sub(1).and_then(|at| parts.get(at)).copied().unwrap_or("");
            let engine = ENGINES.iter().find(|(prefix, _)| before.contains(prefix));
            return Some(format!("{} {}", engine.map_or("container", |e| e.1), &part[..12]));
        }
        for (prefix, name) in [("lxc.payload.", "lxc"), ("machine-", "machine")] {
            if let Some(rest) = part.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
                return Some(format!("{name} {rest}"));
            }
        }
        if at > 0 && parts[at - 1] == "lxc" {
            return Some(format!("lxc {part}"));
        }
    }
    None
}

/// Whether it is the id of a container: 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_by_their_control_group() {
        let id = "4f3a0123456789ab4f3a0123456789ab4f3a0123456789ab4f3a0123456789ab";
        for (path, expected) in [
            (format!("/system.slice/docker-{id}.scope"), Some("docker 4f3a01234567")),
            (format!("/docker/{id}"), Some("docker 4f3a01234567")),
            (format!("/machine.slice/libpod-{id}.scope/container"), Some("podman 4f3a01234567")),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                Some("containerd 4f3a01234567"),
            ),
            (format!("/kubepods/besteffort/pod1/{id}"), Some("container 4f3a01234567")),
            ("/lxc.payload.web/init.scope".to_owned(), Some("lxc web")),
            ("/lxc/web".to_owned(), Some("lxc web")),
            ("/machine.slice/machine-web.scope".to_owned(), Some("machine web")),
            ("/user.slice/user-1000.slice/session-2.scope".to_owned(), None),
            ("/".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(container_of_group(&path).as_deref(), expected, "{path}");
        }
    }
}
