//! A server that goes as soon as it has said all: its client gets all of it.

use std::sync::mpsc::channel;
use std::time::Duration;

use switchboard::{Server, Text};
use switchboard_testkit::DEADLINE;

use super::text;
use super::worker::Words;
use crate::conformance::each_service;

const PART_BYTES: usize = 16 << 10;
/// More than the client's kernel takes.
const PARTS_OVER_TCP: usize = 20;
const PARTS: usize = 4;

#[test]
fn what_a_server_said_last_arrives_although_it_has_not_read_all() {
    each_service(|meeting| {
        let parts = if meeting.row.capabilities.crosses_hosts { PARTS_OVER_TCP } else { PARTS };
        let words = Words::open(meeting.address()).expect("a service");
        let server: Server<Text, Text> = words.server().expect("a server");
        let client = words.client().expect("a client");
        let (said, heard) = channel();
        let (granted, taken) = channel();
        let serving = std::thread::spawn(move || {
            let mut call = server.recv_call_timeout(DEADLINE).expect("a call");
            let mut send = |part: usize| {
                let words = Text("x".repeat(PART_BYTES + part));
                call.send_timeout(&words, DEADLINE).expect("sent");
            };
            send(0);
            taken.recv_timeout(DEADLINE).expect("a part was taken");
            // That it was taken is not read.
            (1..parts).for_each(send);
            call.finish().expect("finished");
            drop(server);
            // By now its client may have all, and be gone.
            let _ = said.send(());
        });
        let pending = client.start_timeout(&text("all"), DEADLINE).expect("a call");
        let mut replies = pending.into_replies();
        let mut came = vec![replies.next().expect("a part").expect("a part")];
        granted.send(()).expect("somebody who hears");
        // Over TCP it goes on being there for this while: it waits for the client's kernel.
        let _ = heard.recv_timeout(Duration::from_millis(200));
        for part in replies {
            came.push(part.unwrap_or_else(|error| panic!("after {}: {error}", came.len())));
        }
        let lengths: Vec<usize> = came.iter().map(|part| part.0.len()).collect();
        let said: Vec<usize> = (0..parts).map(|part| PART_BYTES + part).collect();
        assert_eq!(lengths, said);
        serving.join().expect("served");
    });
}
