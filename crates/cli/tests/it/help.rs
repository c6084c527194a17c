//! What a newcomer sees: help, version, completions, man pages, the table of transports.

use switchboard::transport::TABLE;
use switchboard_testkit::Scratch;

use crate::run::{Ended, run};

const COMMANDS: &[&str] = &[
    "demo",
    "send",
    "recv",
    "publish",
    "subscribe",
    "call",
    "serve",
    "notify",
    "wait",
    "set",
    "get",
    "watch",
    "lock",
    "create",
    "unlink",
    "list",
    "show",
    "who",
    "ps",
    "why",
    "deadlocks",
    "leaks",
    "map",
    "web",
    "snapshot",
    "diff",
    "doctor",
    "transports",
    "completions",
    "man",
];

fn here(arguments: &[&str]) -> Ended {
    run(Scratch::new().path(), arguments, "")
}

#[test]
fn help_shows_the_commands_in_groups() {
    let help = here(&["--help"]).code(0).text();
    let order = [
        "Usage:",
        "Talk:",
        "  demo ",
        "  send ",
        "  recv ",
        "Objects:",
        "  create ",
        "See:",
        "  list ",
        "About:",
    ];
    let mut from = 0;
    for part in order {
        let at =
            help[from..].find(part).unwrap_or_else(|| panic!("no {part:?} after {from}: {help}"));
        from += at;
    }
    assert!(
        help.contains("Examples:\n  switchboard ") && help.contains("\n  5  refused"),
        "{help}"
    );
    assert!(!help.contains('\x1b'), "colour in a pipe");
    assert!(here(&["--version"]).code(0).text().starts_with("switchboard "));
}

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS {
        let help = here(&[command, "--help"]).code(0).text();
        let example = format!("switchboard {command}");
        assert!(help.contains("Examples:\n") && help.matches(&example).count() >= 2, "{help}");
    }
}

#[test]
fn completions_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = here(&["completions", shell]).code(0).text();
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: no {command}");
        }
    }
}

#[test]
fn man_pages() {
    let page = here(&["man"]).code(0).text();
    assert!(page.contains(".TH switchboard 1") && page.contains("Exit codes"), "{page}");
    let scratch = Scratch::new();
    run(scratch.path(), &["man", "--dir", "man1"], "").code(0).prints("");
    for command in COMMANDS {
        let path = scratch.join("man1").join(format!("switchboard-{command}.1"));
        let page = std::fs::read_to_string(path).expect("a page");
        assert!(page.contains(command), "{page}");
    }
}

#[test]
fn transports() {
    let plain = here(&["transports"]).code(0).text();
    let json: serde_json::Value =
        serde_json::from_slice(&here(&["transports", "--json"]).code(0).stdout).expect("JSON");
    for row in TABLE {
        assert!(plain.lines().any(|line| line.trim_start().starts_with(row.scheme)), "{plain}");
        let of_row =
            json.as_array().and_then(|rows| rows.iter().find(|r| r["scheme"] == row.scheme));
        let of_row = of_row.expect("a row");
        assert_eq!(of_row["capabilities"]["redelivers"], row.capabilities.redelivers);
        let details = here(&["transports", row.scheme]).code(0).text();
        assert!(details.contains(row.delivery) && details.contains(row.example), "{details}");
        for option in row.options {
            assert!(details.contains(&format!("?{option}")), "{option}: {details}");
        }
    }
    here(&["transports", "carrier-pigeon"]).code(3).says("there are fd, fifo, ");
}
