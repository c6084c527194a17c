//! The patterns that are no queue: events, and states as bytes.

use std::hint::black_box;

use switchboard::pattern::state;
use switchboard::{Event, Listener, Notifier, State};
use switchboard_kernel::Result;

use super::wakes::meet;
use super::{Aligned, BYTES, Channel, Job, Known, PAGE, repeat, run as run_channel};
use crate::Failure;
use crate::objects::name_of;

pub(super) fn run(job: &Job, name: &str, (out_id, in_id): (i32, i32)) -> Known {
    match name {
        "event-sem" => {
            let address = |id| format!("sem:{}", name_of(id));
            event(job, &address(out_id), &address(in_id))
        }
        "event-sysv-sem" => {
            let address = |id| format!("sysv-sem:{id:#x}");
            event(job, &address(out_id), &address(in_id))
        }
        "event-signal" => {
            let listener = Event::open("signal:self/SIGRTMIN")?.listener()?;
            let notifier = Event::open(&format!("signal:{}/SIGRTMIN", meet()?))?.notifier()?;
            run_channel(job, Signalled { notifier, listener })
        }
        "state-watch" => {
            let (writer, reader) = (state_of(out_id)?.writer()?, state_of(in_id)?.reader()?);
            meet()?;
            run_channel(job, Watched { writer, reader })
        }
        "state-set-64" => set::<BYTES>(job, out_id),
        "state-get-64" => get::<BYTES>(job, out_id),
        "state-set-4096" => set::<PAGE>(job, out_id),
        "state-get-4096" => get::<PAGE>(job, out_id),
        _ => Ok(false),
    }
}

fn event(job: &Job, out: &str, from: &str) -> Known {
    let (notifier, listener) = (Event::open(out)?.notifier()?, Event::open(from)?.listener()?);
    run_channel(job, Notified { notifier, listener })
}

struct Notified {
    notifier: Notifier,
    listener: Listener,
}

impl Channel for Notified {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.notifier.notify().expect("notified");
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.listener.wait().expect("a notification");
        Ok(())
    }
}

/// With a number, as the C program sends one.
struct Signalled {
    notifier: Notifier,
    listener: Listener,
}

impl Channel for Signalled {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.notifier.notify_with(1).expect("notified");
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        assert_eq!(self.listener.wait().expect("a notification").value, Some(1));
        Ok(())
    }
}

fn state_of(id: i32) -> std::result::Result<State, Failure> {
    Ok(State::open(&format!("posix-shm:{}?size={PAGE}", name_of(id)))?)
}

struct Watched {
    writer: state::Writer,
    reader: state::Reader,
}

impl Channel for Watched {
    #[inline(always)]
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
        self.writer.set(message).expect("set");
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, message: &mut [u8; BYTES]) -> Result<()> {
        message.copy_from_slice(&self.reader.watch().expect("a value").bytes);
        Ok(())
    }
}

fn set<const N: usize>(job: &Job, id: i32) -> Known {
    let (mut writer, bytes) = (state_of(id)?.writer()?, Aligned([1; N]));
    repeat(job, || {
        writer.set(&black_box(&bytes).0).expect("set");
        Ok(())
    })
}

fn get<const N: usize>(job: &Job, id: i32) -> Known {
    let state = state_of(id)?;
    state.writer()?.set(&[1; N])?;
    let mut reader = state.reader()?;
    repeat(job, || {
        assert_eq!(black_box(reader.get().expect("a value")).bytes.len(), N);
        Ok(())
    })
}
