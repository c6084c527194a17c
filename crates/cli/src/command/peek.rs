//! `switchboard peek OBJECT`: the head of what is queued, without taking it.

use std::fmt::Write;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_inspect::contents::{Contents, Head, Unseen, peek};
use switchboard_inspect::name::{Named, find};
use switchboard_inspect::{Kind, Object};

use super::with_examples;
use crate::endpoint::{bytes, duration};
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::{Source, kinds_of, say_missing};
use crate::output::{Failure, Outcome, counted, note, print, print_json};
use crate::subject::nothing;
use crate::value::bytes_as_json;

#[derive(Args, Debug)]
struct Arguments {
    /// Path, key, address, id, inode, or pid:N/fd:M
    object: String,
    /// How much to show at most
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "512")]
    bytes: u64,
    /// As hexadecimal digits with the text beside them
    #[arg(long)]
    hex: bool,
    /// Look again and again, and show the head whenever it has changed
    #[arg(long)]
    follow: bool,
    /// How often to look
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "200ms", requires = "follow")]
    every: Duration,
    /// Everything, as JSON; a line per look with --follow
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("peek"));
    with_examples(
        command.about("Show the head of what is queued, without taking it, and descriptors in flight").long_about(
            "Show the head of what waits in a pipe, FIFO, socket or System V queue, what lies in shared memory, or an eventfd's count, without \
             taking it, and which descriptors are in flight.\n\nNobody is disturbed: nothing is taken, nobody waits, a FIFO is never opened. Of datagrams only \
             the next can be seen. A POSIX queue cannot be looked into.\n\nWith --follow it goes on until it is interrupted (exit 1), or the object is gone (exit 3).",
        ),
        "  switchboard peek pipe:4471
  switchboard peek pid:812/fd:3 --hex
  switchboard peek 0xbeef --bytes 64KiB
  switchboard peek /dev/shm/engine --follow
  switchboard peek unix:90211 --json",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let interrupt = if arguments.follow { Some(Interrupt::watch_output()?) } else { None };
    let (mut last, mut count) = (None, 0);
    loop {
        let (id, found) = look(&arguments, last.is_none())?;
        if last.as_ref() != Some(&found) {
            show(&arguments, &id, &found)?;
            last = Some(found);
            count += 1;
        }
        let Some(interrupt) = &interrupt else { return Ok(Exit::Done) };
        let deadline = switchboard_kernel::io::Deadline::after(arguments.every);
        let ended = switchboard_kernel::io::wait_for(
            interrupt.fd(),
            switchboard_kernel::io::Interest::Readable,
            deadline,
        );
        if ended.unwrap_or(true) {
            return Err(interrupt.failure(&format!("{} shown", counted(count, "head"))));
        }
    }
}

/// The object of this name, and what is in it.
fn look(arguments: &Arguments, is_first: bool) -> Result<(String, Contents), Failure> {
    let word = &arguments.object;
    let snapshot = kinds_of(word).take();
    let source = Source::live(arguments.json);
    let objects = match find(&snapshot, word, source.place(word)) {
        Named::Objects(objects) => objects,
        Named::Process(_) => {
            let problem = format!("{word} is a process, not an object");
            return Err(Failure::new(Exit::Usage, problem));
        }
    };
    if is_first {
        say_missing(&snapshot.coverage);
    }
    // A port is a listener's, too, and a file that is locked or slept on is memory or a FIFO first.
    let can = |object: &&&Object| {
        !object.is_listening() && !matches!(object.kind, Kind::Lock | Kind::Futex)
    };
    let mut fitting = objects.iter().filter(can);
    let object = match (fitting.next(), fitting.next()) {
        (Some(_), Some(_)) => {
            let ids: Vec<&str> = objects.iter().map(|object| object.id.as_str()).collect();
            let problem = format!("{word} names several objects: {}", ids.join(", "));
            return Err(Failure::new(Exit::Usage, problem).hint("give one of these ids"));
        }
        (Some(object), None) => object,
        (None, _) => match objects.first() {
            Some(object) => object,
            None => return Err(nothing(&snapshot, &source, word)),
        },
    };
    let most = usize::try_from(arguments.bytes).unwrap_or(usize::MAX);
    let found = peek(object, most).map_err(|unseen| {
        let (exit, why) = match unseen {
            Unseen::Never(why) => (Exit::Failed, why),
            Unseen::Refused(why) => (Exit::Refused, why),
            Unseen::Nobody(why) => (Exit::Nothing, why),
        };
        Failure::new(exit, format!("{}: {why}", object.id))
    })?;
    Ok((object.id.clone(), found))
}

fn show(arguments: &Arguments, id: &str, found: &Contents) -> Result<(), Failure> {
    if arguments.json {
        return print_json(&as_json(id, found));
    }
    let shown = |bytes: &[u8]| if arguments.hex { dump(bytes) } else { lines(bytes) };
    let mut text = String::new();
    let is_empty = match &found.head {
        Head::Bytes(bytes) => {
            text += &shown(bytes);
            bytes.is_empty()
        }
        Head::Messages(messages) => {
            for (kind, bytes) in messages {
                let kind = kind.map_or_else(String::new, |kind| format!("type {kind}, "));
                text +=
                    &format!("{kind}{}:\n{}", counted(bytes.len() as u64, "byte"), shown(bytes));
            }
            messages.is_empty()
        }
        Head::Count(count) => {
            text += &format!("{count}\n");
            false
        }
    };
    for descriptor in &found.descriptors {
        text += &format!("with it comes {descriptor}\n");
    }
    print(&text)?;
    if is_empty {
        note(&format!("{id}: nothing waits"));
    }
    if found.more {
        note("there is more");
    }
    if let Some(count) = found.in_flight.filter(|&count| count > 0) {
        note(&format!("{} in flight in it", counted(count, "descriptor")));
    }
    found.notes.iter().for_each(|text| note(text));
    Ok(())
}

/// Text as it is where it is printable, a line per line of it; all else escaped.
fn lines(bytes: &[u8]) -> String {
    let ends_well = bytes.ends_with(b"\n");
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() && !ends_well {
        return String::new();
    }
    let mut text = String::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        for part in line.chunks(switchboard_inspect::text::LONGEST / 2) {
            text += &switchboard_inspect::text::escaped(part);
        }
        text.push('\n');
    }
    text
}

/// Sixteen bytes a line, with their offset and their text.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, line) in bytes.chunks(16).enumerate() {
        let mut digits = String::new();
        for byte in line {
            // A String takes whatever is written to it.
            let _ = write!(digits, "{byte:02x} ");
        }
        let plain = |&byte: &u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
        let plain: String = line.iter().map(plain).collect();
        text += &format!("{:08x}  {digits:<48} {plain}\n", at * 16);
    }
    text
}

fn as_json(id: &str, found: &Contents) -> Value {
    let mut value = json!({
        "object": id, "more": found.more, "descriptors": found.descriptors,
        "in_flight": found.in_flight, "notes": found.notes,
    });
    match &found.head {
        Head::Bytes(bytes) => value["bytes"] = bytes_as_json(bytes),
        Head::Count(count) => value["count"] = (*count).into(),
        Head::Messages(messages) => {
            let all = messages.iter().map(|(kind, bytes)| {
                let mut message = bytes_as_json(bytes);
                message["type"] = (*kind).into();
                message
            });
            value["messages"] = all.collect();
        }
    }
    value
}
