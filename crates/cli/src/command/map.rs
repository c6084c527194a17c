//! `switchboard map [PID…]`: who talks to whom, as text, as a picture, or as a page.
//!
//! Source: docs/design/map.md.

mod dot;
pub(super) mod layout;
mod lines;
pub(super) mod page;
mod svg;
mod text;
mod words;
#[cfg(test)]
#[path = "../../tests/it/world.rs"]
mod world;

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use serde::Serialize;
use serde_json::json;
use switchboard_inspect::analysis::graph::{Graph, Grouping, Key, Options};
use switchboard_inspect::analysis::leaks::LeakOptions;
use switchboard_inspect::analysis::wakers::Grade;
use switchboard_inspect::analysis::{self, graph::Group};
use switchboard_inspect::{End, Request, Snapshot};
use switchboard_kernel::random;

use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{GAP, Source, Users, process_id, say_missing};
use crate::new_file::NewFile;
use crate::output::{Failure, Outcome, counted, note, print, system};
use crate::subject::there;

#[derive(Args, Debug)]
struct Arguments {
    /// Only what these processes reach, or those of these threads; without, everything
    #[arg(value_parser = process_id)]
    pids: Vec<u32>,
    /// What it is written as; text, unless FILE ends in .dot, .svg, .html or .json
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What makes a group
    #[arg(long, value_enum, default_value_t = By::Tree)]
    group: By,
    /// So many steps away from PID at most
    #[arg(long, value_name = "STEPS", requires = "pids")]
    depth: Option<usize>,
    /// Write to FILE, which is not there yet
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over a FILE that is there
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    source: Source,
}

/// What the map is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line per connection
    Text,
    /// For graphviz
    Dot,
    /// A picture
    Svg,
    /// A page to look around in: one file, which needs no network
    Html,
    /// The graph
    Json,
}

/// What makes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// A process with all that descend from it
    Tree,
    /// The user
    User,
    /// The container, by control group and namespaces
    Container,
}

impl By {
    fn grouping(self) -> (Grouping, &'static str) {
        match self {
            Self::Tree => (Grouping::Tree, "process tree"),
            Self::User => (Grouping::User, "user"),
            Self::Container => (Grouping::Container, "container"),
        }
    }
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("map"));
    with_examples(
        command.about("Draw who talks to whom: text, DOT, SVG, or a page to look around in"),
        "  switchboard map
  switchboard map 812 --depth 1
  switchboard map --output map.html
  switchboard map --format dot | dot -Tpdf > map.pdf
  switchboard map --group user --from snapshot.json",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let format = format(&arguments)?;
    let file = match &arguments.output {
        Some(path) => Some(NewFile::create(path, arguments.force)?),
        None => None,
    };
    let snapshot = arguments.source.snapshot(&request())?;
    let users = Users::of(&arguments.source);
    let pids: Result<Vec<u32>, Failure> =
        arguments.pids.iter().map(|&id| there(&snapshot, id)).collect();
    let picture = pids.and_then(|pids| {
        let wanted = Wanted { pids, depth: arguments.depth, by: arguments.group };
        Picture::new(snapshot, &wanted, &users)
    });
    let picture = match picture {
        Ok(picture) => picture,
        Err(failure) => {
            // An empty file is no map.
            arguments.output.iter().for_each(|path| drop(std::fs::remove_file(path)));
            return Err(failure);
        }
    };
    say_missing(&picture.snapshot.coverage);
    let written = picture.written(format, &users)?;
    match file {
        None => print(&written)?,
        Some(file) => {
            file.write(written.as_bytes())?;
            let processes = words::processes(picture.graph.processes.len());
            let channels = counted(picture.graph.channels.len() as u64, "channel");
            let bytes = counted(written.len() as u64, "byte");
            note(&format!("{processes}, {channels}: {bytes} written"));
        }
    }
    Ok(Exit::Done)
}

fn format(arguments: &Arguments) -> Result<Format, Failure> {
    let of_file = arguments.output.as_deref().and_then(Path::extension).and_then(|ending| {
        match ending.to_str()? {
            "dot" | "gv" => Some(Format::Dot),
            "svg" => Some(Format::Svg),
            "html" | "htm" => Some(Format::Html),
            "json" => Some(Format::Json),
            _ => None,
        }
    });
    match (arguments.format, arguments.source.json) {
        (Some(format), true) if format != Format::Json => {
            Err(Failure::new(Exit::Usage, "--json and another --format"))
        }
        (_, true) => Ok(Format::Json),
        (Some(format), false) => Ok(format),
        (None, false) => Ok(of_file.unwrap_or(Format::Text)),
    }
}

/// What a map needs to know of the machine.
pub(super) fn request() -> Request {
    Request::everything().twice(GAP)
}

/// What is to be seen.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// From these processes; none: everything.
    pub(super) pids: Vec<u32>,
    /// In so many steps.
    pub(super) depth: Option<usize>,
    /// What makes a group.
    pub(super) by: By,
}

/// Something that leaks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Leaking {
    pub(super) object: String,
    pub(super) certainty: &'static str,
    pub(super) reasons: Vec<String>,
    pub(super) not_checked: Vec<String>,
}

/// A graph with what is said of it.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) snapshot: Snapshot,
    pub(super) graph: Graph,
    /// The groups' names, in their order.
    pub(super) groups: Vec<String>,
    pub(super) grouping: &'static str,
    pub(super) title: String,
    pub(super) leaks: Vec<Leaking>,
}

impl Picture {
    /// Of a snapshot. A process that is not there is a failure.
    pub(super) fn new(
        mut snapshot: Snapshot,
        wanted: &Wanted,
        users: &Users,
    ) -> Result<Self, Failure> {
        if let Some(gone) = wanted.pids.iter().find(|&&pid| snapshot.process(pid).is_none()) {
            return Err(Failure::new(Exit::Nothing, format!("no process {gone}")));
        }
        let (kind, grouping) = wanted.by.grouping();
        let mut leaks = leaks(&snapshot);
        let looker = snapshot.viewer.pid;
        let options = Options {
            grouping: kind,
            leaks: leaks.iter().map(|one| (one.object.clone(), one.reasons.clone())).collect(),
            without: Some(looker).filter(|pid| !wanted.pids.contains(pid)),
        };
        let mut graph = Graph::new(&snapshot, &options);
        if !wanted.pids.is_empty() {
            graph.keep_reached(&wanted.pids, wanted.depth);
            // The tables are about the same.
            let has = |end: &End| graph.process(end.pid).is_some();
            snapshot.objects.retain(|object| object.ends.iter().any(has));
            leaks.retain(|leak| snapshot.object(&leak.object).is_some());
        }
        let name = |group: &Group| match group.key {
            Key::User(uid) => format!("user {}", users.name(uid)),
            _ => group.name.clone(),
        };
        let groups = graph.groups.iter().map(name).collect();
        let title = match wanted.pids[..] {
            [] => format!("Switchboard: {}", snapshot.machine),
            [pid] => format!("Switchboard: what {} reaches", snapshot.label(pid)),
            _ => format!("Switchboard: what {} processes reach", wanted.pids.len()),
        };
        Ok(Self { snapshot, graph, groups, grouping, title, leaks })
    }

    fn written(&self, format: Format, users: &Users) -> Result<String, Failure> {
        Ok(match format {
            Format::Text => text::text(&self.graph, &self.groups),
            Format::Dot => dot::dot(&self.graph, &self.groups),
            Format::Svg => {
                let missing = &self.snapshot.coverage.missing;
                let foot: Vec<String> =
                    missing.iter().map(|one| format!("not seen: {one}")).collect();
                svg::svg(&self.graph, &self.groups, &self.title, &foot)
            }
            Format::Html => page::html(self, users, &random_word()?),
            Format::Json => {
                let value = json!({
                    "coverage": self.snapshot.coverage,
                    "taken_unix_ms": self.snapshot.taken_unix_ms,
                    "grouping": self.grouping,
                    "groups": self.groups,
                    "graph": self.graph,
                    "leaks": self.leaks,
                });
                format!("{value}\n")
            }
        })
    }
}

/// 128 random bits as hexadecimal digits.
pub(super) fn random_word() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    random::fill(&mut bytes).map_err(|error| system("no random numbers", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What leaks, at least probably.
fn leaks(snapshot: &Snapshot) -> Vec<Leaking> {
    let found = analysis::leaks(snapshot, &LeakOptions::default());
    let sure = found.into_iter().filter(|leak| leak.certainty > Grade::Possible);
    let each = sure.map(|leak| Leaking {
        object: leak.object,
        certainty: leak.certainty.word(),
        reasons: leak.reasons,
        not_checked: leak.not_checked,
    });
    each.collect()
}
