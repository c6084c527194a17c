//! The table of mechanisms against the files there are.

use std::collections::BTreeSet;
use std::path::Path;

use switchboard_kernel::mechanism::TABLE;

/// Source files that are no mechanism.
const OTHERS: &[&str] = &[
    "background",
    "biased",
    "error",
    "folder_file",
    "fork",
    "hidden_name",
    "io",
    "lease",
    "lib",
    "mechanism",
    "membarrier",
    "permissions",
    "private_folder",
    "process_maps",
    "random",
    "shared_folder",
    "shared_memory",
    "shared_words",
    "socket",
    "sysv_key",
];

fn stems(folder: &str) -> BTreeSet<String> {
    let folder =
        Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join(folder);
    let files = std::fs::read_dir(&folder).expect("a folder of this crate");
    files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
        .collect()
}

#[test]
fn every_row_has_its_source_and_its_tests() {
    let (sources, tests) = (stems("src"), stems("tests/it"));
    let missing: Vec<String> = TABLE
        .iter()
        .flat_map(|row| {
            let source = (!sources.contains(row.file)).then(|| format!("src/{}.rs", row.file));
            let test = (!tests.contains(row.file)).then(|| format!("tests/it/{}.rs", row.file));
            [source, test]
        })
        .flatten()
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn every_source_has_its_row() {
    let rows: BTreeSet<String> = TABLE.iter().map(|row| row.file.to_owned()).collect();
    let known: BTreeSet<String> = OTHERS.iter().map(|&file| file.to_owned()).collect();
    let without: Vec<String> = stems("src")
        .into_iter()
        .filter(|file| !rows.contains(file) && !known.contains(file))
        .collect();
    assert!(without.is_empty(), "in src without a row: {without:?}");
}

#[test]
fn rows_are_complete_and_distinct() {
    let mut names = BTreeSet::new();
    let mut files = BTreeSet::new();
    for row in TABLE {
        assert!(names.insert(row.name) && files.insert(row.file), "twice: {}", row.name);
        let texts = [row.name, row.file, row.since, row.summary, row.peer_dies, row.limits];
        assert!(texts.iter().all(|text| !text.is_empty()), "{}", row.name);
        let section = row.manual.trim_end_matches(')').rsplit('(').next();
        assert!(section.is_some_and(|section| section.parse::<u8>().is_ok()), "{}", row.manual);
    }
}
