//! What each side gives with its hello.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use switchboard_shm::cursor::OwnCursor;

use super::geometry;
use super::meeting::Offer;
use super::memory::Own;
use crate::error::Error;
use crate::transport::Setup;

/// What a writer gives with its hello: its doorbell, and the ring of a topic.
#[derive(Debug)]
pub(crate) struct WriterOffer {
    pub(super) bell: OwnedFd,
    pub(super) ring: Option<OwnedFd>,
}

impl Offer for WriterOffer {
    type Made = ();

    fn make(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn descriptors<'a>(&'a self, (): &'a ()) -> Vec<BorrowedFd<'a>> {
        std::iter::once(&self.bell).chain(&self.ring).map(AsFd::as_fd).collect()
    }

    fn for_others<'a>(&'a self, (): &'a ()) -> Vec<BorrowedFd<'a>> {
        self.ring.iter().map(AsFd::as_fd).collect()
    }
}

/// What a reader gives with its hello: a page for each link.
#[derive(Debug)]
pub(crate) struct ReaderOffer {
    pub(super) setup: Setup,
}

/// A reader's page, and its descriptor for the writer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(super) cursor: OwnCursor<Own>,
    fd: OwnedFd,
}

impl Offer for ReaderOffer {
    type Made = Page;

    fn make(&mut self) -> Result<Page, Error> {
        let failed = |error| self.setup.system("no memory for a reader's page", error);
        let cursor = geometry::page().map_err(failed)?;
        let fd = cursor.memory().0.take_read_only_fd().map_err(failed)?;
        Ok(Page { cursor, fd })
    }

    fn descriptors<'a>(&'a self, made: &'a Page) -> Vec<BorrowedFd<'a>> {
        vec![made.fd.as_fd()]
    }
}
