//! `send --raw` and `recv --raw` of a large file, against `cat` through a FIFO and `socat` through a
//! Unix socket.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::scratch::Scratch;
use crate::transfer::{self, CAT, Contender, Noise, Run, SOCAT, Target, words};
use crate::{Failure, command};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file's size in MiB
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    #[command(flatten)]
    transfer: transfer::Arguments,
}

/// Whether every target is reached.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let switchboard = command::switchboard()?;
    let scratch = Scratch::new()?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let input = transfer::input(&scratch, arguments.size_mib << 20, |block| {
        for word in block.as_chunks_mut().0 {
            *word = noise.next().to_le_bytes();
        }
    })?;
    let mut contenders =
        vec![transfer::cat(), transfer::socat(None), transfer::socat(Some(262_144))];
    contenders
        .extend(["unix", "unix-seqpacket", "fifo", "tcp"].map(|scheme| raw(&switchboard, scheme)));
    let targets =
        [Target { baseline: CAT, at_least: 1.5 }, Target { baseline: SOCAT, at_least: 2.0 }];
    transfer::compare("raw", &arguments.transfer, &scratch, &input, contenders, &targets)
}

fn raw(switchboard: &Path, scheme: &'static str) -> Contender {
    let switchboard = switchboard.to_string_lossy().into_owned();
    let words = move |run: &Run<'_>| -> Result<_, Failure> {
        let address = match scheme {
            "tcp" => format!("tcp:127.0.0.1:{}", free_port()?),
            _ => format!("{scheme}:{}", run.path("meet")),
        };
        let side = |verb| words![switchboard.clone(), verb, "--raw", address.clone()];
        Ok([side("send"), side("recv")])
    };
    let appears = (scheme != "tcp").then_some("meet");
    Contender {
        name: format!("switchboard, {scheme}:"),
        words: Box::new(words),
        appears,
        baseline: false,
    }
}

/// A port that nobody uses now.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
