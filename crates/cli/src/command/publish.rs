//! `switchboard publish ADDRESS`: standard input, or arguments, as messages of a topic.
//!
//! It works as `send` does, into a topic.

use clap::ArgMatches;
use switchboard::{Bytes, Topic};

use super::{send, with_examples};
use crate::endpoint;
use crate::output::Outcome;

pub(super) fn build() -> clap::Command {
    let command = send::arguments("publish").mut_arg("priority", |argument| argument.hide(true));
    let schemes = endpoint::schemes(|row| row.patterns().contains(&"topic"));
    with_examples(
        command
            .about("Publish messages to a topic: each line of standard input is one")
            .long_about(format!(
                "Publish messages to a topic: each line of standard input is one.\n\nEvery subscriber \
                 gets every message; nobody has to be there. Topics are carried by: {schemes}. A log \
                 (file:) keeps them for subscribers that come later, also over a reboot; ?durability= \
                 says how safe a message is once this ends. Messages stay for good unless ?retain= (as \
                 12h or 7d) or ?retain-bytes= says otherwise: what is older, or more, is removed in \
                 whole segments (?segment=, 16 MiB), when publish begins and about once a second while \
                 it publishes, and never the newest segment of a publisher. Nothing is removed while \
                 nobody publishes.",
            )),
        "  date | switchboard publish file:/var/tmp/readings
  ./sensor | switchboard publish 'file:/var/tmp/readings?retain=7d&durability=synced'
  switchboard publish file:/var/tmp/readings --message 21.5",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    send::run_with(matches, |address, options| {
        Ok(Topic::<Bytes>::at(address, options).publisher()?.into())
    })
}
