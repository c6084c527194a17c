//! The server: a connection per request, few at a time, each for a short while, but for those that are told what is new.
//!
//! Source: RFC 9112 by `hyper`; docs/design/map.md, "The live page".

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use switchboard_kernel::io::{Deadline, Interest, wait_for};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::feed::{Events, Feed, MOST_VIEWERS};
use super::gate::{Asked, Gate, Refusal};
use crate::command::map::page;
use crate::exit_code::Exit;
use crate::output::{Failure, system};

/// Connections at a time; more wait to be accepted. Half of them may be those of viewers.
const MOST_CONNECTIONS: u32 = 2 * MOST_VIEWERS as u32;
/// To say what is wanted.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// To take an answer that has an end.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// For viewers to hear that it is over.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A request's head.
const LONGEST_HEAD_BYTES: usize = 16 << 10;

/// `style-src` and `script-src` are this server's; nothing else is loaded, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type Answer = Response<Either<Full<Bytes>, Events>>;

/// Serves until the descriptor is readable.
pub(super) async fn serve(
    listener: TcpListener,
    gate: Arc<Gate>,
    feed: Arc<Feed>,
    interrupt: Arc<OwnedFd>,
) -> Result<(), Failure> {
    // A thread waits for the signal; it ends with the process if there is another end.
    let ended = tokio::task::spawn_blocking(move || {
        wait_for(&interrupt, Interest::Readable, Deadline::NEVER)
    });
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS as usize));
    {
        let accepting = accept(&listener, &gate, &feed, &room);
        let looking = feed.run();
        let (mut accepting, mut looking) = (std::pin::pin!(accepting), std::pin::pin!(looking));
        let mut ended = std::pin::pin!(ended);
        let mut looks = true;
        std::future::poll_fn(|context| {
            // Neither of the two returns while there is something to show.
            let _ = accepting.as_mut().poll(context);
            looks = looks && looking.as_mut().poll(context).is_pending();
            ended.as_mut().poll(context)
        })
        .await
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot watch for signals: {error}")))?
        .map_err(|error| system("cannot watch for signals", error))?;
    }
    drop(listener);
    feed.end();
    // All places are free again when everybody has gone.
    let _ = tokio::time::timeout(LAST_WORDS, room.acquire_many(MOST_CONNECTIONS)).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    gate: &Arc<Gate>,
    feed: &Arc<Feed>,
    room: &Arc<Semaphore>,
) -> Infallible {
    loop {
        let Ok(place) = Arc::clone(room).acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(gate), Arc::clone(feed), place));
            }
            // Of this one connection, or for want of descriptors: there will be others.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(
    stream: TcpStream,
    gate: Arc<Gate>,
    feed: Arc<Feed>,
    _place: OwnedSemaphorePermit,
) {
    let stays = Arc::new(AtomicBool::new(false));
    let marked = Arc::clone(&stays);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &gate, &feed);
        if matches!(answer.body(), Either::Right(_)) {
            // Read by the same thread below.
            marked.store(true, Ordering::Relaxed);
        }
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on one connection concerns nobody else.
    if tokio::time::timeout(ANSWER_TIME, &mut connection).await.is_err()
        && stays.load(Ordering::Relaxed)
    {
        let _ = connection.await;
    }
}

fn answer(request: &Request<Incoming>, gate: &Gate, feed: &Arc<Feed>) -> Answer {
    let asked = gate.check(request.method(), request.uri(), request.headers());
    let mut answer = match asked {
        Ok(Asked::Page) => text(StatusCode::OK, "text/html; charset=utf-8", page::live_html()),
        Ok(Asked::Style) => text(StatusCode::OK, "text/css; charset=utf-8", page::STYLE),
        Ok(Asked::Script) => text(StatusCode::OK, "text/javascript; charset=utf-8", page::SCRIPT),
        Ok(Asked::Events) => events(feed),
        Ok(Asked::Nothing) => plain(StatusCode::NOT_FOUND, "there is nothing here\n"),
        Ok(Asked::Unfinished) => {
            let mut answer = plain(StatusCode::PERMANENT_REDIRECT, "");
            if let Ok(place) = HeaderValue::from_str(&format!("{}/", request.uri().path())) {
                answer.headers_mut().insert(LOCATION, place);
            }
            answer
        }
        Err(Refusal::Token) => {
            plain(StatusCode::FORBIDDEN, "use the whole address that `switchboard web` printed\n")
        }
        Err(Refusal::Host) => plain(StatusCode::FORBIDDEN, "this is not the name of this server\n"),
        Err(Refusal::Method) => {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            answer
        }
    };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn events(feed: &Arc<Feed>) -> Answer {
    let Some(events) = feed.view() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many have this page open\n");
    };
    let mut answer = Response::new(Either::Right(events));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

fn plain(status: StatusCode, what: &'static str) -> Answer {
    text(status, "text/plain; charset=utf-8", what)
}

fn text(status: StatusCode, kind: &'static str, what: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(what.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
