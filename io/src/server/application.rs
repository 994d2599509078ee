//! Application messages: to the handler that is registered for their `type_url` (W4).

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use skirmish_core::id::{ConnId, Name};
use skirmish_core::node::Trace;

use super::Handle;

/// An application message of a player.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationMessage {
    /// The connection it came by, to answer with [`Handle::send`].
    pub conn: ConnId,
    /// Whose it is.
    pub player: Name,
    /// What the payload is, such as `mygame.v1.Attack`.
    pub type_url: String,
    /// The payload: a slice of what was received.
    pub payload: Bytes,
    /// The trace it belongs to.
    pub trace: Trace,
}

/// Takes application messages of one type.
///
/// Closures `Fn(Message, &Handle)` are handlers. A handler runs on the server's own
/// thread: whatever takes long or waits belongs in a task of its own, with a clone of
/// the [`Handle`].
pub trait Handler: Send + Sync + 'static {
    /// A message came.
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
