//! `file:PATH`: a log on disk, which outlives processes and reboots.
//!
//! Queue and Topic over the log of [`crate::log`]; `docs/design/log.md` draws its bytes. A sender or
//! publisher appends to a lane of its own; receivers share the messages by a table in the log,
//! subscribers each have their own place.

mod capacity;
mod named;
mod receiver;
mod retention;
mod sender;
mod shared_table;
mod subscriber;
mod watch;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use switchboard_kernel::folder_file as files;

use super::{ReceiverFlavor, SenderFlavor, Setup};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::log::content::{Foreign, find_foreign, holds_log};
use crate::log::folder::{BELL, Folder, LOCK};
use crate::log::frame::LARGEST_PAYLOAD_BYTES;
use crate::log::reader::LaneReader;
use crate::log::segment::Pattern;
use crate::log::writer::{LEAST_SEGMENT_BYTES, SEGMENT_BYTES};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::topic::Start;

pub(crate) use receiver::FileReceiver;
pub(crate) use sender::FileSender;
pub(crate) use subscriber::FileSubscriber;

/// The largest message: a segment of the default length holds it.
pub(crate) const LARGEST_MESSAGE_BYTES: u32 = LARGEST_PAYLOAD_BYTES as u32;

/// How much a queue holds at most, unless the address says otherwise.
const CAPACITY_BYTES: u64 = 1 << 30;

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    Ok(SenderFlavor::File(Box::new(FileSender::open(setup, Pattern::Queue)?)))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    Ok(ReceiverFlavor::File(Box::new(FileReceiver::open(setup)?)))
}

pub(crate) fn open_publisher(setup: &Setup) -> Result<SenderFlavor, Error> {
    Ok(SenderFlavor::File(Box::new(FileSender::open(setup, Pattern::Topic)?)))
}

pub(crate) fn open_subscriber(setup: &Setup, start: Start) -> Result<ReceiverFlavor, Error> {
    Ok(ReceiverFlavor::Subscriber(Box::new(FileSubscriber::open(setup, start)?)))
}

/// Makes an empty log. What a log is made with is its owner and mode alone.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    let query = &address.query;
    let of_an_end = [
        ("max-message", query.max_message_bytes.is_some()),
        ("segment", query.segment_bytes.is_some()),
        ("capacity", query.capacity_bytes.is_some()),
        ("durability", query.durability.is_some()),
        ("retain", query.retain.is_some()),
        ("retain-bytes", query.retain_bytes.is_some()),
        ("reader", query.reader.is_some()),
    ];
    if let Some((option, _)) = of_an_end.iter().find(|(_, given)| *given) {
        let problem = format!("an empty log takes no ?{option}=: it would not be kept");
        return Err(Error::new(ErrorKind::BadAddress, address, problem)
            .hint(format!("give ?{option}= to each command or program that uses the log")));
    }
    let Some(path) = address.path() else { return Err(no_name(address)) };
    // The lock is made first: a log that somebody began, and could not finish, is finished.
    let is_begun = path.join(LOCK).exists() && !path.join(BELL).exists();
    match Folder::open(address, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Folder::open(address, true).map(drop).inspect_err(|_| {
                // It goes if nothing is in it. Somebody else may use what is.
                let _ = std::fs::remove_dir(path);
            })
        }
        Ok(_) if is_begun => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::AddressInUse, address, "it exists already")),
        Err(error) => Err(error),
    }
}

/// Removes a log that nobody writes: its files, and then the folder. Where anything else is in the
/// folder, nothing is removed.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::Path(path) = &address.target else { return Err(no_name(address)) };
    let failed = |error| cannot_unlink(address, error);
    let refuse_foreign = |this: &OwnedFd, removed: &str| match find_foreign(this, path)
        .map_err(failed)?
    {
        Some(Foreign { path, problem }) => {
            let problem = format!("{} {problem}; {removed}", path.display());
            let hint = "move it to another folder, or remove it with rm, and unlink the log then";
            Err(Error::new(ErrorKind::AddressInUse, address, problem).hint(hint))
        }
        None => Ok(()),
    };
    // Before it is opened, which would make what is missing of a log.
    if let Ok(this) = files::open_folder(path)
        && holds_log(&this)
    {
        refuse_foreign(&this, "nothing was removed")?;
    }
    let folder = Folder::open(address, false)?;
    if let Some(lane) = (0..crate::log::table::LANES as u32).find(|lane| folder.is_written(*lane)) {
        let problem = format!("a sender is writing to it (lane {lane})");
        return Err(Error::new(ErrorKind::AddressInUse, address, problem));
    }
    folder.remove_files().map_err(failed)?;
    std::fs::remove_dir(path).or_else(|error| {
        // It may have come meanwhile.
        if let Ok(this) = files::open_folder(path) {
            refuse_foreign(&this, "the files of the log were removed, and the folder was left")?;
        }
        Err(failed(from_io(&error)))
    })
}

/// Opens the folder for an endpoint, and checks that what is in it fits.
fn open_folder(setup: &Setup, pattern: Pattern) -> Result<Arc<Folder>, Error> {
    check_options(&setup.address, pattern)?;
    let folder = Folder::open(&setup.address, setup.options.wait)?;
    check_content(setup, pattern, folder)
}

/// Opens the folder for a subscriber. One that keeps no place may do with reading.
fn open_topic(setup: &Setup) -> Result<Arc<Folder>, Error> {
    let error = match open_folder(setup, Pattern::Topic) {
        Ok(folder) => return Ok(folder),
        Err(error) => error,
    };
    // Not allowed by its mode; or the file system is mounted to be read.
    let may_be_read = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::System);
    if setup.address.query.reader.is_some() || !may_be_read {
        return Err(error);
    }
    let folder = Folder::open_to_read(&setup.address).map_err(|_| error)?;
    check_content(setup, Pattern::Topic, folder)
}

/// Checks that what is in a folder fits an endpoint.
fn check_content(setup: &Setup, pattern: Pattern, folder: Folder) -> Result<Arc<Folder>, Error> {
    let folder = Arc::new(folder);
    let found = folder.segments()?.into_iter().find_map(|(lane, number)| {
        LaneReader::at_message(Arc::clone(&folder), lane, 1).peek(number)
    });
    let Some(found) = found else { return Ok(folder) };
    let mismatch = |problem: String| Error::new(ErrorKind::Mismatch, &setup.address, problem);
    if found.pattern != pattern {
        let (holds, wanted) = (found.pattern.name(), pattern.name());
        return Err(mismatch(format!("this log holds a {holds}, not a {wanted}")));
    }
    if found.schema != setup.schema.fingerprint {
        let ours = if setup.schema.name.is_empty() { "bytes" } else { &setup.schema.name };
        return Err(mismatch(format!(
            "messages do not fit: this side uses {ours}, the log was made for another type"
        )));
    }
    Ok(folder)
}

/// Refuses options that mean nothing for a pattern, and sizes that cannot be kept.
fn check_options(address: &Address, pattern: Pattern) -> Result<(), Error> {
    let query = &address.query;
    let refuse = |problem: String| Err(Error::new(ErrorKind::BadAddress, address, problem));
    let of_one_pattern = [
        ("retain", Pattern::Topic, query.retain.is_some()),
        ("retain-bytes", Pattern::Topic, query.retain_bytes.is_some()),
        ("reader", Pattern::Topic, query.reader.is_some()),
        ("capacity", Pattern::Queue, query.capacity_bytes.is_some()),
    ];
    let misfit = of_one_pattern.iter().find(|(_, of, given)| *given && *of != pattern);
    if let Some((option, of, _)) = misfit {
        let (of, is) = (of.name(), pattern.name());
        return refuse(format!("?{option}= means something for a {of} only, and this is a {is}"));
    }
    let segment = segment_bytes(address);
    if query.capacity_bytes.is_some_and(|capacity| u64::from(capacity) < 2 * segment) {
        let least = 2 * segment;
        return refuse(format!(
            "a queue's log takes two segments at least: ?capacity= has to be {least} or more, or \
             ?segment= ({segment}) less"
        ));
    }
    if query.retain_bytes.is_some_and(|most| most < segment) {
        return refuse(format!(
            "a topic's log keeps a segment at least: ?retain-bytes= has to be {segment} or more, or \
             ?segment= ({segment}) less"
        ));
    }
    Ok(())
}

/// The length of the segments that are made.
fn segment_bytes(address: &Address) -> u64 {
    let asked = address.query.segment_bytes.map_or(SEGMENT_BYTES, u64::from);
    asked.max(LEAST_SEGMENT_BYTES).next_multiple_of(4096)
}

fn from_io(error: &std::io::Error) -> switchboard_kernel::Error {
    const EIO: i32 = 5;
    switchboard_kernel::Error::from_raw("rmdir", error.raw_os_error().unwrap_or(EIO))
}
