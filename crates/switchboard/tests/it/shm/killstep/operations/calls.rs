//! Victims that come and go, or give memory.

use super::{
    ACKNOWLEDGE, Act, LARGE_BYTES, Operation, Others, PUBLISH, RECEIVE, SEND, SMALL_RING, SUBSCRIBE,
};

/// Of the control path: on many thousand instructions, of which the world sees system calls for the most part.
pub(in super::super) const CALLS: &[Operation] = &[
    Operation {
        name: "join as publisher",
        act: Act::Join,
        before: 0,
        taken: 0,
        io_thread: false,
        ..PUBLISH
    },
    Operation {
        name: "join as subscriber",
        act: Act::Join,
        query: "&history=2",
        before: 2,
        taken: 0,
        io_thread: false,
        ..SUBSCRIBE
    },
    Operation {
        name: "join as sender",
        act: Act::Join,
        before: 0,
        taken: 0,
        io_thread: false,
        ..SEND
    },
    Operation {
        name: "join as receiver",
        act: Act::Join,
        before: 0,
        taken: 0,
        others: Others::Asleep,
        io_thread: false,
        ..RECEIVE
    },
    Operation {
        name: "leave as publisher",
        act: Act::Leave,
        taken: 1,
        io_thread: false,
        ..PUBLISH
    },
    Operation { name: "leave as subscriber", act: Act::Leave, io_thread: false, ..SUBSCRIBE },
    Operation { name: "leave as sender", act: Act::Leave, taken: 1, io_thread: false, ..SEND },
    Operation { name: "leave as receiver", act: Act::Leave, io_thread: false, ..ACKNOWLEDGE },
    Operation {
        name: "publish a large message into a new segment",
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        before: 0,
        taken: 0,
        ..PUBLISH
    },
    Operation {
        name: "send a large message into a new segment",
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        before: 0,
        taken: 0,
        ..SEND
    },
];
