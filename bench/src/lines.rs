//! `send` and `recv` of 64-byte lines, whose boundaries are kept, against `socat`, which moves the
//! same bytes and knows no boundaries.

use std::path::Path;

use crate::scratch::Scratch;
use crate::transfer::{self, Contender, Noise, Run, SOCAT, Target, words};
use crate::{Failure, command};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file's size in MiB
    #[arg(long, default_value_t = 256)]
    size_mib: u64,
    #[command(flatten)]
    transfer: transfer::Arguments,
}

/// A line, with its line feed.
const LINE_BYTES: usize = 64;

/// Whether every target is reached.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let switchboard = command::switchboard()?;
    let scratch = Scratch::new()?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let input = transfer::input(&scratch, arguments.size_mib << 20, |block| {
        for line in block.as_chunks_mut::<LINE_BYTES>().0 {
            *line = random_line(&mut noise);
        }
    })?;
    let contenders =
        vec![transfer::socat(None), transfer::socat(Some(262_144)), lines(&switchboard)];
    let targets = [Target { baseline: SOCAT, at_least: 1.0 }];
    transfer::compare("lines", &arguments.transfer, &scratch, &input, contenders, &targets)
}

fn random_line(noise: &mut Noise) -> [u8; LINE_BYTES] {
    let mut line = [b'\n'; LINE_BYTES];
    for at in (0..LINE_BYTES - 1).step_by(16) {
        let number = noise.next();
        for (i, byte) in line[at..(at + 16).min(LINE_BYTES - 1)].iter_mut().enumerate() {
            *byte = b'a' + (number >> (4 * i) & 15) as u8;
        }
    }
    line
}

fn lines(switchboard: &Path) -> Contender {
    let switchboard = switchboard.to_string_lossy().into_owned();
    let words = move |run: &Run<'_>| -> Result<_, Failure> {
        let address = format!("unix:{}", run.path("meet"));
        let side = |verb| words![switchboard.clone(), verb, address.clone()];
        Ok([side("send"), side("recv")])
    };
    Contender {
        name: "switchboard, unix: lines".into(),
        words: Box::new(words),
        appears: Some("meet"),
        baseline: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_line_feed() {
        let line = random_line(&mut Noise(1));
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(LINE_BYTES - 1));
    }
}
