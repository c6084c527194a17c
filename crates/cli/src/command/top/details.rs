//! A row that was opened: all about its object, process, channel or limit, and why who waits for it does.
//!
//! Source: docs/design/top.md; `show` and `why`.

use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::{stuck, why};
use switchboard_inspect::{Object, Process, WaitOn};

use super::limits::raised;
use super::rows::{Key, short, short_signed};
use super::sample::Sample;
use crate::command::show;
use crate::machine::{Users, fill};
use crate::output::{counted, shown};

/// Its lines.
pub(super) fn lines(sample: &Sample, key: &Key, users: &Users) -> Vec<String> {
    let text = match key {
        Key::Object(id) => sample.now.object(id).map(|object| of_object(sample, object, users)),
        Key::Process(pid, started_ticks) => {
            let process = sample.now.process(*pid);
            let process = process.filter(|process| process.started_ticks == *started_ticks);
            process.map(|process| of_process(sample, process, users))
        }
        Key::Channel(address) => {
            let mut all = sample.channels.iter().flat_map(|channels| &channels.around.channels);
            let found = all.find(|one| one.address == *address);
            found.map(|one| {
                let folder = shown(&one.folder.display().to_string());
                format!("{}\nmeets in {folder}\n", show::channel_text(address, &one.channel, users))
            })
        }
        Key::Limit(name) => {
            let found = sample.limits.iter().find(|one| one.name == *name);
            found.map(|limit| {
                let used =
                    limit.used.map_or_else(|| "not known".to_owned(), |used| used.to_string());
                format!(
                    "{}\n  now        {used}\n  most       {}\n  set by     {}\n  to raise   {}\n",
                    limit.name,
                    limit.most,
                    limit.set_by,
                    raised(limit)
                )
            })
        }
    };
    let text = text.unwrap_or_else(|| format!("{} is gone\n", name(key)));
    text.lines().map(str::to_owned).collect()
}

/// What a row is called.
pub(super) fn name(key: &Key) -> String {
    match key {
        Key::Process(pid, _) => format!("process {pid}"),
        Key::Object(text) | Key::Channel(text) | Key::Limit(text) => text.clone(),
    }
}

fn of_object(sample: &Sample, object: &Object, users: &Users) -> String {
    let mut text = show::text(&sample.now, object, users);
    let rates = sample.rates();
    let rate = rates.object(&object.id);
    let mut line = |name: &str, value: String| text += &format!("  {name:<14}  {value}\n");
    if let Some(usage) = object.socket {
        for (name, of) in [("memory in", usage.received), ("memory out", usage.sent)] {
            if let Some((used, most)) = of {
                line(name, format!("{used}/{most}"));
            }
        }
        if usage.dropped > 0 {
            line("dropped", counted(usage.dropped.into(), "datagram"));
        }
    }
    match rate.traffic {
        Some(traffic) => {
            line("bytes in", format!("{}/s", short(traffic.received_bytes_per_s)));
            line("bytes out", format!("{}/s", short(traffic.sent_bytes_per_s)));
        }
        None => line("bytes", "the kernel does not count what goes through".to_owned()),
    }
    if let Some(change) = rate.fill_per_s {
        line("grows", format!("{}/s", short_signed(change)));
    }
    let index = Index::new(&sample.now);
    let set = stuck::set(&index);
    let mut sentences = Vec::new();
    for process in &sample.now.processes {
        for thread in &process.threads {
            let waits_for_it = thread.wait.as_ref().is_some_and(|wait| match &wait.on {
                WaitOn::Objects(targets) => targets.iter().any(|target| target.object == object.id),
                _ => false,
            });
            if waits_for_it {
                sentences.push(why::sentence(&index, &set, process, thread));
            }
        }
    }
    if !sentences.is_empty() {
        text += &format!("\nWho waits:\n  {}\n", sentences.join("\n  "));
    }
    text
}

fn of_process(sample: &Sample, process: &Process, users: &Users) -> String {
    let mut text = format!(
        "{}: user {}, state {}, parent {}\n",
        process.label(),
        users.name(process.uid),
        process.state,
        sample.now.label(process.parent)
    );
    match sample.rates().process(process.pid) {
        Some(rate) => {
            text += &format!(
                "  reads {}/s, writes {}/s, files included\n",
                short(rate.received_bytes_per_s),
                short(rate.sent_bytes_per_s)
            );
        }
        None => text += "  what it reads and writes is not known\n",
    }
    if !process.readable {
        text += "  what it holds cannot be seen by this user\n";
    }
    let index = Index::new(&sample.now);
    let set = stuck::set(&index);
    text += "\nWhy it waits:\n";
    for thread in &process.threads {
        text += &format!("  {}\n", why::sentence(&index, &set, process, thread));
    }
    text += "\nWhat it holds:\n";
    for object in sample.now.objects_of(process.pid) {
        let name = object.names.last().map_or("", String::as_str);
        text += &format!("  {:<20}  {:>13}  {name}\n", object.id, fill(object));
    }
    text
}
