//! How two processes of a measurement agree when to begin and when to end: a socket to each other, as
//! their standard input. Nothing that is measured goes through it.

use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::Failure;

/// The socket to the other side.
pub(crate) struct Control(std::io::Stdin);

/// A word is at most so long.
const MOST_BYTES: usize = 1024;

impl Control {
    /// Standard input.
    pub(crate) fn inherited() -> Self {
        Self(std::io::stdin())
    }

    /// Says a word.
    pub(crate) fn say(&self, word: &str) -> Result<(), Failure> {
        say(&self.0, word)
    }

    /// Waits for a word.
    pub(crate) fn hear(&self) -> Result<String, Failure> {
        hear(&self.0)
    }

    /// Waits until the other side is here too.
    pub(crate) fn meet(&self) -> Result<(), Failure> {
        self.say("here")?;
        match self.hear()?.as_str() {
            "here" => Ok(()),
            other => Err(format!("heard {other:?} instead of the other side's coming").into()),
        }
    }

    /// Waits until the other side has gone.
    pub(crate) fn until_hung_up(&self) {
        while self.hear().is_ok() {}
    }
}

/// Says a word.
pub(crate) fn say(socket: impl AsFd, word: &str) -> Result<(), Failure> {
    send(socket, word.as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a word.
pub(crate) fn hear(socket: impl AsFd) -> Result<String, Failure> {
    let mut word = vec![0; MOST_BYTES];
    let (len, _) = recv(socket, &mut word[..], RecvFlags::empty())?;
    if len == 0 {
        return Err("the other side is gone".into());
    }
    word.truncate(len);
    Ok(String::from_utf8(word)?)
}
