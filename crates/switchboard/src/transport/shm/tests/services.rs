//! Clients and servers that say what they may not, in rings that are right: the one lied to says so, and goes on
//! with others.

use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_testkit::{DEADLINE, Scratch};

use crate::error::{Error, RecvError};
use crate::link::{Answer, Pattern};
use crate::message::Schema;
use crate::options::Options;
use crate::pattern::service::CallError;
use crate::transport::Setup;
use crate::transport::service_flavor::{Ending, Heard};
use crate::transport::shm::calling::{
    CALL, CALL_WITH_TIME, CANCEL, DONE, FAIL, GRANT, PART, REPLY, begin, word,
};
use crate::transport::shm::ends::End;
use crate::transport::shm::hand::Manner;
use crate::transport::shm::hello::Id;
use crate::transport::shm::receiver::ReceiverCore;
use crate::transport::shm::sender::SenderCore;
use crate::transport::shm::{ShmClient, ShmServer};

fn setup(scratch: &Scratch) -> Setup {
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(scratch.path(), private).expect("a mode");
    let address = format!("shm:service?scope={}", scratch.path().display());
    Setup::new(
        address.parse().expect("an address"),
        Options::default().follow(true).prefetch(4),
        Schema::bytes(),
    )
}

/// A peer with both rings, that says what it likes.
struct Liar {
    says: End<SenderCore>,
    hears: End<ReceiverCore>,
}

impl Liar {
    fn new(setup: &Setup, (says, hears): (Pattern, Pattern)) -> Self {
        let id = Id::random().expect("an id");
        let hears = ReceiverCore::open_as(setup.again(), (hears, id)).expect("an end");
        let says = SenderCore::open_addressed(setup.again(), (says, id)).expect("an end");
        let hears = End::around(hears, setup).expect("an end");
        Self { says: End::around(says, setup).expect("an end"), hears }
    }

    fn client(setup: &Setup) -> Self {
        Self::new(setup, (Pattern::Service, Pattern::Answers))
    }

    fn server(setup: &Setup) -> Self {
        Self::new(setup, (Pattern::Answers, Pattern::Service))
    }

    /// Says this to whoever is there first.
    fn say(&mut self, bytes: &[u8]) {
        let since = Instant::now();
        loop {
            let said = self.says.call(|core, _| {
                let to = core.addressees().next();
                Ok::<_, Error>(
                    to.is_some_and(|to| core.try_send_to((to.place, to.id), &[], bytes).is_ok()),
                )
            });
            if said.expect("an end") {
                return;
            }
            assert!(since.elapsed() < DEADLINE, "nobody is there");
            self.says.sleep(Deadline::after(Duration::from_millis(5))).expect("a sleep");
        }
    }

    /// The number of the next call.
    fn hear(&mut self) -> u64 {
        let since = Instant::now();
        loop {
            if self.hears.next(Manner::Copied).expect("an end") {
                let raw = self.hears.lent();
                let (receipt, bytes) = (raw.receipt, raw.payload[..8].to_vec());
                self.hears.acknowledge(receipt);
                let said = u64::from_le_bytes(bytes.try_into().expect("a word"));
                return said & ((1 << 56) - 1);
            }
            assert!(since.elapsed() < DEADLINE, "nothing is said");
            self.hears.wait(Deadline::after(Duration::from_millis(5))).expect("a wait");
        }
    }
}

fn said(kind: u8, number: u64, more: &[u8]) -> Vec<u8> {
    [&word(kind, number).to_le_bytes()[..], more].concat()
}

/// A call, answered with its own bytes. One that goes to a liar before it is gone is made again.
fn exchange(client: &mut ShmClient, server: &mut ShmServer) {
    let since = Instant::now();
    let mut key = None;
    loop {
        assert!(since.elapsed() < DEADLINE, "no reply");
        let Some(call) = key else {
            match client.try_call(b"question", Some(DEADLINE)) {
                Err(CallError::Full) => std::thread::yield_now(),
                result => key = Some(result.expect("a call")),
            }
            continue;
        };
        let mut asked = None;
        // What is reported is of the liar.
        let _ = server.take(&mut |request| asked = Some((request.receipt, request.bytes.to_vec())));
        if let Some((receipt, bytes)) = asked.filter(|(_, bytes)| bytes == b"question") {
            server.answer(receipt, Answer::Reply(&bytes)).expect("an answer");
        }
        let mut reply = Vec::new();
        match client.take(call, &mut |bytes| reply = bytes.to_vec()) {
            Some(Heard::Reply) => return assert_eq!(reply, b"question"),
            None => {
                client.look().expect("an end");
            }
            Some(Heard::Over(Ending::Gone { .. })) => key = None,
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_server_turns_lying_clients_away() {
    let scratch = Scratch::new();
    let setup = setup(&scratch);
    let mut server = ShmServer::open(&setup).expect("a server");
    let mut client = ShmClient::open(&setup).expect("a client");
    exchange(&mut client, &mut server);
    let call = said(CALL, 1, b"a");
    let lies: [(&str, Vec<Vec<u8>>); 11] = [
        ("more calls than it may have open", (1..=5).map(|at| said(CALL, at, b"a")).collect()),
        ("nothing", vec![vec![]]),
        ("half a word", vec![vec![1, 2, 3]]),
        ("no kind", vec![said(0, 1, b"x")]),
        ("an unknown kind", vec![said(99, 1, b"x")]),
        ("an answer", vec![said(REPLY, 1, b"x")]),
        ("a time that is too short", vec![said(CALL_WITH_TIME, 1, b"x")]),
        ("a grant too short", vec![said(GRANT, 1, b"x")]),
        ("a call twice", vec![call.clone(), call.clone()]),
        ("a call that it has open", vec![call.clone(), said(CANCEL, 9, b""), call.clone()]),
        ("a grant of nothing", vec![call.clone(), said(GRANT, 1, &7_u64.to_le_bytes())]),
    ];
    for (lie, words) in lies {
        let mut liar = Liar::client(&setup);
        let since = Instant::now();
        let mut told = false;
        for word in words {
            liar.say(&word);
            while !told {
                // What it called before stays in work.
                match server.take(&mut |_| {}) {
                    Err(RecvError::PeerMisbehaved { .. }) => told = true,
                    Ok(true) => break,
                    Ok(false) if matches!(word.get(7), Some(&CANCEL)) => break,
                    other => drop(other),
                }
                assert!(since.elapsed() < DEADLINE, "{lie}: not noticed");
            }
        }
        while !told {
            told = matches!(server.take(&mut |_| {}), Err(RecvError::PeerMisbehaved { .. }));
            assert!(since.elapsed() < DEADLINE, "{lie}: not noticed");
        }
        exchange(&mut client, &mut server);
    }
}

#[test]
fn a_client_turns_a_lying_server_away() {
    let lies: [(&str, Vec<Vec<u8>>, u64); 9] = [
        ("nothing", vec![vec![]], 0),
        ("an answer to nothing", vec![said(REPLY, 0, b"x")], 0),
        ("an answer to another call", vec![begin(REPLY, 0)], 1),
        ("no kind", vec![begin(0, 0)], 0),
        ("a call", vec![begin(CALL, 0)], 0),
        ("a failure without lengths", vec![begin(FAIL, 0)], 0),
        ("a done of the last call", vec![begin(DONE, 0)], u64::MAX >> 9),
        ("a part of another call", vec![begin(PART, 0)], 1),
        ("an unknown kind", vec![begin(200, 0)], 0),
    ];
    for (lie, words, beyond) in lies {
        let scratch = Scratch::new();
        let setup = setup(&scratch);
        let mut client = ShmClient::open(&setup).expect("a client");
        let mut liar = Liar::server(&setup);
        let since = Instant::now();
        let key = loop {
            match client.try_call(b"question", None) {
                Err(CallError::Full) => assert!(since.elapsed() < DEADLINE, "{lie}: no server"),
                result => break result.expect("a call"),
            }
        };
        let number = liar.hear();
        for mut word in words {
            // Of this call, or of one beyond it.
            if word.len() == 8 {
                let kind = word[7];
                word = said(kind, number.wrapping_add(beyond) & ((1 << 56) - 1), b"");
            }
            liar.say(&word);
        }
        loop {
            match client.take(key, &mut |_| {}) {
                Some(Heard::Over(Ending::Misbehaved { .. })) => break,
                Some(other) => panic!("{lie}: {other:?}"),
                None => drop(client.look()),
            }
            assert!(since.elapsed() < DEADLINE, "{lie}: not noticed");
        }
        drop(liar);
        let mut server = ShmServer::open(&setup).expect("a server");
        exchange(&mut client, &mut server);
    }
}
