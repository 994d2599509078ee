//! Application messages, passed to the handler that is registered for their `type_url` (W4).

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use skirmish_core::id::{ConnId, Name};
use skirmish_core::node::Trace;

use super::Handle;

/// An application message of a player.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationMessage {
    /// Connection of the message, for an answer with [`Handle::send`].
    pub conn: ConnId,
    /// The sender.
    pub player: Name,
    /// Type of the payload, such as `mygame.v1.Attack`.
    pub type_url: String,
    /// The payload: a slice of the received frame.
    pub payload: Bytes,
    /// Trace to which the message belongs.
    pub trace: Trace,
}

/// Handles application messages of one type.
///
/// Closures `Fn(ApplicationMessage, &Handle)` are handlers. A handler runs on the server's own
/// thread: long work, or work that waits, belongs in a task of its own, with a clone of the
/// [`Handle`].
pub trait Handler: Send + Sync + 'static {
    /// Handles a message.
    fn handle(&self, message: ApplicationMessage, server: &Handle);
}

impl<F: Fn(ApplicationMessage, &Handle) + Send + Sync + 'static> Handler for F {
    fn handle(&self, message: ApplicationMessage, server: &Handle) {
        self(message, server);
    }
}

/// The handlers by `type_url`.
#[derive(Default)]
pub(super) struct Routes {
    by_type: BTreeMap<String, Box<dyn Handler>>,
    fallback: Option<Box<dyn Handler>>,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_type.keys()).finish()
    }
}

impl Routes {
    pub(super) fn insert(&mut self, type_url: String, handler: impl Handler) {
        self.by_type.insert(type_url, Box::new(handler));
    }

    pub(super) fn set_fallback(&mut self, handler: impl Handler) {
        self.fallback = Some(Box::new(handler));
    }

    pub(super) fn find(&self, type_url: &str) -> Option<&dyn Handler> {
        self.by_type.get(type_url).or(self.fallback.as_ref()).map(Box::as_ref)
    }
}
