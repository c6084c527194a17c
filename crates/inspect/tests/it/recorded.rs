//! Snapshots that were taken of the gallery on a real machine, and what was concluded from them when they were: a file for each, and its
//! conclusions beside it.
//!
//! After a change that is meant, `SWITCHBOARD_RECORD=1` writes the conclusions anew; the difference is read before it is kept.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use switchboard_inspect::Snapshot;
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{deadlocks, stuck, why};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// What follows from a snapshot, in words.
fn conclusions(snapshot: &Snapshot) -> String {
    let index = Index::new(snapshot);
    let set = stuck::set(&index);
    let mut text = String::new();
    for process in &snapshot.processes {
        for thread in &process.threads {
            let stuck = why::looks_stuck(&index, &set, process, thread, Duration::from_secs(1));
            let mark = if stuck { "stuck" } else { "     " };
            let sentence = why::sentence(&index, &set, process, thread);
            writeln!(text, "{mark}  {sentence}").expect("text");
        }
    }
    for deadlock in deadlocks::find(snapshot) {
        let (grade, shape) = (deadlock.grade.word(), deadlock.shape.words());
        writeln!(text, "{grade} {shape} {:?}", deadlock.processes).expect("text");
        for doubt in &deadlock.doubts {
            writeln!(text, "  but: {doubt}").expect("text");
        }
        writeln!(text, "  {}", deadlock.way_out).expect("text");
    }
    text
}

#[test]
fn the_same_follows_from_what_was_recorded() {
    let mut count = 0;
    let mut wrong = String::new();
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let json = std::fs::read(&path).expect("a file");
        let snapshot = Snapshot::from_json(&json).expect("a snapshot");
        let found = conclusions(&snapshot);
        let beside = path.with_extension("txt");
        if std::env::var_os("SWITCHBOARD_RECORD").is_some() {
            std::fs::write(&beside, &found).expect("written");
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if found != expected {
            write!(wrong, "{}:\n{found}\ninstead of\n{expected}\n", path.display()).expect("text");
        }
        // Written and read again it is the same.
        let again = Snapshot::from_json(&snapshot.to_json()).expect("a snapshot");
        assert_eq!(again, snapshot, "{}", path.display());
    }
    assert!(count >= 10, "{count} recorded snapshots");
    assert!(wrong.is_empty(), "{wrong}");
}
