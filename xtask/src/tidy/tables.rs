//! Every row of an extension table has what a row needs: its file, test, document and example.
//!
//! Source: CONTRIBUTING.md, "Adding things".

use super::source::{Row, code_only, lines_with, rows};
use super::{Finding, Tree};

const MECHANISMS: &str = "crates/kernel/src/mechanism.rs";
const TRANSPORTS: &str = "crates/switchboard/src/transport/mod.rs";
const COMMANDS: &str = "crates/cli/src/command/mod.rs";
const SOURCES: &str = "crates/inspect/src/source/mod.rs";
const SOURCES_DOCUMENT: &str = "docs/design/inspect.md";
/// What the files of sources share: these read nothing of their own.
const BENEATH_SOURCES: [&str; 3] = ["folder", "netlink", "numbers"];
const TRANSPORTS_DOCUMENT: &str = "docs/transports.md";
const COMMANDS_DOCUMENT: &str = "docs/commands.md";

/// A mechanism is a file named like its man page, and a test file and an example of the same name.
pub(super) fn mechanisms(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in table(tree, MECHANISMS, "file", &mut findings) {
        let file = file_of(&row.fields["file"]);
        require_module(tree, MECHANISMS, &row, &format!("crates/kernel/src/{file}"), &mut findings);
        let test = format!("crates/kernel/tests/it/{file}");
        require_module(tree, MECHANISMS, &row, &test, &mut findings);
        let example = format!("crates/kernel/examples/{file}.rs");
        if tree.text(&example).is_none() {
            let message = format!("this row has no example; write {example}");
            findings.push(Finding::new(MECHANISMS, row.line, message));
        }
    }
    findings
}

/// A transport has a file, a heading in the document, an example and a conformance test.
pub(super) fn transports(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let document = document(tree, TRANSPORTS_DOCUMENT, &mut findings);
    for row in table(tree, TRANSPORTS, "scheme", &mut findings) {
        let scheme = &row.fields["scheme"];
        let mut missing = |what: String| {
            findings.push(Finding::new(TRANSPORTS, row.line, format!("`{scheme}:` {what}")));
        };
        let heading = format!("## `{scheme}:`");
        if !document.lines().any(|line| line.starts_with(&heading)) {
            missing(format!("has no heading in {TRANSPORTS_DOCUMENT}; write `{heading}`"));
        }
        let example = format!("examples/{scheme}.");
        if !tree.paths().any(|path| path.starts_with(&example)) {
            missing(format!("has no example; write {example}sh"));
        }
        if !conformance_covers(tree, scheme) {
            missing(
                "is in no test of crates/switchboard/tests/it/conformance*.rs; name it there \
                     or iterate TABLE"
                    .to_owned(),
            );
        }
        match row.fields.get("file") {
            None => missing("has no `file: \"…\"`; name the file that implements it".to_owned()),
            Some(file) => {
                let module = format!("crates/switchboard/src/transport/{}", file_of(file));
                require_module(tree, TRANSPORTS, &row, &module, &mut findings);
            }
        }
    }
    findings
}

/// A command has a file and is described in the document.
pub(super) fn commands(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let document = document(tree, COMMANDS_DOCUMENT, &mut findings);
    for row in table(tree, COMMANDS, "name", &mut findings) {
        let name = &row.fields["name"];
        let module = format!("crates/cli/src/command/{}", name.replace('-', "_"));
        require_module(tree, COMMANDS, &row, &module, &mut findings);
        let called = format!("switchboard {name}");
        let named =
            document.contains(&format!("`{name}`")) || !lines_with(document, &called).is_empty();
        if !named {
            findings.push(Finding::new(
                COMMANDS,
                row.line,
                format!("`{name}` is not in {COMMANDS_DOCUMENT}; describe it as `{called}`"),
            ));
        }
    }
    findings
}

/// A source of the inspector has a file and a row in the document's table, and neither has others.
pub(super) fn sources(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let documented = documented_sources(document(tree, SOURCES_DOCUMENT, &mut findings));
    let rows = table(tree, SOURCES, "name", &mut findings);
    for row in &rows {
        let name = &row.fields["name"];
        let module = format!("crates/inspect/src/source/{name}");
        require_module(tree, SOURCES, row, &module, &mut findings);
        if !documented.contains(&name.as_str()) {
            let message = format!("`{name}` is in no row of the table in {SOURCES_DOCUMENT}");
            findings.push(Finding::new(SOURCES, row.line, message));
        }
    }
    let known = |name: &str| rows.iter().any(|row| row.fields["name"] == name);
    for name in documented.iter().filter(|name| !known(name)) {
        let message = format!("`{name}` is no row of the table in {SOURCES}");
        findings.push(Finding::new(SOURCES_DOCUMENT, 0, message));
    }
    let files = tree
        .paths()
        .filter_map(|path| path.strip_prefix("crates/inspect/src/source/")?.strip_suffix(".rs"));
    for name in files.filter(|name| *name != "mod" && !name.contains('/')) {
        if !known(name) && !BENEATH_SOURCES.contains(&name) {
            let message = format!("`{name}.rs` is in no row of this table");
            findings.push(Finding::new(SOURCES, 0, message));
        }
    }
    findings
}

/// The words in backquotes in the first column of the table that begins with `| file of`.
fn documented_sources(document: &str) -> Vec<&str> {
    let rows = document.lines().skip_while(|line| !line.starts_with("| file of `source/`"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// The rows of the table in `path`; a table that is not there, or has none, is a finding.
fn table(tree: &Tree, path: &str, key: &str, findings: &mut Vec<Finding>) -> Vec<Row> {
    let Some(text) = tree.text(path) else {
        findings.push(Finding::new(path, 0, "the table's file is not there; write it"));
        return Vec::new();
    };
    let rows = rows(text, key);
    if rows.is_empty() {
        let message = format!("no row found; a row is written in braces with `{key}: \"…\"` in it");
        findings.push(Finding::new(path, 0, message));
    }
    rows
}

fn document<'a>(tree: &'a Tree, path: &str, findings: &mut Vec<Finding>) -> &'a str {
    tree.text(path).unwrap_or_else(|| {
        findings.push(Finding::new(path, 0, "the document is not there; write it"));
        ""
    })
}

fn file_of(field: &str) -> &str {
    field.strip_suffix(".rs").unwrap_or(field)
}

fn require_module(tree: &Tree, table: &str, row: &Row, module: &str, findings: &mut Vec<Finding>) {
    let there = tree.text(&format!("{module}.rs")).is_some()
        || tree.text(&format!("{module}/mod.rs")).is_some();
    if !there {
        let message = format!("this row has no {module}.rs; write it, or correct the row");
        findings.push(Finding::new(table, row.line, message));
    }
}

/// Whether a conformance test goes through the whole table, or names the scheme.
fn conformance_covers(tree: &Tree, scheme: &str) -> bool {
    tree.rust().filter(|(path, _)| path.starts_with("crates/switchboard/tests/it/conformance")).any(
        |(_, text)| {
            !lines_with(&code_only(text), "TABLE").is_empty()
                || text.contains(&format!("\"{scheme}\""))
                || text.contains(&format!("\"{scheme}:"))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    const MECHANISM: (&str, &str) =
        (MECHANISMS, "const TABLE: &[R] = &[\nR { file: \"fifo\" },\n];");

    #[test]
    fn a_mechanism_needs_its_file_test_and_example() {
        let file = ("crates/kernel/src/fifo.rs", "");
        let test = ("crates/kernel/tests/it/fifo.rs", "");
        let example = ("crates/kernel/examples/fifo.rs", "");
        check(mechanisms, &[MECHANISM, file, test, example], &[]);
        check(
            mechanisms,
            &[MECHANISM, test, example],
            &["mechanism.rs:2: this row has no crates/kernel/src/fifo.rs"],
        );
        check(
            mechanisms,
            &[MECHANISM, file, example],
            &["mechanism.rs:2: this row has no crates/kernel/tests"],
        );
        check(
            mechanisms,
            &[MECHANISM, file, test, ("crates/kernel/examples/fifo_more.rs", "")],
            &["mechanism.rs:2: this row has no example; write crates/kernel/examples/fifo.rs"],
        );
        check(mechanisms, &[file, test, example], &["mechanism.rs: the table's file"]);
        check(mechanisms, &[(MECHANISMS, "struct R;")], &["mechanism.rs: no row"]);
    }

    #[test]
    fn a_source_is_a_file_a_row_and_a_line() {
        let table = (SOURCES, "T = &[\nSource { name: \"maps\", reads: \"x\" },\n];");
        let file = ("crates/inspect/src/source/maps.rs", "");
        let beneath = ("crates/inspect/src/source/numbers.rs", "");
        let text =
            (SOURCES_DOCUMENT, "| file of `source/` | reads |\n|---|---|\n| `maps` | `m` |\n");
        check(sources, &[table, file, beneath, text], &[]);
        check(
            sources,
            &[table, text],
            &["source/mod.rs:2: this row has no crates/inspect/src/source/maps.rs"],
        );
        check(
            sources,
            &[table, file, (SOURCES_DOCUMENT, "")],
            &["source/mod.rs:2: `maps` is in no row"],
        );
        let more = ("crates/inspect/src/source/more.rs", "");
        check(sources, &[table, file, more, text], &["source/mod.rs: `more.rs` is in no row"]);
        let line = "| file of `source/` | reads |\n|---|---|\n| `maps`, `gone` | `m` |\n";
        check(sources, &[table, file, (SOURCES_DOCUMENT, line)], &["inspect.md: `gone` is no row"]);
    }

    const ROW: (&str, &str) = (TRANSPORTS, "Row { scheme: \"unix-dgram\", file: \"unix\" }");
    const TRANSPORT: [(&str, &str); 5] = [
        ROW,
        ("crates/switchboard/src/transport/unix.rs", ""),
        (TRANSPORTS_DOCUMENT, "## `unix-dgram:` datagrams\n"),
        ("examples/unix-dgram.sh", ""),
        ("crates/switchboard/tests/it/conformance.rs", "for row in TABLE {}"),
    ];

    #[test]
    fn a_transport_needs_all_five() {
        check(transports, &TRANSPORT, &[]);
        for (absent, finding) in [
            (1, "mod.rs:1: this row has no crates/switchboard/src/transport/unix.rs"),
            (3, "mod.rs:1: `unix-dgram:` has no example; write examples/unix-dgram.sh"),
            (4, "mod.rs:1: `unix-dgram:` is in no test"),
        ] {
            let mut files = TRANSPORT.to_vec();
            files.remove(absent);
            check(transports, &files, &[finding]);
        }
        let mut files = TRANSPORT.to_vec();
        files[2].1 = "## `unix:`\n";
        check(transports, &files, &["has no heading in docs/transports.md"]);
        files.remove(2);
        check(transports, &files, &["docs/transports.md: the document", "has no heading"]);
        check(transports, &TRANSPORT[1..], &["transport/mod.rs: the table's file"]);
    }

    #[test]
    fn a_conformance_test_covers_by_table_or_by_name() {
        for (text, covers) in [
            ("for row in TABLE {}", true),
            ("// TABLE", false),
            ("check(\"unix-dgram:./x\")", true),
            ("check(\"unix-dgram\")", true),
            ("check(\"unix\")", false),
        ] {
            let mut files = TRANSPORT.to_vec();
            files[4] = ("crates/switchboard/tests/it/conformance/order.rs", text);
            check(transports, &files, if covers { &[] } else { &["in no test"] });
        }
    }

    #[test]
    fn a_transport_row_names_its_file() {
        let mut files = TRANSPORT.to_vec();
        files[0].1 = "Row { scheme: \"unix-dgram\" }";
        check(transports, &files, &["`unix-dgram:` has no `file:"]);
    }

    #[test]
    fn a_command_needs_its_file_and_document() {
        let row = (COMMANDS, "[Command { name: \"send\", about: \"x\" }]");
        let file = ("crates/cli/src/command/send.rs", "");
        for text in ["`send`", "run `switchboard send ADDRESS`"] {
            check(commands, &[row, file, (COMMANDS_DOCUMENT, text)], &[]);
        }
        check(commands, &[row, file, (COMMANDS_DOCUMENT, "sender")], &["`send` is not in"]);
        check(
            commands,
            &[row, (COMMANDS_DOCUMENT, "`send`")],
            &["no crates/cli/src/command/send.rs"],
        );
        check(commands, &[row, file], &["docs/commands.md: the document", "`send` is not in"]);
        check(commands, &[(COMMANDS_DOCUMENT, "")], &["command/mod.rs: the table's file"]);
    }
}
