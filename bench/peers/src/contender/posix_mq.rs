//! POSIX message queues, one each way.
//!
//! Source: mq_overview(7).

use std::time::{Duration, Instant};

use switchboard_kernel::ErrorKind;
use switchboard_kernel::posix_mq::{Access, CreateOptions, MessageQueue, unlink};

use super::{Can, Meeting, Port, copying};
use crate::Failure;
use crate::job::Case;

/// How long the near side waits for the far one's queues.
const APPEARING: Duration = Duration::from_secs(5);

/// What an ordinary user may have (`/proc/sys/fs/mqueue/msg_max`).
const MESSAGES: u32 = 10;

pub(super) fn can(case: &Case) -> Can {
    let largest = std::fs::read_to_string("/proc/sys/fs/mqueue/msgsize_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(8192);
    match copying(case) {
        Can::Yes if case.bytes > largest => Can::No("larger than the system's msgsize_max"),
        can => can,
    }
}

/// The names that a run may leave when it is killed.
pub(crate) fn names(prefix: &str) -> [String; 2] {
    [0, 1].map(|way| format!("/{prefix}{way}"))
}

/// A queue each way.
pub(crate) struct Queues {
    out: MessageQueue,
    from: MessageQueue,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Port for Queues {
    const COPIES: bool = true;
    const SLEEPS_IN_STREAMS: bool = true;

    /// The far side makes both; the near side removes their names, which are the same in all runs.
    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let bytes = meeting.job.case.bytes;
        let names = names(&meeting.job.prefix);
        let [there, back] = if meeting.near() {
            let queues = [opened(&names[0])?, opened(&names[1])?];
            for name in &names {
                unlink(name)?;
            }
            queues
        } else {
            let size = u32::try_from(bytes)?;
            let options = CreateOptions::new()
                .max_messages(MESSAGES)
                .message_size_bytes(size)
                .exclusive(true);
            let made = |name| MessageQueue::create(name, Access::Both, &options);
            [made(&names[0])?, made(&names[1])?]
        };
        let (out, from) = if meeting.near() { (there, back) } else { (back, there) };
        Ok(Self { out, from, outgoing: vec![0; bytes], incoming: vec![0; bytes] })
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(&mut self.outgoing);
        Ok(self.out.send(&self.outgoing, 0)?)
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        match self.from.try_recv(&mut self.incoming) {
            Ok((len, _)) => Ok(Some(read(&self.incoming[..len]))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        let (len, _) = self.from.recv(&mut self.incoming)?;
        Ok(read(&self.incoming[..len]))
    }
}

/// Opens a queue as soon as it is there.
fn opened(name: &str) -> Result<MessageQueue, Failure> {
    let deadline = Instant::now() + APPEARING;
    loop {
        match MessageQueue::open(name, Access::Both) {
            Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < deadline => {}
            result => return Ok(result?),
        }
    }
}
