//! `switchboard subscribe ADDRESS`: the messages of a topic on standard output, or a command for each.
//!
//! It works as `recv` does, from a topic.

use std::time::SystemTime;

use clap::{Arg, ArgMatches};
use switchboard::{Bytes, Start, Topic};

use super::{recv, with_examples};
use crate::endpoint::{self, Pattern};
use crate::output::Outcome;

pub(super) fn build() -> clap::Command {
    let from = Arg::new(FROM)
        .long(FROM)
        .value_name("START")
        .default_value("new")
        .value_parser(start)
        .help(
            "Begin with: new, oldest, a message's number, a time as 2026-11-21T10:00:00Z, or so long \
             ago, as 15m; the last three in a log",
        );
    let schemes = endpoint::schemes(|row| row.patterns().contains(&"topic"));
    with_examples(
        recv::arguments("subscribe")
            .arg(from)
            .mut_arg("follow", |argument| argument.help("Stay when every publisher has ended"))
            .mut_arg("verbose", |argument| argument.hide(true))
            .mut_arg("command", |argument| {
                argument.help("Run this for each message, with the message on its standard input")
            })
            .about("Subscribe to a topic: print each message as a line, or run a command for it")
            .long_about(format!(
                "Subscribe to a topic: print each message as a line, or run a command for it.\n\nEvery \
                 subscriber gets every message. Topics are carried by: {schemes}. Nothing is \
                 acknowledged or given back: a message for which COMMAND fails, or that the output \
                 cannot hold, is reported and passed over, and the exit code is 1. COMMAND finds \
                 SWITCHBOARD_ADDRESS in its environment.\n\nOver connections (unix:, tcp: and others) it \
                 waits for a publisher, begins with the history that this one keeps, and ends when every \
                 publisher that joined has ended. A publisher that dies, and messages that were dropped \
                 because this was too slow, are reported, and the exit code is 1. With ?bind, several \
                 publishers can come (with ?connect).\n\nFrom a log (file:) it goes on until --count, \
                 --timeout or Ctrl-C ends it; --no-wait takes what is there. With ?reader=NAME a log \
                 keeps the place, and the next subscriber of that name goes on there. What cannot be \
                 read, or was removed by retention, is reported, and the exit code is 1.",
            )),
        "  switchboard subscribe unix:./readings.sock
  switchboard subscribe --follow 'unix:./all.sock?bind' -- ./store
  switchboard subscribe file:/var/tmp/readings
  switchboard subscribe --from oldest --no-wait file:/var/tmp/readings
  switchboard subscribe --from 15m 'file:/var/tmp/readings?reader=archive' -- ./store",
    )
}

const FROM: &str = "from";

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let start = matches.get_one(FROM).copied().unwrap_or_default();
    recv::run_with(matches, Pattern::Topic, |address, options| {
        Ok(Topic::<Bytes>::at(address, options).subscriber(start)?.into())
    })
}

/// Where to begin.
fn start(text: &str) -> Result<Start, String> {
    if let Ok(number) = text.parse() {
        return Ok(Start::Number(number));
    }
    match text {
        "new" => return Ok(Start::New),
        "oldest" => return Ok(Start::Oldest),
        _ => {}
    }
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(Start::Time(time));
    }
    let ago = endpoint::duration(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    ago.map(Start::Time).ok_or_else(|| {
        "write new, oldest, a number, a time as 2026-11-21T10:00:00Z, or so long ago, as 15m".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts() {
        assert_eq!(start("new"), Ok(Start::New));
        assert_eq!(start("oldest"), Ok(Start::Oldest));
        assert_eq!(start("17"), Ok(Start::Number(17)));
        let Ok(Start::Time(time)) = start("2026-11-21T10:00:00Z") else { panic!("no time") };
        let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        assert_eq!(since.as_secs(), 1_795_255_200);
        assert!(matches!(start("15m"), Ok(Start::Time(time)) if time < SystemTime::now()));
        for wrong in ["", "yesterday", "-1", "2026-13-01T00:00:00Z"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}
