//! The graph of small worlds: what is an edge and what an object, who uses an end and who merely holds it, groups, what is reached, and
//! what is wrong.

use switchboard_inspect::analysis::graph::{Channel, Graph, Grouping, Hold, Options, Role};
use switchboard_inspect::{Kind, Object, Snapshot};

use crate::world::world;

fn name(snapshot: &Snapshot, pid: u32) -> String {
    snapshot.process(pid).map_or_else(|| pid.to_string(), |process| process.name.clone())
}

fn mark(hold: Hold) -> &'static str {
    match hold {
        Hold::Held => "~",
        Hold::Perhaps => "?",
        Hold::Used => "",
    }
}

/// `a -> b pipe:1`, `a <-> b unix:1+unix:2`, `a -- b tcp:1`, with `~` where an end is merely held and `?` where that cannot be told;
/// `pipe:1: a w, b r, c w~`.
fn in_words(snapshot: &Snapshot, channel: &Channel) -> String {
    let id = channel.objects.join("+");
    let mut text = if channel.is_node() {
        let each = channel.parties.iter().map(|party| {
            let role = |letter, role: &Option<Role>| {
                role.as_ref().map(|role| format!("{letter}{}", mark(role.hold))).unwrap_or_default()
            };
            let roles = format!("{}{}", role('r', &party.reads), role('w', &party.writes));
            format!("{} {roles}", name(snapshot, party.pid))
        });
        format!("{id}: {}", each.collect::<Vec<_>>().join(", "))
    } else {
        let [a, b] = [&channel.parties[0], &channel.parties[1]];
        let flows = channel.flows();
        let arrow = match &flows[..] {
            [] => "--",
            [one] if one.from == a.pid => "->",
            [_] => "<-",
            _ => "<->",
        };
        let hold = flows.iter().map(|flow| flow.hold).max().unwrap_or(channel.hold());
        format!("{} {arrow}{} {} {id}", name(snapshot, a.pid), mark(hold), name(snapshot, b.pid))
    };
    if channel.stuck {
        text += ", stuck";
    }
    for why in &channel.leak {
        text += &format!(", leaks: {why}");
    }
    text
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let snapshot = Snapshot::from_json(&world(text).to_json()).expect("a snapshot");
    let graph = Graph::new(&snapshot, &Options::default());
    let found: Vec<String> =
        graph.channels.iter().map(|channel| in_words(&snapshot, channel)).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn two_processes_are_an_edge() {
    check(
        "a writes pipe:1; waits time
         b reads pipe:1; waits data pipe:1",
        &["a -> b pipe:1"],
    );
    check(
        "a reads pipe:1; waits time
         b writes pipe:1; waits time",
        &["a <- b pipe:1"],
    );
    check(
        "a has unix:1; waits time
         b has unix:2; waits time
         ! peers unix:1 unix:2",
        &["a <-> b unix:1+unix:2"],
    );
    check(
        "a maps memfd:1
         b maps memfd:1",
        &["a <-> b memfd:1"],
    );
    // Nobody else: no channel. A pair that one process has both of is none either.
    check(
        "a reads pipe:1; writes pipe:1
         b has unix:1 unix:2
         ! peers unix:1 unix:2",
        &[],
    );
    // Nobody reads what the two write.
    check(
        "a writes pipe:1
         b writes pipe:1",
        &["a -- b pipe:1"],
    );
}

#[test]
fn more_than_two_share_an_object() {
    check(
        "a writes pipe:1; waits time
         b reads pipe:1; waits data pipe:1
         c writes pipe:1; waits time",
        &["pipe:1: a w, b r, c w"],
    );
    check(
        "a has unix:1; waits data unix:1
         b has unix:2; waits data unix:2
         c has unix:2; waits data unix:2
         ! peers unix:1 unix:2",
        &["unix:1+unix:2: a rw, b rw, c rw, stuck"],
    );
}

#[test]
fn sockets_with_an_address() {
    // Two senders to one address: each a channel of its own.
    check(
        "server has unix:9; waits data unix:9
         a has unix:1; waits time
         b has unix:2; waits time
         ! sends unix:1 unix:9
         ! sends unix:2 unix:9",
        &["server <- a unix:1+unix:9", "server <- b unix:2+unix:9"],
    );
    // A client that was not accepted talks to who listens.
    check(
        "server has unix:9; waits time
         client has unix:1; waits acceptance unix:1
         ! listens unix:9
         ! pending unix:1 at unix:9",
        &["server <-> client unix:1+unix:9, stuck"],
    );
    // Whoever listens at the same socket as another hears nothing of him.
    check(
        "a has tcp:9; waits client tcp:9
         b has tcp:9; waits client tcp:9
         ! listens tcp:9",
        &["a -- b tcp:9"],
    );
}

#[test]
fn an_inherited_end_is_held_and_not_used() {
    // The parent keeps the writer's end; a sibling that sleeps has both.
    check(
        "parent reads pipe:1; writes pipe:1; waits data pipe:1
         child child of parent; writes pipe:1; waits room pipe:1
         sibling child of parent; reads pipe:1; writes pipe:1; waits time",
        &["pipe:1: parent rw~, child w, sibling r~w~, stuck"],
    );
    // Who waits to read from a pipe is not who is to write to it.
    check(
        "parent writes pipe:1; waits children child
         child child of parent; reads pipe:1; writes pipe:1; waits data pipe:1",
        &["parent -> child pipe:1, stuck"],
    );
    // The workers accept; who started them does not.
    check(
        "master has tcp:9; waits children one two
         one child of master; has tcp:9; waits client tcp:9
         two child of master; has tcp:9; waits client tcp:9
         ! listens tcp:9",
        &["tcp:9: master r~w~, one rw, two rw"],
    );
    // The parent has the other end, by the FIFO's name: that says nothing of this one.
    check(
        "parent writes fifo:1; waits children shell
         shell child of parent; reads pipe:7 fifo:1; waits children cat
         cat child of shell; reads pipe:7 fifo:1; waits data fifo:1
         sleep child of shell; reads pipe:7 fifo:1; waits time",
        &[
            "fifo:1: parent w, shell r~, cat r, sleep r~, stuck",
            "pipe:7: shell r?, cat r?, sleep r?",
        ],
    );
    // A number of its own: somebody gave it to it on purpose.
    check(
        "shell reads pipe:1; writes pipe:1; waits children a
         a child of shell; writes pipe:7 pipe:1; waits time
         b child of shell; stdin pipe:1; waits data pipe:1",
        &["pipe:1: shell r~w~, a w, b r"],
    );
}

#[test]
fn what_cannot_be_told_is_not_called_held() {
    // Nobody of the family was seen using it.
    check(
        "parent writes pipe:1; waits time
         child child of parent; writes pipe:1; waits time
         reader reads pipe:1; waits data pipe:1",
        &["pipe:1: parent w?, child w?, reader r"],
    );
    // One that runs may do so any moment.
    check(
        "parent reads pipe:1; writes pipe:2; waits data pipe:1
         child child of parent; reads pipe:1; runs
         writer writes pipe:1; waits time",
        &["pipe:1: parent r, child r?, writer w"],
    );
    // What cannot be looked into.
    check(
        "parent reads pipe:1; waits data pipe:1
         child child of parent; reads pipe:1; unreadable
         writer writes pipe:1; waits time",
        &["pipe:1: parent r, child r?, writer w"],
    );
    // Standard streams are there to be used.
    check(
        "shell stdout pipe:1; waits children a
         a child of shell; stdout pipe:1; waits room pipe:1
         reader reads pipe:1; waits time",
        &["pipe:1: shell w?, a w, reader r, stuck"],
    );
    // A FIFO may have been opened by its name.
    check(
        "shell reads fifo:1; waits data fifo:1
         a child of shell; reads pipe:7 fifo:1; waits time
         b child of shell; reads pipe:7 pipe:8 fifo:1; waits time
         c child of shell; reads fifo:1; waits time",
        &["fifo:1: shell r, a r, b r, c r~", "a --? b pipe:7"],
    );
}

#[test]
fn memory_queues_and_locks() {
    check(
        "a maps sysv-shm:1
         b maps sysv-shm:1
         c used sysv-shm:1",
        &["sysv-shm:1: a rw, b rw, c rw"],
    );
    // A file that is only read is no channel.
    let read_only = "a maps mapping:1:2:3\n b maps mapping:1:2:3";
    let mut snapshot = world(read_only);
    for end in &mut snapshot.objects[0].ends {
        end.writes = false;
    }
    assert!(Graph::new(&snapshot, &Options::default()).channels.is_empty());
    check(
        "a waits lock futex:1 of b
         b maps futex:1; waits time",
        &[],
    );
}

fn groups(text: &str, grouping: Grouping) -> Vec<String> {
    let snapshot = world(text);
    let graph = Graph::new(&snapshot, &Options { grouping, ..Options::default() });
    let each = graph.groups.iter().map(|group| {
        let names: Vec<String> = group.processes.iter().map(|&pid| name(&snapshot, pid)).collect();
        format!("{}: {}", group.name, names.join(" "))
    });
    each.collect()
}

#[test]
fn groups_by_tree_user_and_container() {
    let id = "4f3a0123456789ab".repeat(4);
    let text = format!(
        "shell user 5; space 1
         a child of shell; user 5; space 1
         b child of a; user 6; space 1
         other user 6; space 2
         inner child of other; user 5; space 2; group /docker/{id}"
    );
    assert_eq!(groups(&text, Grouping::Tree), ["shell[10]: shell a b", "other[40]: other inner"]);
    assert_eq!(groups(&text, Grouping::User), ["user 5: shell a inner", "user 6: b other"]);
    // Who looked, or the first process, is on the machine itself.
    let mut snapshot = world(&text);
    snapshot.viewer.pid = 10;
    let options = Options { grouping: Grouping::Container, ..Options::default() };
    let graph = Graph::new(&snapshot, &options);
    let names: Vec<&str> = graph.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["this machine", "PID namespace 2", "docker 4f3a01234567"]);
    assert_eq!(graph.process(50).map(|node| (node.group, node.depth)), Some((2, 1)));
    // Whose namespaces cannot be read, of that nothing is said.
    snapshot.viewer.pid = 0;
    let graph = Graph::new(&snapshot, &options);
    assert_eq!(graph.groups.len(), 2, "{:?}", graph.groups);
}

#[test]
fn a_loop_of_parents_is_no_tree() {
    let text = "a child of b\n b child of a\n c child of c";
    assert_eq!(groups(text, Grouping::Tree).len(), 2, "{:?}", groups(text, Grouping::Tree));
}

#[track_caller]
fn reached(text: &str, from: &[u32], steps: Option<usize>, expected: &str) {
    let snapshot = world(text);
    let mut graph = Graph::new(&snapshot, &Options::default());
    graph.keep_reached(from, steps);
    let names: Vec<&str> = graph.processes.iter().map(|node| node.label.as_str()).collect();
    assert_eq!(names.join(" "), expected);
    for group in &graph.groups {
        assert!(!group.processes.is_empty());
    }
    for node in &graph.processes {
        assert!(graph.groups[node.group].processes.contains(&node.pid));
    }
    for channel in &graph.channels {
        assert!(channel.parties.iter().all(|party| graph.process(party.pid).is_some()));
    }
}

#[test]
fn what_a_process_reaches() {
    let line = "a writes pipe:1; waits time
                b reads pipe:1; writes pipe:2; waits time
                c reads pipe:2; writes pipe:3; waits time
                d reads pipe:3; waits time
                alone waits time";
    reached(line, &[10], None, "a[10] b[20] c[30] d[40]");
    reached(line, &[10], Some(1), "a[10] b[20]");
    reached(line, &[30], Some(1), "b[20] c[30] d[40]");
    reached(line, &[50], None, "alone[50]");
    reached(line, &[10, 40], Some(0), "a[10] d[40]");
    // The sibling merely holds the pipe: it is shown, and its own connections are not gone along.
    let held = "parent reads pipe:1; waits data pipe:1
                child child of parent; writes pipe:1; waits room pipe:1
                sibling child of parent; reads pipe:9 pipe:1; writes pipe:2; waits data pipe:9
                lazy child of parent; reads pipe:1; has unix:1; waits time
                far has unix:2; waits data unix:2
                ! peers unix:1 unix:2";
    reached(held, &[20], None, "parent[10] child[20] sibling[30] lazy[40]");
    reached(held, &[40], None, "parent[10] child[20] sibling[30] lazy[40] far[50]");
}

#[test]
fn what_is_wrong_is_marked() {
    let text = "a reads pipe:1; writes pipe:2; waits data pipe:1
                b reads pipe:2; writes pipe:1; waits data pipe:2
                c stopped; waits time
                d ended";
    let snapshot = world(text);
    let leaks = [("pipe:2".to_owned(), vec!["nobody has it".to_owned()])].into();
    let graph = Graph::new(&snapshot, &Options { leaks, ..Options::default() });
    let a = graph.process(10).expect("a process");
    assert!(a.deadlocked && a.stuck[0].starts_with("a[10] has waited 5.0 s"), "{a:?}");
    assert_eq!(graph.process(30).map(|node| &node.marks[..]), Some(&["stopped"][..]));
    assert_eq!(graph.process(40).map(|node| &node.marks[..]), Some(&["zombie"][..]));
    let words: Vec<String> =
        graph.channels.iter().map(|channel| in_words(&snapshot, channel)).collect();
    assert_eq!(words, ["a <- b pipe:1, stuck", "a -> b pipe:2, stuck, leaks: nobody has it"]);
    // Who looked is left out, and with it what was its.
    let options = Options { without: Some(10), ..Options::default() };
    let graph = Graph::new(&snapshot, &options);
    assert!(graph.process(10).is_none() && graph.channels.is_empty());
}

#[test]
fn what_nobody_has_is_there_if_it_leaks() {
    let mut snapshot = world("a maps memfd:1");
    let orphan = Object::new(Kind::SysvShm, "sysv-shm:5");
    snapshot.objects.push(orphan);
    let without = Graph::new(&snapshot, &Options::default());
    assert!(without.channels.is_empty() && without.process(10).is_some_and(|a| a.alone == 1));
    let leaks = [("sysv-shm:5".to_owned(), vec!["nobody maps it".to_owned()])].into();
    let graph = Graph::new(&snapshot, &Options { leaks, ..Options::default() });
    assert_eq!(graph.channels.len(), 1);
    assert!(graph.channels[0].is_node() && graph.channels[0].parties.is_empty());
}

#[test]
fn a_large_machine_takes_no_time() {
    // 2,000 processes of one family at one object, and as many pairs of sockets.
    let mut text = String::new();
    for n in 0..2_000 {
        text += &format!("p{n} child of p0; has tcp:1; has unix:{}; waits client tcp:1\n", n + 10);
    }
    for n in (10..2_010).step_by(2) {
        text += &format!("! peers unix:{n} unix:{}\n", n + 1);
    }
    let snapshot = world(&text);
    let began = std::time::Instant::now();
    let graph = Graph::new(&snapshot, &Options::default());
    let took = began.elapsed();
    assert_eq!((graph.processes.len(), graph.channels.len()), (2_000, 1_001));
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
}
