//! When processes of `serve` are ended before they have replied.

use std::time::{Duration, Instant};

use switchboard::{CallState, Code, Status};

use super::Serving;
use super::leaving::LOOK_AGAIN;
use super::worker::Worker;
use crate::program::GRACE;

impl Serving<'_> {
    /// Ends processes whose clients wait no more.
    pub(super) fn end_what_nobody_wants(&mut self) {
        if self.is_persistent() {
            return self.dismiss_who_does_not_reply();
        }
        for worker in &mut self.workers {
            if let Some(job) = &worker.job
                && self.server.state_of(job.ticket) != CallState::Wanted
            {
                worker.end();
            }
        }
    }

    /// Ends processes that stay, and from which no reply is waited for any more: it would be taken for the reply to
    /// another request. One whose client went has a while to get done.
    fn dismiss_who_does_not_reply(&mut self) {
        for at in (0..self.workers.len()).rev() {
            let Some(job) = &mut self.workers[at].job else { continue };
            let is_wanted = self.server.state_of(job.ticket) == CallState::Wanted;
            let unwanted = match is_wanted {
                true => None,
                false => Some(job.unwanted.get_or_insert_with(Instant::now).elapsed()),
            };
            let problem = if job.ticket.remaining() == Some(Duration::ZERO) {
                "no reply in time, so it was replaced".to_owned()
            } else if job.since.elapsed() >= self.reply_timeout {
                let limit = self.reply_timeout;
                format!("no reply for {limit:?} (--reply-timeout), so it was replaced")
            } else if unwanted.is_some_and(|since| since >= GRACE) {
                format!("nobody waits for its reply any more, for {GRACE:?}, so it was replaced")
            } else {
                continue;
            };
            self.dismiss(at, Code::DeadlineExceeded, &problem);
        }
    }

    /// How long nothing has to be looked at: until the next client's time is over, or a process that was
    /// asked to end has had its time.
    pub(super) fn patience(&self) -> Option<Duration> {
        let persistent = self.is_persistent();
        let of = |worker: &Worker| {
            let job = worker.job.as_ref();
            let reply = job.filter(|_| persistent);
            let due = reply.map(|job| self.reply_timeout.saturating_sub(job.since.elapsed()));
            let unwanted = reply.and_then(|job| job.unwanted);
            let unwanted = unwanted.map(|since| GRACE.saturating_sub(since.elapsed()));
            let client = job.filter(|_| !worker.is_ending()).and_then(|job| job.ticket.remaining());
            [worker.ending_for(), client, due, unwanted].into_iter().flatten().min()
        };
        let again = self.lacking_since.map(|_| LOOK_AGAIN);
        let others = self.leaving.patience().into_iter().chain(again);
        let soonest = self.workers.iter().filter_map(of).chain(others).min();
        soonest.map(|left| left + Duration::from_millis(1))
    }

    /// Ends all processes.
    pub(super) fn stop(&mut self) {
        for worker in &mut self.workers {
            worker.end();
        }
        let mut jobs = Vec::new();
        for mut worker in self.workers.drain(..) {
            jobs.extend(worker.job.take());
            worker.forget(&self.epoll);
            self.leaving.add(worker.into_group());
        }
        self.leaving.wait();
        for job in jobs {
            let status = Status::new(Code::Unavailable, "the server was interrupted");
            let _ = self.server.fail_to(job.ticket, &status);
        }
    }
}
