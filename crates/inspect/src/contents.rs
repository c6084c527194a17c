//! What is queued in an object, or held by it, without taking it: the head of it.
//!
//! Source: docs/design/inspect.md, "Contents". Descriptors are borrowed, asked without waiting, and closed at once; a FIFO is never opened.

mod memory;
mod queued;

use serde::Serialize;

use crate::kind::Kind;
use crate::model::Object;

/// The head of what is in an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// A stream, or memory from its beginning.
    Bytes(Vec<u8>),
    /// Messages, the next one first, with the type of those that have one.
    Messages(Vec<(Option<i64>, Vec<u8>)>),
    /// A count.
    Count(u64),
}

/// What was seen of an object's contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// The head.
    pub head: Head,
    /// There is more than was asked for, or than the kernel shows.
    pub more: bool,
    /// Descriptors that go with the head: what they lead to, escaped.
    pub descriptors: Vec<String>,
    /// Descriptors in flight in it, as the kernel counts them; none where that is not known.
    pub in_flight: Option<u64>,
    /// How it was looked at, and what cannot be seen so: sentences.
    pub notes: Vec<String>,
}

/// Why nothing can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// There is no way to look into an object of this kind.
    Never(String),
    /// This user may not.
    Refused(String),
    /// It is gone, or nobody has it by whom it could be looked into.
    Nobody(String),
}

impl Contents {
    fn of(head: Head) -> Self {
        let (descriptors, notes) = (Vec::new(), Vec::new());
        Self { head, more: false, descriptors, in_flight: None, notes }
    }
}

/// The head of what is in an object: at most so many bytes. Never blocks, takes nothing, and leaves no trace but those that `notes` names.
///
/// # Errors
/// [`Unseen`] says why.
pub fn peek(object: &Object, most_bytes: usize) -> Result<Contents, Unseen> {
    let most = most_bytes.clamp(1, MOST_BYTES);
    match object.kind {
        Kind::Pipe | Kind::Fifo => queued::pipe(object, most),
        Kind::Unix | Kind::Tcp | Kind::Udp => queued::socket(object, most),
        Kind::SysvMsg => queued::system_v(object, most),
        Kind::SysvShm => memory::segment(object, most),
        Kind::PosixShm | Kind::PosixSem | Kind::Memfd | Kind::Anonymous | Kind::Mapping => {
            memory::of_file(object, most)
        }
        Kind::Eventfd => match object.fill {
            Some(count) => Ok(Contents::of(Head::Count(count))),
            None => Err(Unseen::Refused("its count could not be read".to_owned())),
        },
        Kind::Mq => {
            let waiting = object.fill.map_or_else(String::new, |fill| format!("; {fill} wait"));
            Err(Unseen::Never(format!(
                "the kernel has no way to look into a POSIX queue: whoever reads a message takes it{waiting}"
            )))
        }
        kind => Err(Unseen::Never(format!("nothing is queued in this ({})", kind.row().what))),
    }
}

/// More is never looked at.
pub const MOST_BYTES: usize = 1 << 20;

/// The number that an id ends with.
fn inode(object: &Object) -> Option<u64> {
    object.id.rsplit(':').next()?.parse().ok()
}

/// Who has it by a descriptor.
fn descriptors(object: &Object, wanted: impl Fn(&crate::model::End) -> bool) -> Vec<(u32, i32)> {
    let ends = object.ends.iter().filter(|end| wanted(end));
    ends.filter_map(|end| match end.via {
        crate::model::Via::Fd(fd) => Some((end.pid, fd)),
        _ => None,
    })
    .collect()
}
