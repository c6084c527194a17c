//! What would be removed, and what not, and why: from what `leaks` finds.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard_clean::remove::{effective_user, may_remove, too_young};
use switchboard_clean::{Error, Reason, Target};
use switchboard_inspect::analysis::leaks::{Leak, LeakOptions, leaks};
use switchboard_inspect::analysis::wakers::Grade;
use switchboard_inspect::name::{Named, find};
use switchboard_inspect::{Kind, Object, Request, Snapshot};

use crate::exit_code::Exit;
use crate::machine::Source;
use crate::output::{Failure, counted, note};
use crate::subject::nothing;

/// What has to be known for this.
pub(super) fn request(folders: &[PathBuf]) -> Request {
    Request::everything().leaks(folders)
}

/// An object that is to go.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) object: &'a Object,
    pub(super) target: Target,
    pub(super) leak: Leak,
    /// It was asked for.
    pub(super) is_named: bool,
}

impl Item<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        self.object.names.last().map(String::as_str)
    }

    pub(super) fn title(&self) -> String {
        let name = self.name().map_or_else(String::new, |name| format!(" {name}"));
        format!("{}{name}", self.object.id)
    }

    /// Whether it could not be checked enough. Who names something has chosen it whatever else speaks against that; but who may have operations to
    /// undo on a set is shown to nobody.
    fn is_unchecked(&self) -> bool {
        let is_set = self.leak.kind == Kind::SysvSem && !self.leak.not_checked.is_empty();
        is_set || (!self.is_named && self.leak.certainty == Grade::Possible)
    }

    pub(super) fn text(&self) -> String {
        let size = self.object.size.filter(|_| self.object.kind.is_memory());
        let size = size.map_or_else(String::new, |size| format!(", {}", counted(size, "byte")));
        let mut text = format!("{}: {} left behind{size}\n", self.title(), certainly(&self.leak));
        for reason in &self.leak.reasons {
            text += &format!("  {reason}\n");
        }
        for doubt in &self.leak.doubts {
            text += &format!("  but: {doubt}\n");
        }
        for unknown in &self.leak.not_checked {
            text += &format!("  not checked: {unknown}\n");
        }
        text
    }

    pub(super) fn as_json(&self) -> Value {
        json!({ "object": self.object.id, "kind": self.object.kind, "name": self.name(), "leak": self.leak })
    }
}

/// Whether it goes without being named: it is certainly or probably left behind; or possibly, and nothing speaks against it but what could not
/// be checked.
fn is_likely(leak: &Leak) -> bool {
    leak.certainty > Grade::Possible || leak.doubts.is_empty()
}

fn certainly(leak: &Leak) -> &'static str {
    match leak.certainty {
        Grade::Certain => "certainly",
        Grade::Probable => "probably",
        Grade::Possible => "possibly",
    }
}

/// Whether the kernel does not tell of such an object whether somebody has it or waits for it: only who is seen is known. Of others, a lease, a count
/// or an answer says it of all namespaces.
fn is_looked_for(kind: Kind) -> bool {
    matches!(kind, Kind::Fifo | Kind::SysvMsg | Kind::SysvSem)
}

/// Why what is not named stays where not everybody is seen.
const OUTSIDE: &str = "who lives outside of this PID namespace is not seen, and may use it: it goes only if it is named";

/// What goes, and what stays.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub(super) items: Vec<Item<'a>>,
    /// Leaks that cannot be removed here, and what was named and is none.
    left: Vec<(String, Error)>,
    /// Leaks of other users.
    foreign: u64,
    /// Leaks that are only possible.
    possible: u64,
    /// Something that was named stays.
    refused: bool,
    /// Something that was named is not there.
    missing: bool,
    /// What was made or used within this time stays.
    min_age: Duration,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot,
        words: &[String],
        min_age: Duration,
    ) -> Result<Self, Failure> {
        // What is younger is left, whatever it looks like; the removal itself looks once more.
        let young = min_age.min(LeakOptions::YOUNG);
        let found = leaks(snapshot, &LeakOptions { young });
        let mut plan = Self { min_age, ..Self::default() };
        if words.is_empty() {
            for leak in found {
                match snapshot.object(&leak.object) {
                    Some(_) if !is_likely(&leak) => plan.possible += 1,
                    Some(object) if snapshot.coverage.outside && is_looked_for(object.kind) => {
                        let error = Error::new(Reason::Unseen, OUTSIDE);
                        plan.left.push((object.id.clone(), error));
                    }
                    Some(object) => plan.take(object, leak, false),
                    None => {}
                }
            }
            return Ok(plan);
        }
        let source = Source::live(false);
        for word in words {
            let Named::Objects(objects) = find(snapshot, word, source.place(word)) else {
                let problem = format!("{word} is a process: only objects are removed");
                return Err(Failure::new(Exit::Usage, problem));
            };
            if objects.is_empty() {
                if words.len() == 1 {
                    return Err(nothing(snapshot, &source, word));
                }
                plan.missing = true;
                let error = Error::new(Reason::Gone, "nothing here is called so");
                plan.left.push((word.clone(), error));
            }
            for object in objects {
                if plan.items.iter().any(|item| item.object.id == object.id) {
                    continue;
                }
                match found.iter().find(|leak| leak.object == object.id) {
                    Some(leak) => plan.take(object, leak.clone(), true),
                    None => plan.refuse(object, no_leak(snapshot, object)),
                }
            }
        }
        Ok(plan)
    }

    fn take(&mut self, object: &'a Object, leak: Leak, is_named: bool) {
        let maker = object.details.get("made by user").and_then(|uid| uid.parse().ok());
        if let Some(uid) = object.uid
            && !may_remove(effective_user(), &[uid, maker.unwrap_or(uid)])
        {
            if is_named {
                let why = format!("it belongs to user {uid}: they or root may remove it");
                self.refuse(object, Error::new(Reason::Refused, why));
            } else {
                self.foreign += 1;
            }
            return;
        }
        let target = match leak.idle_ms {
            Some(idle) if u128::from(idle) < self.min_age.as_millis() => {
                Err(too_young(idle / 1000))
            }
            _ => Target::of(object),
        };
        match target {
            Ok(target) => self.items.push(Item { object, target, leak, is_named }),
            Err(error) if is_named => self.refuse(object, error),
            Err(error) => self.left.push((object.id.clone(), error)),
        }
    }

    fn refuse(&mut self, object: &Object, error: Error) {
        self.refused = true;
        self.left.push((object.id.clone(), error));
    }

    /// Whether something is among them that could not be checked enough.
    pub(super) fn is_unchecked(&self) -> bool {
        self.items.iter().any(Item::is_unchecked)
    }

    /// Says what could not be checked.
    pub(super) fn say_unchecked(&self) {
        for item in self.items.iter().filter(|item| item.is_unchecked()) {
            for what in &item.leak.not_checked {
                note(&format!("{}: not checked: {what}", item.title()));
            }
        }
    }

    /// How the command ends, but for what happens when things are removed.
    pub(super) fn exit(&self) -> Exit {
        match (self.refused, self.missing) {
            (true, _) => Exit::Refused,
            (false, true) => Exit::Nothing,
            (false, false) => Exit::Done,
        }
    }

    pub(super) fn left_as_json(&self) -> Value {
        let left = self.left.iter();
        left.map(|(id, error)| json!({ "object": id, "why": error.to_string() })).collect()
    }

    pub(super) fn say_left(&self) {
        for (id, error) in &self.left {
            note(&format!("{id} stays: {error}"));
        }
        if self.possible > 0 {
            let what = counted(self.possible, "object");
            note(&format!(
                "{what} more possibly left behind: switchboard leaks --all shows them; they go only if they are named"
            ));
        }
        if self.foreign > 0 {
            let what = counted(self.foreign, "object");
            note(&format!("{what} of other users: they or root can remove them"));
        }
    }
}

/// Why something is not taken for left behind.
fn no_leak(snapshot: &Snapshot, object: &Object) -> Error {
    let mut holders: Vec<String> = object.ends.iter().map(|end| snapshot.label(end.pid)).collect();
    holders.dedup();
    let why = match holders.len() {
        0 => "it does not look left behind: `switchboard show` says what it is; `switchboard unlink` removes names whatever they are".to_owned(),
        _ => format!("it is in use, or was last used by who lives: {}", holders.join(", ")),
    };
    Error::new(Reason::InUse, why)
}
