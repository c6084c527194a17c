//! A message as `msgsnd(2)` and `msgrcv(2)` lay it out: the type as a C `long`, then the text.
//!
//! Source: `msgop(2)`.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use libc::c_long;

/// Bytes of the type that stands before the text.
pub(super) const TYPE_BYTES: usize = size_of::<c_long>();

/// Texts up to this long are put together in a small stack frame.
const SHORT_BYTES: usize = 248;

/// Texts up to this long are put together on the stack: the initial `msgmax`.
const LONG_BYTES: usize = 8192;

/// Owns one message: its type and text. Used again and again, it allocates once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The type, and room for the text.
    bytes: Vec<u8>,
    text_bytes: usize,
}

impl Buffer {
    /// Room for a text of so many bytes. The text is empty and the type is 1.
    #[must_use]
    pub fn with_capacity(text_bytes: usize) -> Self {
        let mut bytes = vec![0; text_bytes.saturating_add(TYPE_BYTES)];
        bytes[..TYPE_BYTES].copy_from_slice(&1_i64.to_ne_bytes());
        Self { bytes, text_bytes: 0 }
    }

    /// The largest text that can be received, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.len() - TYPE_BYTES
    }

    /// The text that was received or filled in.
    #[inline]
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.bytes[TYPE_BYTES..TYPE_BYTES + self.text_bytes]
    }

    /// Makes this the text, to be sent. A capacity that is too small grows.
    #[inline]
    pub fn fill(&mut self, text: &[u8]) {
        if text.len() > self.capacity() {
            self.bytes.resize(TYPE_BYTES + text.len(), 0);
        }
        self.bytes[TYPE_BYTES..TYPE_BYTES + text.len()].copy_from_slice(text);
        self.text_bytes = text.len();
    }

    /// The message's type: as received, or as set; 1 at first.
    #[inline]
    #[must_use]
    pub fn message_type(&self) -> i64 {
        let mut raw = [0; TYPE_BYTES];
        raw.copy_from_slice(&self.bytes[..TYPE_BYTES]);
        c_long::from_ne_bytes(raw)
    }

    /// Sets the type to send with; sending refuses one that is not above 0.
    #[inline]
    pub fn set_message_type(&mut self, message_type: i64) {
        self.bytes[..TYPE_BYTES].copy_from_slice(&message_type.to_ne_bytes());
    }

    /// Type and text, to be sent.
    #[inline]
    pub(super) fn message(&self) -> &[u8] {
        &self.bytes[..TYPE_BYTES + self.text_bytes]
    }

    /// Where the type goes, followed by room for this many bytes of text. The text is empty until
    /// [`Buffer::received`].
    #[inline]
    pub(super) fn start_receiving(&mut self) -> (*mut u8, usize) {
        self.text_bytes = 0;
        (self.bytes.as_mut_ptr(), self.capacity())
    }

    #[inline]
    pub(super) fn received(&mut self, text_bytes: usize) {
        self.text_bytes = text_bytes.min(self.capacity());
    }
}

/// Puts a type before a text, without an allocation where the text is not longer than usual.
#[inline]
pub(super) fn with_message<T>(message_type: i64, text: &[u8], send: impl FnOnce(&[u8]) -> T) -> T {
    match text.len() {
        0..=SHORT_BYTES => on_stack::<SHORT_BYTES, T>(message_type, text, send),
        _ if text.len() <= LONG_BYTES => long(message_type, text, send),
        _ => on_heap(message_type, text, send),
    }
}

/// Not inlined: its stack frame would be everybody's.
#[inline(never)]
fn long<T>(message_type: i64, text: &[u8], send: impl FnOnce(&[u8]) -> T) -> T {
    on_stack::<LONG_BYTES, T>(message_type, text, send)
}

#[cold]
fn on_heap<T>(message_type: i64, text: &[u8], send: impl FnOnce(&[u8]) -> T) -> T {
    let mut buffer = Buffer::with_capacity(text.len());
    buffer.set_message_type(message_type);
    buffer.fill(text);
    send(buffer.message())
}

/// The type as it lies before the text; aligned so that copying a short one stays fast.
#[repr(C, align(32))]
struct Laid<const CAPACITY_BYTES: usize> {
    message_type: c_long,
    text: [MaybeUninit<u8>; CAPACITY_BYTES],
}

#[inline]
fn on_stack<const CAPACITY_BYTES: usize, T>(
    message_type: i64,
    text: &[u8],
    send: impl FnOnce(&[u8]) -> T,
) -> T {
    let mut laid = Laid { message_type, text: [const { MaybeUninit::uninit() }; CAPACITY_BYTES] };
    assert!(text.len() <= CAPACITY_BYTES, "callers choose the capacity by the length");
    let text_start = laid.text.as_mut_ptr().cast::<u8>();
    // SAFETY: `laid.text` has room for the text, and as a local variable cannot overlap it.
    unsafe { text_start.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    let start = (&raw const laid).cast::<u8>();
    // SAFETY: in `repr(C)` the text follows the type without padding, for its alignment is 1; the
    // type and the first `text.len()` bytes of the text were written.
    send(unsafe { std::slice::from_raw_parts(start, TYPE_BYTES + text.len()) })
}
