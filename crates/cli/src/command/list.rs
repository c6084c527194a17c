//! `switchboard list [KIND…]`: every object of every mechanism.

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard_inspect::{Kind, Kinds, Object, Request, Snapshot, Via, kind};

use super::with_examples;
use crate::columns::columns;
use crate::exit_code::Exit;
use crate::machine::{Source, Users, fill, process_id, say_missing};
use crate::output::{Failure, Outcome, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Only these kinds: pipe, unix, tcp, sysv-shm, …
    #[arg(value_name = "KIND", value_parser = kind_named)]
    kinds: Vec<Kind>,
    /// List the kinds, what identifies one, and what of it cannot be seen
    #[arg(long = "kinds")]
    list_kinds: bool,
    /// Only what this process has
    #[arg(long, value_name = "PID", value_parser = process_id)]
    pid: Option<u32>,
    /// Only what this user owns, by name or number
    #[arg(long)]
    user: Option<String>,
    /// Only what has this in its name or id
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only what is full, or nearly (nine tenths)
    #[arg(long)]
    full: bool,
    /// Only what no process has
    #[arg(long)]
    unused: bool,
    /// Sort by this column, with - before it the other way round
    #[arg(long, value_name = "COLUMN", value_parser = sorting, allow_hyphen_values = true)]
    sort: Option<(Column, bool)>,
    /// Show these columns: id, kind, name, owner, mode, size, fill, state, peer, ends, processes
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',', value_parser = Column::named)]
    columns: Vec<Column>,
    /// No line of titles
    #[arg(long)]
    no_header: bool,
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("list"));
    with_examples(
        command.about("List every object that processes talk through, and who has it"),
        "  switchboard list pipe fifo
  switchboard list --full --sort -fill
  switchboard list tcp unix --pid 812 --columns id,name,peer,processes
  switchboard list --unused sysv-shm posix-shm mq
  switchboard list --json | jq -r '.objects[] | select(.kind == \"pipe\") | .id'",
    )
}

/// What can be shown of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Id,
    Kind,
    Name,
    Owner,
    Mode,
    Size,
    Fill,
    State,
    Peer,
    Ends,
    Processes,
}

const COLUMNS: &[(Column, &str)] = &[
    (Column::Id, "id"),
    (Column::Kind, "kind"),
    (Column::Name, "name"),
    (Column::Owner, "owner"),
    (Column::Mode, "mode"),
    (Column::Size, "size"),
    (Column::Fill, "fill"),
    (Column::State, "state"),
    (Column::Peer, "peer"),
    (Column::Ends, "ends"),
    (Column::Processes, "processes"),
];

const USUAL: &[Column] = &[
    Column::Id,
    Column::Owner,
    Column::Mode,
    Column::Size,
    Column::Fill,
    Column::State,
    Column::Name,
    Column::Processes,
];

impl Column {
    fn named(word: &str) -> Result<Self, String> {
        let found = COLUMNS.iter().find(|(_, name)| *name == word);
        found.map(|(column, _)| *column).ok_or_else(|| {
            let names: Vec<&str> = COLUMNS.iter().map(|(_, name)| *name).collect();
            format!("no column {word}; there are {}", names.join(", "))
        })
    }

    fn title(self) -> &'static str {
        COLUMNS.iter().find(|(column, _)| *column == self).map_or("", |(_, name)| *name)
    }
}

fn kind_named(word: &str) -> Result<Kind, String> {
    Kind::named(word)
        .ok_or_else(|| format!("no kind {word}; `switchboard list --kinds` lists them"))
}

fn sorting(word: &str) -> Result<(Column, bool), String> {
    match word.strip_prefix('-') {
        Some(rest) => Ok((Column::named(rest)?, true)),
        None => Ok((Column::named(word)?, false)),
    }
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    if arguments.list_kinds {
        return list_kinds(arguments.source.json);
    }
    let wanted: Kinds = if arguments.kinds.is_empty() {
        Kinds::ALL
    } else {
        arguments.kinds.iter().copied().collect()
    };
    // Who sleeps on a word, in the opening of a FIFO or for a lock, shows with the waits.
    let needs_waits = wanted.has_any(&[Kind::Futex, Kind::Fifo, Kind::Lock]);
    let request = Request::of(wanted.iter());
    let request = if needs_waits { request.waits() } else { request };
    let mut snapshot = arguments.source.snapshot(&request)?;
    let users = Users::of(&arguments.source);
    filter(&mut snapshot, wanted, &arguments, &users)?;
    if let Some((column, reverse)) = arguments.sort {
        sort(&mut snapshot, column, reverse, &users);
    }
    say_missing(&snapshot.coverage);
    if arguments.source.json {
        print_json(&json!({ "coverage": snapshot.coverage, "objects": snapshot.objects }))?;
    } else {
        let shown = if arguments.columns.is_empty() { USUAL } else { &arguments.columns };
        let titles: Vec<&str> = shown.iter().map(|column| column.title()).collect();
        let labels = labels(&snapshot);
        let row = |object| shown.iter().map(|&c| cell(&labels, object, c, &users)).collect();
        let rows: Vec<Vec<String>> = snapshot.objects.iter().map(row).collect();
        print(&columns(if arguments.no_header { &[] } else { &titles }, &rows))?;
    }
    Ok(Exit::Done)
}

fn list_kinds(as_json: bool) -> Outcome {
    if as_json {
        let rows = kind::TABLE.iter().map(|row| {
            json!({ "kind": row.name, "what": row.what, "id": row.identity, "not_seen": row.hidden })
        });
        print_json(&rows.collect())?;
    } else {
        let row = |row: &kind::Row| {
            let hidden = if row.hidden.is_empty() { "-" } else { row.hidden };
            [row.name, row.what, row.identity, hidden].map(str::to_owned).to_vec()
        };
        let rows: Vec<Vec<String>> = kind::TABLE.iter().map(row).collect();
        print(&columns(&["kind", "what it is", "id", "not seen"], &rows))?;
    }
    Ok(Exit::Done)
}

fn filter(
    snapshot: &mut Snapshot,
    kinds: Kinds,
    arguments: &Arguments,
    users: &Users,
) -> Result<(), Failure> {
    let uid = match &arguments.user {
        None => None,
        Some(user) => Some(
            users
                .number(user)
                .ok_or_else(|| Failure::new(Exit::Usage, format!("no user {user}")))?,
        ),
    };
    let nearly = |object: &Object| {
        let fullness = object.fill.zip(object.size).filter(|_| !object.kind.is_memory());
        fullness.is_some_and(|(fill, size)| {
            size > 0 && fill.saturating_mul(10) >= size.saturating_mul(9)
        })
    };
    snapshot.objects.retain(|object| {
        let named = |text: &String| {
            object.id.contains(text) || object.names.iter().any(|name| name.contains(text))
        };
        kinds.has(object.kind)
            && arguments.pid.is_none_or(|pid| object.ends.iter().any(|end| end.pid == pid))
            && uid.is_none_or(|uid| object.uid == Some(uid))
            && arguments.name.as_ref().is_none_or(named)
            && (!arguments.full || nearly(object))
            && (!arguments.unused || object.ends.iter().all(|end| end.via == Via::Used))
    });
    Ok(())
}

fn sort(snapshot: &mut Snapshot, column: Column, reverse: bool, users: &Users) {
    let labels = labels(snapshot);
    let key = |object: &Object| {
        let number = match column {
            Column::Size => object.size,
            Column::Fill => object.fill,
            Column::Mode => object.mode.map(u64::from),
            Column::Ends => u64::try_from(object.ends.len()).ok(),
            _ => None,
        };
        let text = match column {
            Column::Size | Column::Fill | Column::Mode | Column::Ends => String::new(),
            _ => cell(&labels, object, column, users),
        };
        (number, text)
    };
    snapshot.objects.sort_by_cached_key(key);
    if reverse {
        snapshot.objects.reverse();
    }
}

fn labels(snapshot: &Snapshot) -> BTreeMap<u32, String> {
    snapshot.processes.iter().map(|process| (process.pid, process.label())).collect()
}

fn cell(labels: &BTreeMap<u32, String>, object: &Object, column: Column, users: &Users) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    match column {
        Column::Id => object.id.clone(),
        Column::Kind => object.kind.name().to_owned(),
        Column::Name => or_dash(object.names.last().cloned()),
        Column::Owner => or_dash(object.uid.map(|uid| users.name(uid))),
        Column::Mode => or_dash(object.mode.map(|mode| format!("{mode:04o}"))),
        Column::Size => or_dash(object.size.map(|size| size.to_string())),
        Column::Fill => or_dash(object.fill.map(|_| fill(object))),
        Column::State => or_dash(object.state.clone()),
        Column::Peer => or_dash(object.peer.clone()),
        Column::Ends => object.ends.len().to_string(),
        Column::Processes => processes(labels, object),
    }
}

/// Who has it: those that only read or only write marked so, a few by name.
fn processes(labels: &BTreeMap<u32, String>, object: &Object) -> String {
    const MOST: usize = 4;
    let mut by_process: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for end in &object.ends {
        let (reads, writes) = by_process.entry(end.pid).or_default();
        *reads |= end.reads;
        *writes |= end.writes;
    }
    let mut all: Vec<String> = by_process
        .iter()
        .map(|(pid, direction)| {
            let way = match direction {
                (true, false) => " reads",
                (false, true) => " writes",
                _ => "",
            };
            let label = labels.get(pid).cloned().unwrap_or_else(|| format!("ended[{pid}]"));
            format!("{label}{way}")
        })
        .collect();
    if all.is_empty() {
        return "-".to_owned();
    }
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    if more > 0 {
        all.push(format!("{more} more"));
    }
    all.join(", ")
}
