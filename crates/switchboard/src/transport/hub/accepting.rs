//! Connections that others make to an endpoint that listens.

use std::os::fd::AsFd;
use std::time::Instant;

use switchboard_kernel as kernel;
use switchboard_kernel::io::Interest;

use super::{ACCEPT_AGAIN, ACCEPTS, Hub, LISTENER, MOST_CONNECTIONS, Place};
use crate::error::Error;

impl Hub {
    pub(super) fn accept(&mut self) -> Result<(), Error> {
        for _ in 0..ACCEPTS {
            let (Place::Listening(listener), Some(meet)) = (&self.place, &self.meet) else {
                return Ok(());
            };
            match meet.accept(listener.as_fd()) {
                Ok(met) => {
                    if self.connections.len() < MOST_CONNECTIONS || self.make_room() {
                        self.join(met)?;
                    }
                }
                Err(error) => {
                    use kernel::ErrorKind as K;
                    return match error.kind() {
                        K::WouldBlock => Ok(()),
                        // It was gone before it was accepted.
                        K::ConnectionReset => continue,
                        // Those that are here are served; the others wait until one of them goes.
                        K::TooManyFiles | K::TooManyFilesInSystem
                            if !self.connections.is_empty() =>
                        {
                            self.pause_accepting();
                            Ok(())
                        }
                        _ => Err(self.setup.system("cannot accept a connection", error)),
                    };
                }
            }
        }
        Ok(())
    }

    /// Hangs up on the connection that has been here longest without a hello, for one that comes: so those who say
    /// nothing keep out nobody. Who dials is not told more than by the death of a peer, and may come again.
    fn make_room(&mut self) -> bool {
        if !self.expects_hellos() {
            return false;
        }
        let silent = self.connections.iter().find(|c| !c.is_open() && !c.closed);
        let Some(id) = silent.map(|connection| connection.id) else { return false };
        self.forget(id);
        true
    }

    fn pause_accepting(&mut self) {
        if let Place::Listening(listener) = &self.place {
            let _ = self.epoll.delete(listener);
            self.accept_again = Some(Instant::now() + ACCEPT_AGAIN);
        }
    }

    pub(super) fn resume_accepting(&mut self) -> Result<(), Error> {
        if let Place::Listening(listener) = &self.place
            && self.accept_again.is_some_and(|at| at <= Instant::now())
        {
            self.add(listener, LISTENER, Interest::Readable)?;
            self.accept_again = None;
        }
        Ok(())
    }
}
