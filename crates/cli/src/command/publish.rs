//! `switchboard publish ADDRESS`: standard input, or arguments, as messages of a topic.
//!
//! It works as `send` does, into a topic.

use clap::ArgMatches;
use switchboard::{Bytes, Topic};

use super::{send, with_examples};
use crate::endpoint::{self, Pattern};
use crate::output::Outcome;

pub(super) fn build() -> clap::Command {
    let command = send::arguments("publish")
        .mut_arg("priority", |argument| argument.hide(true))
        .mut_arg("no_wait", |argument| {
            argument.help(
                "Begin without a subscriber; fail when this side connects and nobody is there (exit 3)",
            )
        })
        .mut_arg("timeout", |argument| {
            argument.help(
                "Give up when nobody subscribes, or a subscriber takes nothing, for so long, as 500ms \
                 or 2s (exit 3)",
            )
        });
    let schemes = endpoint::schemes(|row| row.patterns().contains(&"topic"));
    with_examples(
        command
            .about("Publish messages to a topic: each line of standard input is one")
            .long_about(format!(
                "Publish messages to a topic: each line of standard input is one.\n\nEvery subscriber \
                 gets every message. Topics are carried by: {schemes}.\n\nOver connections (unix:, tcp: and \
                 others) it waits for the first subscriber before it begins, and ends when every \
                 subscriber has everything. Who comes later gets what is published then, after the last \
                 ?history=N messages. A subscriber that is too slow holds it up, unless \
                 ?overflow=drop-oldest says that it misses messages, which it is told, or ?overflow=fail \
                 that this ends; ?capacity= (4 MiB) says how much may wait. With ?connect it joins a \
                 subscriber that binds, as others can.\n\nA log (file:) needs nobody, and keeps messages \
                 for subscribers that come later, also over a reboot; ?durability= says how safe a message \
                 is once this ends. Messages stay for good unless ?retain= (as 12h or 7d) or \
                 ?retain-bytes= says otherwise: what is older, or more, is removed in whole segments \
                 (?segment=, 16 MiB), when publish begins and about once a second while it publishes, and \
                 never the newest segment of a publisher. Nothing is removed while nobody publishes.",
            )),
        "  ./sensor | switchboard publish unix:./readings.sock
  ./sensor | switchboard publish 'unix:./readings.sock?history=10&overflow=drop-oldest'
  jq -c '.[]' readings.json | switchboard publish --json 'unix:./all.sock?connect'
  ./sensor | switchboard publish 'file:/var/tmp/readings?retain=7d&durability=synced'
  switchboard publish file:/var/tmp/readings --message 21.5",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    send::run_with(matches, Pattern::Topic, |address, options| {
        Ok(Topic::<Bytes>::at(address, options).publisher()?.into())
    })
}
