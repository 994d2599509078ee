//! Charges connections for what is read from them.

use alloc::string::String;

use skirmish_proto::v1;

use super::Node;
use crate::base::id::ConnId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::node::connection::Connection;
use crate::node::meter::Charge;

/// Bytes that a fragment of a WebSocket message counts for beside those of the message. The
/// first one is free.
pub(super) const FRAGMENT_BYTES: u64 = 1024;

/// Classes of frames whose rate is limited, and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Reliable,
    Latest,
    Control,
    Bytes,
}

impl Class {
    const fn excess(self) -> &'static str {
        match self {
            Self::Reliable => "far more reliable messages than the limits allow",
            Self::Latest => "far more latest messages than the limits allow",
            Self::Control => "far more requests than the limits allow",
            Self::Bytes => "far more bytes than the limits allow",
        }
    }
}

/// Frames of the WebSocket that are no message, or more than a message needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Pings, pongs and closes: each counts as a control frame.
    pub controls: u32,
    /// Fragments of messages but their first: each counts as bytes.
    pub fragments: u32,
}

impl Overhead {
    /// Whether there was none.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.controls == 0 && self.fragments == 0
    }
}

impl Node {
    /// Whether a connection was held, and [`Self::handle_drained`] waits for the driver to have
    /// read all that has come.
    #[must_use]
    pub fn is_behind(&self, conn: ConnId) -> bool {
        self.connections.get(conn.key()).is_some_and(|connection| connection.behind)
    }

    /// Whether a connection must not be read. The driver looks before each input of a
    /// connection, and is told by [`Output::Resume`](super::Output::Resume) when it may read on.
    #[must_use]
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.connections.get(conn.key()).is_some_and(Connection::is_held)
    }

    /// The WebSocket of a connection has taken something that is no message. Ignored if the
    /// connection is being closed.
    pub fn handle_overhead(&mut self, now: Now, conn: ConnId, overhead: Overhead) {
        let now = self.begin(now);
        self.take_overhead(now, conn.key(), overhead);
        self.consult_registrar(now);
    }

    /// Everything that has come of a connection is read, and it [is not held](Self::is_held).
    /// To be called if the connection [is behind](Self::is_behind).
    pub fn handle_drained(&mut self, now: Now, conn: ConnId) {
        let now = self.begin(now);
        if let Some(connection) = self.connections.get_mut(conn.key()) {
            connection.caught_up(&self.allowances, now.instant);
        }
    }

    fn take_overhead(&mut self, now: Now, key: Key, overhead: Overhead) {
        let Overhead { controls, fragments } = overhead;
        if fragments > 0 && !self.charge(now, key, Class::Bytes, u64::from(fragments) * FRAGMENT_BYTES) {
            return;
        }
        if controls > 0 {
            self.charge(now, key, Class::Control, controls.into());
        }
    }

    /// Charges a connection, taken or refused, for something that it has sent: pauses it if it
    /// is faster than its limits, and closes it if no stall can explain that. Whether it is
    /// still open.
    pub(super) fn charge(&mut self, now: Now, key: Key, class: Class, tokens: u64) -> bool {
        let Self { connections, allowances, stats, planted, .. } = self;
        // The node may have given it up, and the driver has not heard so yet.
        let Some(connection) = connections.get_mut(key) else { return false };
        if connection.is_closing() {
            return planted.is(Plant::OldConnectionWrites);
        }
        let meters = &mut connection.meters;
        let (meter, allowance) = match class {
            Class::Reliable => (&mut meters.reliable, &allowances.reliable),
            Class::Latest => (&mut meters.latest, &allowances.latest),
            Class::Control => (&mut meters.control, &allowances.control),
            Class::Bytes => (&mut meters.bytes, &allowances.bytes),
        };
        match meter.charge(allowance, now.instant, tokens, connection.behind) {
            Charge::Within => true,
            Charge::Pause(pause) if !planted.is(Plant::BacklogPunished) => {
                stats.pauses += u64::from(connection.paused.is_none());
                let until = now.instant + pause;
                connection.paused = connection.paused.max(Some(until));
                connection.behind = true;
                self.book_connection(key);
                true
            }
            Charge::Pause(_) | Charge::Spent => {
                self.misbehaved(now, key, v1::Reason::RateLimited, String::from(class.excess()));
                false
            }
        }
    }
}
