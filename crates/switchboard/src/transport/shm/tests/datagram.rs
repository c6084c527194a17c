//! Datagrams come back as they were; what is wrong with one is said; no bytes can do harm.

use proptest::prelude::*;

use crate::transport::shm::datagram::{Datagram, Fault, LONGEST_BYTES, MOST_LINKS, WAKE};
use crate::transport::shm::hello::{Hello, Id, LARGEST_WINDOW, Pattern, Role};

fn hello() -> Hello {
    Hello {
        pattern: Pattern::Topic,
        role: Role::Writer,
        id: Id(*b"0123456789abcdef"),
        fingerprint: 0x1122_3344_5566_7788,
        max_message_bytes: 8192,
        window_messages: 64,
        program: "engine".into(),
        schema: "Reading".into(),
    }
}

fn receiver(window_messages: u32) -> Hello {
    Hello { pattern: Pattern::Queue, role: Role::Reader, window_messages, ..hello() }
}

/// From whom a datagram may come, and with how many descriptors.
fn origin(datagram: &Datagram) -> (Pattern, Role, usize) {
    match datagram {
        Datagram::Welcome { .. } | Datagram::Segment { .. } => (Pattern::Queue, Role::Writer, 1),
        Datagram::Taken { .. } => (Pattern::Queue, Role::Writer, 0),
        _ => (Pattern::Queue, Role::Reader, 0),
    }
}

#[test]
fn a_hello_is_laid_out_as_drawn() {
    let bytes = Datagram::Hello(hello()).encode();
    let mut expected = Vec::new();
    expected.extend_from_slice(&[1, 0, 0, 0]);
    expected.extend_from_slice(b"SWBDSHM1");
    expected.extend_from_slice(&[2, 0, 2, 1]);
    expected.extend_from_slice(b"0123456789abcdef");
    expected.extend_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
    expected.extend_from_slice(&8192_u32.to_le_bytes());
    expected.extend_from_slice(&64_u32.to_le_bytes());
    expected.extend_from_slice(b"\x06\0engine\x07\0Reading");
    assert_eq!(bytes, expected);
    assert_eq!(Datagram::decode_first(&bytes, 2), Ok(Datagram::Hello(hello())));
    expected.extend_from_slice(b"what a later version may add");
    assert_eq!(Datagram::decode_first(&expected, 2), Ok(Datagram::Hello(hello())));
}

#[test]
fn what_is_wrong_with_a_first_datagram_is_said() {
    let check = |bytes: &[u8], descriptors: usize, expected: &str| {
        let fault = Datagram::decode_first(bytes, descriptors).unwrap_err();
        assert!(fault.problem().contains(expected), "{fault:?} where {expected:?} was expected");
        fault
    };
    let good = Datagram::Hello(hello()).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    // With one, it is a hello to another user: no doorbell.
    for descriptors in [0, 3] {
        check(&good, descriptors, "where 2 belong to it");
    }
    check(&Datagram::Hello(receiver(1)).encode(), 2, "where 1 belong to it");
    check(&Datagram::Refuse("no".into()).encode(), 1, "where 0 belong to it");
    check(&good[..good.len() - 1], 2, "too short");
    check(b"", 0, "too short");
    check(&with(4, b'\n'), 2, "begins with \"\u{fffd}WBDSHM1\"");
    check(&with(0, 12), 2, "unknown kind 12");
    check(&with(15, 0), 2, "unknown role 0");
    assert!(matches!(check(&with(14, 9), 2, "unknown pattern, 9"), Fault::Mismatch(_)));
    let later = check(&with(12, 3)[..14], 2, "version 3 of shm: meets version 2");
    assert!(matches!(later, Fault::Mismatch(_)));
    for window in [0, LARGEST_WINDOW + 1, u32::MAX] {
        check(&Datagram::Hello(receiver(window)).encode(), 1, "256 are allowed");
    }
    check(&WAKE, 0, "a wake-up before its hello");
    let mut long = good.clone();
    long.resize(LONGEST_BYTES + 1, 0);
    check(&long, 2, "more than 1024 bytes");
    let mut reason = 7_u32.to_le_bytes().to_vec();
    reason.extend_from_slice(&[b'x'; 513]);
    check(&reason, 0, "more than 512 bytes");
}

#[test]
fn what_is_wrong_with_a_later_datagram_is_said() {
    let check = |datagram: &Datagram, fds: usize, pattern: Pattern, from: Role, expected: &str| {
        let fault = Datagram::decode_next(&datagram.encode(), fds, pattern, from).unwrap_err();
        assert!(fault.problem().contains(expected), "{fault:?} where {expected:?} was expected");
    };
    use Pattern::{Queue, Topic};
    use Role::{Reader, Writer};
    let welcome = |slot, position| Datagram::Welcome { slot, position, number: 0 };
    check(&Datagram::Hello(hello()), 2, Topic, Writer, "a second hello");
    check(&welcome(0, 0), 0, Topic, Reader, "a welcome from a subscriber");
    check(&welcome(0, 0), 1, Topic, Writer, "where 0 belong");
    check(&welcome(0, 0), 0, Queue, Writer, "where 1 belong");
    check(&welcome(MOST_LINKS as u32, 0), 0, Topic, Writer, "slot 3072");
    check(&welcome(0, 4), 0, Topic, Writer, "position 4");
    check(&Datagram::Segment { index: 0, len_bytes: 0 }, 1, Topic, Writer, "without bytes");
    check(&Datagram::Segment { index: 0, len_bytes: 1 }, 0, Topic, Writer, "where 1 belong");
    check(&Datagram::Segment { index: 0, len_bytes: 1 }, 1, Queue, Reader, "from a receiver");
    check(&Datagram::Reject { number: 1 }, 0, Topic, Reader, "a rejection from a subscriber");
    check(&Datagram::Reject { number: 0 }, 0, Queue, Reader, "number 0");
    check(&Datagram::Taken { number: 1 }, 0, Queue, Reader, "from a receiver");
    check(&Datagram::Leave, 0, Topic, Writer, "a leave from a publisher");
    check(&Datagram::Wake, 1, Topic, Writer, "with 1 descriptors");
    let mut long = WAKE.to_vec();
    long.push(0);
    let fault = Datagram::decode_next(&long, 0, Topic, Writer).unwrap_err();
    assert!(fault.problem().contains("too long"), "{fault:?}");
    let reserved = [2_u32, 0, 1, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
    let fault = Datagram::decode_next(&reserved, 0, Topic, Writer).unwrap_err();
    assert!(fault.problem().contains("1 where 0 has to be"), "{fault:?}");
    assert_eq!(Datagram::Wake.encode(), WAKE);
}

#[test]
fn what_is_shown_is_printable_and_short() {
    let named = Hello {
        program: "\u{1b}[31mevil\r\n".into(),
        schema: "é".repeat(300),
        ..receiver(LARGEST_WINDOW)
    };
    let bytes = Datagram::Hello(named).encode();
    assert!(bytes.len() <= LONGEST_BYTES);
    let Ok(Datagram::Hello(read)) = Datagram::decode_first(&bytes, 1) else {
        panic!("no hello");
    };
    assert_eq!(read.program, "\u{fffd}[31mevil\u{fffd}\u{fffd}");
    assert_eq!(read.schema, "é".repeat(128));
    let reason = Datagram::Refuse(format!("{}\u{7}", "x".repeat(600))).encode();
    assert_eq!(Datagram::decode_first(&reason, 0), Ok(Datagram::Refuse("x".repeat(512))));
    let reason = Datagram::Refuse("bell \u{7}".into()).encode();
    assert_eq!(Datagram::decode_first(&reason, 0), Ok(Datagram::Refuse("bell \u{fffd}".into())));
}

#[test]
fn two_hellos_fit_or_say_why_not() {
    let check = |peer: Hello, expected: &str| {
        let problem = hello().fits(&peer).unwrap_err();
        assert_eq!(problem, expected);
    };
    let subscriber = Hello { role: Role::Reader, ..hello() };
    assert_eq!(hello().fits(&subscriber), Ok(()));
    assert_eq!(subscriber.fits(&hello()), Ok(()));
    check(hello(), "both sides are a publisher; one has to be the other");
    check(receiver(1), "a publisher (a topic) and a receiver (a queue) do not meet");
    check(
        Hello { fingerprint: 7, schema: "Other".into(), ..subscriber.clone() },
        "messages do not fit: a publisher uses Reading, a subscriber uses Other",
    );
    check(
        Hello { fingerprint: 0, schema: String::new(), ..subscriber },
        "messages do not fit: a publisher uses Reading, a subscriber uses bytes",
    );
}

fn any_datagram() -> impl Strategy<Value = Datagram> {
    prop_oneof![
        (0..MOST_LINKS as u32, 0..=u64::MAX / 8, any::<u64>())
            .prop_map(|(slot, at, number)| Datagram::Welcome { slot, position: at * 8, number }),
        (any::<u32>(), 1..=u64::MAX)
            .prop_map(|(index, len_bytes)| Datagram::Segment { index, len_bytes }),
        Just(Datagram::Wake),
        (1..=u64::MAX).prop_map(|number| Datagram::Reject { number }),
        (1..=u64::MAX).prop_map(|number| Datagram::Taken { number }),
        "[ -~é]{0,200}".prop_map(Datagram::Refuse),
        Just(Datagram::Leave),
    ]
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let ends = prop_oneof![
        Just((Pattern::Queue, Role::Writer)),
        Just((Pattern::Queue, Role::Reader)),
        Just((Pattern::Topic, Role::Writer)),
        Just((Pattern::Topic, Role::Reader)),
    ];
    let numbers = (any::<[u8; 16]>(), any::<u64>(), any::<u32>(), 1..=LARGEST_WINDOW);
    (ends, numbers, "[a-z]{0,64}", "[ -~]{0,256}").prop_map(|(end, numbers, program, schema)| {
        let ((pattern, role), (id, fingerprint, max_message_bytes, window_messages)) =
            (end, numbers);
        let id = Id(id);
        Hello {
            pattern,
            role,
            id,
            fingerprint,
            max_message_bytes,
            window_messages,
            program,
            schema,
        }
    })
}

/// Bytes that begin like a datagram, so that all parts of the decoder are reached.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let changed = |bytes: Vec<u8>| {
        let len = bytes.len();
        (Just(bytes), 0..len, any::<u8>(), 0..=len).prop_map(|(mut bytes, at, byte, cut)| {
            bytes[at] = byte;
            bytes.truncate(cut);
            bytes
        })
    };
    prop_oneof![
        any_datagram().prop_map(|datagram| datagram.encode()),
        any_hello().prop_map(|hello| Datagram::Hello(hello).encode()),
        any_datagram().prop_flat_map(move |datagram| changed(datagram.encode())),
        any_hello().prop_flat_map(move |hello| changed(Datagram::Hello(hello).encode())),
        (0_u32..13, proptest::collection::vec(any::<u8>(), 0..1100)).prop_map(|(kind, rest)| {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend_from_slice(&rest);
            bytes
        }),
        proptest::collection::vec(any::<u8>(), 0..1100),
    ]
}

proptest! {
    #[test]
    fn datagrams_come_back(datagram in any_datagram()) {
        let bytes = datagram.encode();
        prop_assert!(bytes.len() <= LONGEST_BYTES);
        let (pattern, from, fds) = origin(&datagram);
        prop_assert_eq!(Datagram::decode_next(&bytes, fds, pattern, from), Ok(datagram));
    }

    #[test]
    fn hellos_come_back(hello in any_hello()) {
        let bytes = Datagram::Hello(hello.clone()).encode();
        prop_assert!(bytes.len() <= LONGEST_BYTES);
        let fds = hello.descriptors();
        prop_assert_eq!(Datagram::decode_first(&bytes, fds), Ok(Datagram::Hello(hello)));
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in nearly(), fds in 0_usize..4) {
        let first = Datagram::decode_first(&bytes, fds);
        if let Ok(Datagram::Hello(hello)) = &first {
            let without_doorbell = hello.role == Role::Writer && fds + 1 == hello.descriptors();
            prop_assert!(fds == hello.descriptors() || without_doorbell);
        }
        let mut taken: Vec<Datagram> = first.into_iter().collect();
        for pattern in [Pattern::Queue, Pattern::Topic] {
            for from in [Role::Writer, Role::Reader] {
                let next = Datagram::decode_next(&bytes, fds, pattern, from);
                prop_assert!(!matches!(next, Ok(Datagram::Hello(_))));
                taken.extend(next);
            }
        }
        for datagram in taken {
            prop_assert!(datagram.encode().len() <= LONGEST_BYTES);
        }
    }
}
