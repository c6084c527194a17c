//! `switchboard list [KIND|OBJECT…]`: every object of every mechanism.

use std::collections::HashSet;
use std::fmt::Write;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard_inspect::{End, Kind, Kinds, Object, Request, Snapshot, Via, kind};

use super::with_examples;
use crate::columns::{Rows, columns, fit, terminal_width};
use crate::exit_code::Exit;
use crate::machine::{Source, Users, process_id, say_missing, write_fill};
use crate::output::{Failure, Outcome, print, print_json};
use crate::subject::{Subject, there};

#[derive(Args, Debug)]
struct Arguments {
    /// Only these kinds (pipe, unix, tcp, sysv-shm, …), these objects, by any of their names, and what these processes have: pid:N
    #[arg(value_name = "KIND|OBJECT", value_parser = Word::of)]
    words: Vec<Word>,
    /// List the kinds, what identifies one, and what of it cannot be seen
    #[arg(long = "kinds")]
    list_kinds: bool,
    /// Only what this process has, or that of this thread
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
    /// Whole names, also where the terminal is too narrow for them
    #[arg(long)]
    wide: bool,
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
  switchboard list pipe:4471 /dev/shm/engine pid:812
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

/// What is to be listed.
#[derive(Clone, Debug)]
enum Word {
    Kind(Kind),
    /// An object or a process.
    Named(String),
}

impl Word {
    fn of(word: &str) -> Result<Self, String> {
        if let Some(kind) = Kind::named(word) {
            return Ok(Self::Kind(kind));
        }
        // A name of an object has something in it that no kind has, or is a file here.
        let plain = word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
        if plain && std::fs::symlink_metadata(word).is_err() {
            return Err(format!("no kind {word}; `switchboard list --kinds` lists them"));
        }
        Ok(Self::Named(word.to_owned()))
    }
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
    let mut kinds = Kinds::NONE;
    let mut named = Vec::new();
    for word in &arguments.words {
        match word {
            Word::Kind(kind) => kinds = kinds.with(*kind),
            Word::Named(word) => named.push(word.clone()),
        }
    }
    if arguments.words.is_empty() {
        kinds = Kinds::ALL;
    }
    let request = Request::of(kinds.iter());
    // Of these, the table shows nothing.
    let request = if arguments.source.json { request.details() } else { request };
    let request = if named.is_empty() { request } else { Request::everything() };
    let mut snapshot = arguments.source.snapshot(&request)?;
    let mut pid = arguments.pid;
    if let Some(id) = pid.filter(|&id| snapshot.process(id).is_none()) {
        // Threads are known where waits are.
        if arguments.source.is_live() {
            snapshot = arguments.source.snapshot(&Request::everything())?;
        }
        pid = Some(there(&snapshot, id)?);
    }
    let users = Users::of(&arguments.source);
    let subject = Subject::of(&named, &snapshot, &arguments.source)?;
    let ids = subject.objects.iter().map(|object| object.id.clone()).collect();
    let wanted = Wanted { kinds, ids, holders: subject.pids, pid };
    filter(&mut snapshot, &wanted, &arguments, &users)?;
    if let Some((column, reverse)) = arguments.sort {
        sort(&mut snapshot, column, reverse, &users);
    }
    say_missing(&snapshot.coverage);
    if arguments.source.json {
        print_json(&json!({ "coverage": snapshot.coverage, "objects": snapshot.objects }))?;
    } else {
        let shown = if arguments.columns.is_empty() { USUAL } else { &arguments.columns };
        let width = terminal_width().filter(|_| !arguments.wide);
        for part in table(&snapshot, shown, !arguments.no_header, &users, width) {
            print(&part)?;
        }
    }
    // The process ends: nobody needs the memory.
    std::mem::forget(snapshot);
    Ok(Exit::Done)
}

/// The objects in columns, in portions: a hundred thousand rows are laid out by all processors.
fn table(
    snapshot: &Snapshot,
    shown: &[Column],
    titles: bool,
    users: &Users,
    terminal: Option<usize>,
) -> Vec<String> {
    const WORTH_A_THREAD: usize = 1000;
    let labels = &Labels::of(snapshot);
    let lay_out = |objects: &[Object]| {
        let mut rows = Rows::new(shown.len());
        for object in objects {
            for &column in shown {
                rows.cell(|text| cell(text, labels, object, column, users));
            }
        }
        rows
    };
    let mut head = Rows::new(shown.len());
    if titles {
        shown.iter().for_each(|column| head.cell(|text| text.push_str(column.title())));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let count = snapshot.objects.len();
    let each = count.div_ceil(processors.min(1 + count / WORTH_A_THREAD)).max(1);
    let portions: Vec<&[Object]> = snapshot.objects.chunks(each).collect();
    let mut parts = vec![head];
    parts.extend(on_threads(&portions, |objects| lay_out(objects)));
    let mut widths = vec![0; shown.len()];
    for part in &parts {
        for (most, width) in widths.iter_mut().zip(part.widths()) {
            *most = width.max(*most);
        }
    }
    if let Some(terminal) = terminal {
        let long = [Column::Id, Column::Name, Column::State, Column::Peer, Column::Processes];
        // An id that is cut names nothing: the others first.
        fit(&mut widths, |at| shown[at] != Column::Id && long.contains(&shown[at]), terminal);
        fit(&mut widths, |at| long.contains(&shown[at]), terminal);
    }
    on_threads(&parts, |part| part.laid_out(&widths))
}

/// Does something with each, the last of them on this thread.
fn on_threads<T: Sync, R: Send>(all: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let Some((last, others)) = all.split_last() else { return Vec::new() };
    std::thread::scope(|scope| {
        let each = &each;
        let others: Vec<_> = others
            .iter()
            .map(|one| {
                let started = std::thread::Builder::new().spawn_scoped(scope, move || each(one));
                // Where a user may have no more threads, this one does it.
                started.map_err(|_| each(one))
            })
            .collect();
        let last = each(last);
        let done = |other: Result<std::thread::ScopedJoinHandle<'_, R>, R>| match other {
            Ok(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(done) => done,
        };
        others.into_iter().map(done).chain([last]).collect()
    })
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

/// Which objects: of one of the kinds, or one of these, or what one of these processes has.
struct Wanted {
    kinds: Kinds,
    ids: HashSet<String>,
    holders: Vec<u32>,
    /// Of those, only what this process has.
    pid: Option<u32>,
}

impl Wanted {
    fn has(&self, object: &Object) -> bool {
        let held_by = |pid: &u32| object.ends.iter().any(|end| end.pid == *pid);
        let named = || self.ids.contains(&object.id) || self.holders.iter().any(held_by);
        (self.kinds.has(object.kind) || named()) && self.pid.iter().all(held_by)
    }
}

fn filter(
    snapshot: &mut Snapshot,
    wanted: &Wanted,
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
        wanted.has(object)
            && uid.is_none_or(|uid| object.uid == Some(uid))
            && arguments.name.as_ref().is_none_or(named)
            && (!arguments.full || nearly(object))
            && (!arguments.unused || object.ends.iter().all(|end| end.via == Via::Used))
    });
    Ok(())
}

fn sort(snapshot: &mut Snapshot, column: Column, reverse: bool, users: &Users) {
    let labels = Labels::of(snapshot);
    let key = |object: &Object| {
        let number = match column {
            Column::Size => object.size,
            Column::Fill => object.fill,
            Column::Mode => object.mode.map(u64::from),
            Column::Ends => u64::try_from(object.ends.len()).ok(),
            _ => None,
        };
        let mut text = String::new();
        if !matches!(column, Column::Size | Column::Fill | Column::Mode | Column::Ends) {
            cell(&mut text, &labels, object, column, users);
        }
        (number, text)
    };
    snapshot.objects.sort_by_cached_key(key);
    if reverse {
        snapshot.objects.reverse();
    }
}

/// Names of processes, by id.
struct Labels(Vec<(u32, String)>);

impl Labels {
    fn of(snapshot: &Snapshot) -> Self {
        // They are in the order of their ids.
        let all = snapshot.processes.iter().map(|process| (process.pid, process.label()));
        Self(all.collect())
    }

    fn get(&self, pid: u32) -> Option<&str> {
        let at = self.0.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        self.0.get(at).map(|(_, label)| label.as_str())
    }
}

/// Writes what a column says of an object; what there is nothing to say of is a dash.
fn cell(text: &mut String, labels: &Labels, object: &Object, column: Column, users: &Users) {
    let start = text.len();
    // A String takes whatever is written to it.
    let _ = match column {
        Column::Id => text.write_str(&object.id),
        Column::Kind => text.write_str(object.kind.name()),
        Column::Name => object.names.last().map_or(Ok(()), |name| text.write_str(name)),
        Column::Owner => object.uid.map_or(Ok(()), |uid| users.write(text, uid)),
        Column::Mode => object.mode.map_or(Ok(()), |mode| write!(text, "{mode:04o}")),
        Column::Size => object.size.map_or(Ok(()), |size| write!(text, "{size}")),
        Column::Fill => write_fill(text, object),
        Column::State => object.state.as_deref().map_or(Ok(()), |state| text.write_str(state)),
        Column::Peer => object.peer.as_deref().map_or(Ok(()), |peer| text.write_str(peer)),
        Column::Ends => write!(text, "{}", object.ends.len()),
        Column::Processes => processes(text, labels, object),
    };
    if text.len() == start {
        text.push('-');
    }
}

/// Who has it: those that only read or only write marked so, a few by name.
fn processes(text: &mut String, labels: &Labels, object: &Object) -> std::fmt::Result {
    const MOST: usize = 4;
    // The ends of a process stand together.
    let ends = object.ends.chunk_by(|a, b| a.pid == b.pid);
    for (at, own) in ends.enumerate() {
        if at == MOST {
            let more = object.ends.chunk_by(|a, b| a.pid == b.pid).count() - MOST;
            return write!(text, ", {more} more");
        }
        if at > 0 {
            text.push_str(", ");
        }
        let Some(End { pid, .. }) = own.first() else { continue };
        match labels.get(*pid) {
            Some(label) => text.push_str(label),
            None => write!(text, "ended[{pid}]")?,
        }
        let direction = (own.iter().any(|end| end.reads), own.iter().any(|end| end.writes));
        text.push_str(match direction {
            (true, false) => " reads",
            (false, true) => " writes",
            _ => "",
        });
    }
    Ok(())
}
