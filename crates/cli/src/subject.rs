//! What the words on a command line are about: processes, by their ids or those of their threads, and objects, by any of their names.
//!
//! Source: docs/design/inspect.md, "Names".

use std::collections::BTreeSet;

use switchboard_inspect::name::{self, Named, descriptor_named};
use switchboard_inspect::source::descriptors::leads_to;
use switchboard_inspect::{Object, Process, Snapshot, Thread, Via, WaitOn};

use crate::exit_code::Exit;
use crate::machine::{Source, say_missing};
use crate::output::{Failure, note};

/// Processes and objects that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Subject<'a> {
    /// By id, each once, in the order of the words.
    pub(crate) pids: Vec<u32>,
    /// The same of objects.
    pub(crate) objects: Vec<&'a Object>,
}

impl<'a> Subject<'a> {
    /// What all these words name; a word that names nothing is a failure.
    pub(crate) fn of(
        words: &[String],
        snapshot: &'a Snapshot,
        source: &Source,
    ) -> Result<Self, Failure> {
        let mut subject = Self::default();
        for word in words {
            match process_named(snapshot, word) {
                Some(id) => subject.add_process(there(snapshot, id)?),
                None => subject.add(snapshot, word, source)?,
            }
        }
        Ok(subject)
    }

    fn add(&mut self, snapshot: &'a Snapshot, word: &str, source: &Source) -> Result<(), Failure> {
        match name::find(snapshot, word, source.place(word)) {
            Named::Process(id) => self.add_process(there(snapshot, id)?),
            Named::Objects(found) if found.is_empty() => {
                say_missing(&snapshot.coverage);
                return Err(nothing(snapshot, source, word));
            }
            Named::Objects(found) => {
                if let (Ok(id), Some(first)) = (word.parse::<u32>(), found.first()) {
                    note(&format!(
                        "there is no process {id} that can be seen; {} is meant",
                        first.id
                    ));
                }
                for object in found {
                    if !self.has(&object.id) {
                        self.objects.push(object);
                    }
                }
            }
        }
        Ok(())
    }

    fn add_process(&mut self, pid: u32) {
        if !self.pids.contains(&pid) {
            self.pids.push(pid);
        }
    }

    /// Whether nothing was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.objects.is_empty()
    }

    /// Whether this object is one of them.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.objects.iter().any(|object| object.id == id)
    }

    /// Who has one of the objects, or waits for one; in the order of their ids.
    pub(crate) fn holders(&self) -> BTreeSet<u32> {
        let ends = self.objects.iter().flat_map(|object| &object.ends);
        ends.filter(|end| end.via != Via::Used).map(|end| end.pid).collect()
    }

    /// Whether a thread waits for one of the objects.
    pub(crate) fn is_awaited_by(&self, thread: &Thread) -> bool {
        thread.wait.as_ref().is_some_and(|wait| match &wait.on {
            WaitOn::Objects(targets) => targets.iter().any(|target| self.has(&target.object)),
            _ => false,
        })
    }
}

/// The number of a process or thread, if the word can be nothing else (`pid:812`), or if there is one: `812`.
fn process_named(snapshot: &Snapshot, word: &str) -> Option<u32> {
    match word.strip_prefix("pid:") {
        Some(rest) => rest.parse().ok(),
        None => {
            let id = word.parse().ok()?;
            let known = name::process(snapshot, id).is_some();
            let object = || matches!(name::find(snapshot, word, None), Named::Objects(found) if !found.is_empty());
            (known || !object()).then_some(id)
        }
    }
}

/// The process of this id, or of this thread: that is said.
pub(crate) fn there(snapshot: &Snapshot, id: u32) -> Result<u32, Failure> {
    let Some(pid) = name::process(snapshot, id) else {
        return Err(Failure::new(Exit::Nothing, format!("no process {id}")));
    };
    if pid != id {
        note(&format!("{id} is a thread of {}", snapshot.label(pid)));
    }
    Ok(pid)
}

/// The number in a word that names a process or a thread.
pub(crate) fn id_in(word: &str) -> u32 {
    word.strip_prefix("pid:").unwrap_or(word).parse().unwrap_or(0)
}

/// Says that a thread of the kernel holds nothing.
pub(crate) fn of_the_kernel(process: &Process) -> String {
    format!("{} is a thread of the kernel: it holds nothing", process.label())
}

/// No object has that name; why, where that can be said.
pub(crate) fn nothing(snapshot: &Snapshot, source: &Source, word: &str) -> Failure {
    let held = descriptor_named(word);
    let Some((pid, fd)) = held else {
        return Failure::new(Exit::Nothing, format!("nothing here is called {word}")).hint(
            "`switchboard list` shows what there is; `switchboard list --kinds` how things are called",
        );
    };
    let Some(process) = snapshot.process(pid) else {
        return Failure::new(Exit::Nothing, format!("no process {pid}"));
    };
    if process.kernel {
        return Failure::new(Exit::Nothing, of_the_kernel(process));
    }
    if !process.readable {
        return hidden(process);
    }
    let label = process.label();
    match source.is_live().then(|| leads_to(pid, fd)) {
        Some(Ok(to)) => {
            let problem = format!("{word} is open and leads to {to}: nothing to talk through");
            Failure::new(Exit::Nothing, problem)
        }
        Some(Err(_)) => Failure::new(Exit::Nothing, format!("{label} has no descriptor {fd}")),
        None => Failure::new(
            Exit::Nothing,
            format!("{label} had no descriptor {fd}, or one that nobody talks through"),
        ),
    }
}

/// What a process holds may not be seen.
pub(crate) fn hidden(process: &Process) -> Failure {
    Failure::new(Exit::Refused, format!("what {} holds cannot be seen", process.label())).hint(
        "it is another user's, or may not be traced; `switchboard doctor` says what would show it",
    )
}
