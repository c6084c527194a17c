//! What the page shows, and when it is looked for: while somebody has the page open and takes what is sent.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>; docs/design/map.md, "The live page". There is one picture, the newest; whoever is slow misses
//! those between, and nothing is kept for him.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{Notify, watch};

/// The most that have the page open at a time.
pub(super) const MOST_VIEWERS: usize = 16;

type Look = dyn Fn() -> Option<String> + Send + Sync;

/// The newest picture, and who takes it.
pub(super) struct Feed {
    interval: Duration,
    /// None: what there is stays as it is.
    look: Option<Arc<Look>>,
    latest: watch::Sender<State>,
    viewers: watch::Sender<usize>,
    /// Somebody took the latest picture.
    taken: Notify,
}

#[derive(Clone)]
enum State {
    /// Nobody looked yet.
    Nothing,
    /// An event with a picture.
    Picture(Bytes),
    /// There will be no more.
    Over,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Feed {
    /// Looks again after each interval.
    pub(super) fn new(
        interval: Duration,
        look: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::with(interval, Some(Arc::new(look)), State::Nothing)
    }

    /// Always the same.
    pub(super) fn of_one(json: &str) -> Self {
        Self::with(Duration::ZERO, None, State::Picture(event(json)))
    }

    fn with(interval: Duration, look: Option<Arc<Look>>, state: State) -> Self {
        let (latest, viewers) = (watch::Sender::new(state), watch::Sender::new(0));
        Self { interval, look, latest, viewers, taken: Notify::new() }
    }

    /// Looks for as long as it is polled.
    pub(super) async fn run(&self) {
        let Some(look) = &self.look else { return std::future::pending().await };
        let mut viewers = self.viewers.subscribe();
        loop {
            // It fails when the sender is gone, which is here.
            let _ = viewers.wait_for(|count| *count > 0).await;
            let look = Arc::clone(look);
            match tokio::task::spawn_blocking(move || look()).await {
                Ok(Some(json)) => self.latest.send_replace(State::Picture(event(&json))),
                _ => return self.end(),
            };
            let taken = self.taken.notified();
            let nobody = viewers.wait_for(|count| *count == 0);
            let (mut taken, mut nobody) = (std::pin::pin!(taken), std::pin::pin!(nobody));
            // Either: it is taken, or nobody is there any more.
            std::future::poll_fn(|context| {
                if taken.as_mut().poll(context).is_ready()
                    || nobody.as_mut().poll(context).is_ready()
                {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            tokio::time::sleep(self.interval).await;
            if *self.viewers.borrow() == 0 {
                // Whoever comes next is not shown what was long ago.
                self.latest.send_replace(State::Nothing);
            }
        }
    }

    /// Tells everybody that there will be no more.
    pub(super) fn end(&self) {
        self.latest.send_replace(State::Over);
    }

    /// One more who looks; none when there are too many.
    pub(super) fn view(self: &Arc<Self>) -> Option<Events> {
        let room = self.viewers.send_if_modified(|count| {
            let room = *count < MOST_VIEWERS;
            *count += usize::from(room);
            room
        });
        if !room {
            return None;
        }
        let mut receiver = self.latest.subscribe();
        // What there is already is news to him.
        receiver.mark_changed();
        Some(Events { feed: Arc::clone(self), next: Box::pin(next(receiver)), over: false })
    }
}

fn event(json: &str) -> Bytes {
    // JSON of this program has no line feed, which would end the event.
    Bytes::from(format!("event: map\ndata: {json}\n\n"))
}

const OVER: &[u8] = b"event: over\ndata: over\n\n";

async fn next(mut receiver: watch::Receiver<State>) -> (watch::Receiver<State>, State) {
    if receiver.changed().await.is_err() {
        return (receiver, State::Over);
    }
    let state = receiver.borrow_and_update().clone();
    (receiver, state)
}

type Next = Pin<Box<dyn Future<Output = (watch::Receiver<State>, State)> + Send>>;

/// An answer without an end: an event for each new picture, when the last one was sent.
pub(super) struct Events {
    feed: Arc<Feed>,
    next: Next,
    over: bool,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while !self.over {
            let Poll::Ready((receiver, state)) = self.next.as_mut().poll(context) else {
                return Poll::Pending;
            };
            self.next = Box::pin(next(receiver));
            match state {
                State::Nothing => {}
                State::Picture(event) => {
                    self.feed.taken.notify_one();
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                State::Over => {
                    self.over = true;
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(OVER)))));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.feed.viewers.send_modify(|count| *count = count.saturating_sub(1));
    }
}
