//! `Service<Request, Reply>`: a reply to each request.
//!
//! Any number of clients call any number of servers; where there are several, each call goes to the one
//! with the fewest under way. A call ends with a reply, with an error that the server gave, or with what
//! is known of it: [`CallError`]. The design document `docs/design/service.md` has every case.

mod client;
mod code;
mod error;
mod server;

use std::marker::PhantomData;

use crate::address::Address;
use crate::error::Error;
use crate::message::{Message, Schema};
use crate::options::Options;
use crate::transport::{ServiceEnds, Setup};

pub use client::{Client, Pending, Replies};
pub use code::{Code, Status};
pub use error::{CallError, CallState, Progress, ReplyError};
pub use server::{Call, CallTicket, Server};

/// A service's name and options; its ends are made from it.
///
/// ```
/// use switchboard::{Service, Text};
///
/// # let folder = tempfile::tempdir()?;
/// # let address = format!("unix:{}/greeter.sock", folder.path().display());
/// let service = Service::<Text, Text>::open(&address)?;
/// let server = service.server()?;
/// # let worker = std::thread::spawn(move || {
/// let call = server.recv_call()?;
/// let greeting = Text(format!("hello, {}", call.request.0));
/// call.reply(&greeting)?;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(()) });
///
/// let client = service.client()?;
/// let reply = client.call(&Text("world".into()))?;
/// assert_eq!(reply.0, "hello, world");
/// # worker.join().unwrap().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Service<Q, A> {
    address: Address,
    options: Options,
    message: PhantomData<fn(Q) -> A>,
}

impl<Q: Message, A: Message> Service<Q, A> {
    /// Parses the address. Nothing is made or opened until an end is.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_with(address, Options::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open_with(address: &str, options: Options) -> Result<Self, Error> {
        Ok(Self::at(address.parse()?, options))
    }

    /// A service at an address that is parsed already.
    #[must_use]
    pub fn at(address: Address, options: Options) -> Self {
        Self { address, options, message: PhantomData }
    }

    fn setup(&self) -> Setup {
        let schema = both(&Q::schema(), &A::schema());
        Setup::new(self.address.clone(), self.options.clone(), schema)
    }

    fn ends(&self) -> Result<&'static ServiceEnds, Error> {
        let transport = self.address.transport();
        let carried = transport.carries.service.as_ref();
        carried.ok_or_else(|| transport.does_not_carry("service", &self.address))
    }

    /// The calling end. Returns without waiting for a server.
    ///
    /// # Errors
    /// `NotSupported` where the transport carries no service; what can never work (a missing folder, no
    /// permission), a limit, or with [`wait`](Options#structfield.wait) off, `NotFound`.
    pub fn client(&self) -> Result<Client<Q, A>, Error> {
        let flavor = (self.ends()?.client)(&self.setup())?;
        Ok(Client::new(flavor, self.address.clone()))
    }

    /// The answering end. Returns without waiting for a client.
    ///
    /// A server takes up to [`prefetch`](Options#structfield.prefetch_messages) calls of each client
    /// ahead of its answers; the others wait at their clients.
    ///
    /// # Errors
    /// `AddressInUse` names the holder; otherwise as [`client`](Self::client).
    pub fn server(&self) -> Result<Server<Q, A>, Error> {
        let setup = self.setup();
        let flavor = (self.ends()?.server)(&setup)?;
        Ok(Server::new(flavor, setup))
    }
}

/// What both sides of a service must agree on; nothing, where requests and replies are bytes.
fn both(request: &Schema, reply: &Schema) -> Schema {
    if request.fingerprint == 0 && reply.fingerprint == 0 {
        return Schema::bytes();
    }
    let name = |schema: &Schema| match schema.name.as_str() {
        "" => "bytes".to_owned(),
        name => name.to_owned(),
    };
    Schema::of(&format!("{} -> {}", name(request), name(reply)))
}
