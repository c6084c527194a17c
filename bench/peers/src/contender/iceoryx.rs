//! The crate `iceoryx2`: publish-subscribe and request-response in shared memory, built in place.
//!
//! A topic's messages are slices of words. Where a sleeper is to be woken, an event goes with each
//! message, as the library means it: its topics alone wake nobody.
//!
//! Source: docs.rs/iceoryx2, modules `service` and `port`.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use ::iceoryx2::active_request::ActiveRequest;
use ::iceoryx2::node::Node;
use ::iceoryx2::pending_response::PendingResponse;
use ::iceoryx2::port::client::Client;
use ::iceoryx2::port::listener::Listener;
use ::iceoryx2::port::notifier::Notifier;
use ::iceoryx2::port::publisher::Publisher;
use ::iceoryx2::port::server::Server;
use ::iceoryx2::port::subscriber::Subscriber;
use ::iceoryx2::port::update_connections::UpdateConnections;
use ::iceoryx2::prelude::*;
use ::iceoryx2::service::port_factory::publish_subscribe::PortFactory as TopicService;

use super::{Can, Meeting, Port, depth, one_way};
use crate::Failure;
use crate::job::{Case, Measure};

pub(super) fn can_publish(case: &Case) -> Can {
    if case.measure == Measure::Service { Can::NotAsked } else { Can::Yes }
}

pub(super) fn can_request(case: &Case) -> Can {
    match case.measure {
        Measure::Latency | Measure::Service => Can::Yes,
        _ => Can::No("requests have answers: only latency is asked"),
    }
}

/// A node whose files are in the folder of this measurement, and whose names begin with its prefix.
fn node(meeting: &Meeting<'_>) -> Result<Node<ipc::Service>, Failure> {
    set_log_level(LogLevel::Error);
    let root = meeting.job.folder.join("iceoryx2");
    let mut config = Config::default();
    config.global.set_root_path(&Path::new(root.as_os_str().as_bytes())?);
    config.global.prefix = FileName::new(meeting.job.prefix.as_bytes())?;
    Ok(NodeBuilder::new()
        .config(&config)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create()?)
}

/// The bytes of a loan.
fn bytes_of_loan(words: &mut [MaybeUninit<u64>]) -> &mut [u8] {
    // SAFETY: mapped memory, which is never uninitialized; words are bytes without gaps.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8) }
}

fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: words are bytes without gaps.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) }
}

fn failure(error: impl std::fmt::Debug) -> Failure {
    format!("{error:?}").into()
}

/// Publish and subscribe.
pub(crate) struct Topic {
    out: Option<Publisher<ipc::Service, [u64], ()>>,
    from: Option<Subscriber<ipc::Service, [u64], ()>>,
    notifier: Option<Notifier<ipc::Service>>,
    listener: Option<Listener<ipc::Service>>,
    out_service: Option<TopicService<ipc::Service, [u64], ()>>,
    wanted_subscribers: usize,
    _node: Node<ipc::Service>,
}

impl Port for Topic {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let case = meeting.job.case;
        let node = node(meeting)?;
        let lossless = case.measure != Measure::Publish;
        // The library's own 2 would make a stream wait at every turn.
        let depth = if case.measure == Measure::Stream { depth(case.bytes) as usize } else { 2 };
        let service = |way: usize| -> Result<_, Failure> {
            node.service_builder(&ServiceName::new(&format!("{}-{way}", meeting.name))?)
                .publish_subscribe::<[u64]>()
                .max_publishers(1)
                .max_subscribers(case.subscribers)
                .max_nodes(case.subscribers + 1)
                .subscriber_max_buffer_size(depth)
                .enable_safe_overflow(!lossless)
                .open_or_create()
                .map_err(failure)
        };
        let event = |way: usize| -> Result<_, Failure> {
            node.service_builder(&ServiceName::new(&format!("{}-{way}", meeting.name))?)
                .event()
                .open_or_create()
                .map_err(failure)
        };
        let sleeps = case.measure == Measure::Sleep;
        let (out, from) = meeting.ways();
        let from_service = from.map(&service).transpose()?;
        let out_service = out.map(&service).transpose()?;
        let subscribe =
            |service: &TopicService<ipc::Service, [u64], ()>| service.subscriber_builder().create();
        let publish = |service: &TopicService<ipc::Service, [u64], ()>| {
            service.publisher_builder().initial_max_slice_len(case.bytes / 8).create()
        };
        let heard = from.filter(|_| sleeps).map(&event).transpose()?;
        let told = out.filter(|_| sleeps).map(&event).transpose()?;
        Ok(Self {
            from: from_service.as_ref().map(subscribe).transpose()?,
            out: out_service.as_ref().map(publish).transpose()?,
            listener: heard.map(|event| event.listener_builder().create()).transpose()?,
            notifier: told.map(|event| event.notifier_builder().create()).transpose()?,
            out_service,
            wanted_subscribers: case.subscribers,
            _node: node,
        })
    }

    /// Until a subscriber has looked for its publisher, what does not fit into its buffer is dropped.
    fn joined(&mut self) -> Result<(), Failure> {
        if let Some(from) = &self.from {
            from.update_connections()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let out = self.out.as_ref().ok_or_else(one_way)?;
        let mut sample = out.loan_slice_uninit(bytes / 8)?;
        fill(bytes_of_loan(sample.payload_mut()));
        // SAFETY: mapped memory, which is never uninitialized.
        let reached = unsafe { sample.assume_init() }.send()?;
        if reached != self.wanted_subscribers {
            return Err(format!("it reached {reached} subscribers").into());
        }
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let from = self.from.as_ref().ok_or_else(one_way)?;
        Ok(from.receive()?.map(|sample| read(bytes_of(sample.payload()))))
    }

    #[inline(always)]
    fn recv<R>(&mut self, bytes: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Some(result) = self.try_recv(bytes, &mut read)? {
                return Ok(result);
            }
            self.listener.as_ref().ok_or_else(one_way)?.blocking_wait(|_| ())?;
        }
    }

    fn subscribers(&mut self) -> Result<usize, Failure> {
        let service = self.out_service.as_ref().ok_or_else(one_way)?;
        Ok(service.dynamic_config().number_of_subscribers())
    }
}

/// Requests of the near side, and the answers of the far one.
pub(crate) struct Service {
    end: End,
    _node: Node<ipc::Service>,
}

type Pending = PendingResponse<ipc::Service, [u64], (), [u64], ()>;
type Active = ActiveRequest<ipc::Service, [u64], (), [u64], ()>;

enum End {
    Client { client: Client<ipc::Service, [u64], (), [u64], ()>, pending: Option<Pending> },
    Server { server: Server<ipc::Service, [u64], (), [u64], ()>, active: Option<Active> },
}

impl Port for Service {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let node = node(meeting)?;
        let words = meeting.job.case.bytes / 8;
        let service = node
            .service_builder(&ServiceName::new(&meeting.name)?)
            .request_response::<[u64], [u64]>()
            .max_clients(1)
            .max_servers(1)
            .open_or_create()
            .map_err(failure)?;
        let end = if meeting.near() {
            let client = service.client_builder().initial_max_slice_len(words).create()?;
            End::Client { client, pending: None }
        } else {
            let server = service.server_builder().initial_max_slice_len(words).create()?;
            End::Server { server, active: None }
        };
        Ok(Self { end, _node: node })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        match &mut self.end {
            End::Client { client, pending } => {
                let mut request = client.loan_slice_uninit(bytes / 8)?;
                fill(bytes_of_loan(request.payload_mut()));
                // SAFETY: mapped memory, which is never uninitialized.
                *pending = Some(unsafe { request.assume_init() }.send()?);
            }
            End::Server { active, .. } => {
                let request = active.take().ok_or("an answer without a request")?;
                let mut response = request.loan_slice_uninit(bytes / 8)?;
                fill(bytes_of_loan(response.payload_mut()));
                // SAFETY: mapped memory, which is never uninitialized.
                unsafe { response.assume_init() }.send()?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        match &mut self.end {
            End::Client { pending, .. } => {
                let waiting = pending.as_ref().ok_or("nothing was requested")?;
                let Some(response) = waiting.receive()? else { return Ok(None) };
                let result = read(bytes_of(response.payload()));
                drop(response);
                *pending = None;
                Ok(Some(result))
            }
            End::Server { server, active } => {
                let Some(request) = server.receive()? else { return Ok(None) };
                let result = read(bytes_of(request.payload()));
                *active = Some(request);
                Ok(Some(result))
            }
        }
    }
}
