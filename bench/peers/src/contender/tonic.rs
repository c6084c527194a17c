//! The crate `tonic`: gRPC over HTTP/2, here over a Unix socket; messages are `bytes` fields of 32 bytes.
//!
//! Client and server each run on one thread (`tokio`'s current-thread runtime), which is fastest where there is
//! one call at a time.
//!
//! Source: docs.rs/tonic, `examples/src/uds`; what `tonic-build` would write for one method is written here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc as Serving, NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Can, Meeting, Port};
use crate::control::Control;
use crate::job::{Case, Job, Measure, Report, Side};
use crate::{Failure, pattern, side};

/// Answers have numbers of their own, as in all contenders.
const ANSWERS: u64 = side::ANSWERS;
const NAME: &str = "bench.Peers";
const PATH: &str = "/bench.Peers/Call";

pub(super) fn can(case: &Case) -> Can {
    if case.measure == Measure::Service { Can::Yes } else { Can::NotAsked }
}

/// A request, or a reply.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
}

/// The near side is as all are; the far one answers within the library, as its programs do.
pub(super) fn run(job: &Job) -> Result<Report, Failure> {
    match job.side {
        Side::Far => serve(job),
        _ => side::run::<Calls>(job),
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_io().build()?)
}

/// The calling side.
pub(crate) struct Calls {
    runtime: Runtime,
    client: tonic::client::Grpc<Channel>,
    request: Vec<u8>,
}

impl Port for Calls {
    const COPIES: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let path = meeting.path("tonic");
        meeting.control.hear()?;
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is not looked at.
        let endpoint = Endpoint::try_from("http://localhost")?;
        let channel = runtime.block_on(endpoint.connect_with_connector(connect))?;
        Ok(Self { runtime, client: tonic::client::Grpc::new(channel), request: Vec::new() })
    }

    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        // It goes with the call, whose reply is asked for next.
        self.request.resize(bytes, 0);
        fill(&mut self.request);
        Ok(())
    }

    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let Self { runtime, client, request } = self;
        let request = Request::new(Payload { bytes: request.clone() });
        let reply = runtime.block_on(async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = http::uri::PathAndQuery::from_static(PATH);
            let codec: ProstCodec<Payload, Payload> = ProstCodec::default();
            client.unary(request, path, codec).await
        })?;
        Ok(Some(read(&reply.into_inner().bytes)))
    }
}

/// The answering side: what it has seen.
#[derive(Clone, Default)]
struct Answers {
    number: Arc<AtomicU64>,
    wrong: Arc<AtomicU64>,
}

impl UnaryService<Payload> for Answers {
    type Response = Payload;
    type Future = std::future::Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let mut bytes = request.into_inner().bytes;
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let wrong = pattern::sum(&bytes) ^ pattern::expected(bytes.len(), number);
        self.wrong.fetch_or(wrong, Ordering::Relaxed);
        pattern::fill(&mut bytes, number + ANSWERS);
        std::future::ready(Ok(Response::new(Payload { bytes })))
    }
}

impl Service<http::Request<Body>> for Answers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answers = self.clone();
        Box::pin(async move {
            let codec: ProstCodec<Payload, Payload> = ProstCodec::default();
            Ok(Serving::new(codec).unary(answers, request).await)
        })
    }
}

impl NamedService for Answers {
    const NAME: &'static str = NAME;
}

fn serve(job: &Job) -> Result<Report, Failure> {
    let control = Control::inherited();
    let path = Meeting::new(job, &control, 0).path("tonic");
    let runtime = runtime()?;
    let answers = Answers::default();
    let listener = {
        let _in = runtime.enter();
        UnixListener::bind(&path)?
    };
    let server = Server::builder()
        .add_service(answers.clone())
        .serve_with_incoming(UnixListenerStream::new(listener));
    control.say("made")?;
    // What the sides say to each other is said from a thread of its own: this one serves.
    let (done, until) = tokio::sync::oneshot::channel();
    let meeting = std::thread::spawn(move || {
        let met = (0..3).try_for_each(|_| control.meet().map_err(|error| error.to_string()));
        let _ = done.send(());
        met
    });
    runtime.block_on(async {
        tokio::select! {
            served = server => served.map_err(Failure::from),
            _ = until => Ok(()),
        }
    })?;
    meeting.join().map_err(|_| "the meeting panicked")??;
    std::fs::remove_file(path)?;
    match answers.wrong.load(Ordering::Relaxed) {
        0 => Ok(Report::new()),
        _ => Err("what arrived is not what was sent".into()),
    }
}
