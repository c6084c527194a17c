//! The command, between real processes. One module per subject; `run` starts and watches the binary.

#![forbid(unsafe_code)]

mod closed_output;
mod command;
mod demo;
mod errors;
mod events;
mod examples;
mod formats;
mod help;
mod interrupted;
mod limits;
mod live_topics;
mod lock;
mod logs;
mod objects;
mod run;
mod seeing;
mod send_recv;
mod services;
mod states;
mod topics;
