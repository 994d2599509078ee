//! Inputs about connections, and the effects of connections on the rest of the node.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::connections::{ClientInput, Connections, LostConnection, Offence, Overhead, Source};
use super::cx::Cx;
use super::{Identity, Node, Refusal, Wrong};
use crate::base::id::{Address, ConnId};
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::wire;

/// Message of a client that a `Left` answers, with the number of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// A message of a session that is not a member.
    Message,
    /// A `Join`, or the resume of a room, that is refused, or whose membership has ended.
    Join(u64),
    /// A `Leave`.
    Leave(u64),
}

impl Node {
    // Getters.

    /// Returns true if a connection was held and the driver must still call
    /// [`Self::handle_drained`], when everything that had arrived is read.
    #[must_use]
    pub fn is_behind(&self, conn: ConnId) -> bool {
        self.connections.is_behind(conn.key())
    }

    /// Returns true if a connection must not be read. The driver checks this before each input of a
    /// connection; [`Output::Resume`](super::Output::Resume) says that reading may continue.
    #[must_use]
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.connections.is_held(conn.key())
    }

    // Inputs.

    /// Accepts a connection of a trusted proxy, whose client is not known yet. The connection
    /// counts for the proxy, which has no cap of its own, until [`Self::handle_address`].
    ///
    /// # Errors
    /// If a cap is reached. Then the node keeps no state for the connection, and the driver drops
    /// it.
    pub fn handle_proxied(&mut self, now: Now, proxy: Address) -> Result<ConnId, Refusal> {
        let now = self.begin(now);
        self.accept(now, Source::Proxy(proxy))
    }

    /// Counts a proxied connection for the address of its client, which the proxy has named now.
    ///
    /// # Errors
    /// If the address has reached its cap on connections, or logs in too often. The connection
    /// still counts for the proxy, and the driver closes it.
    pub fn handle_address(&mut self, now: Now, conn: ConnId, client: Address) -> Result<(), Refusal> {
        let now = self.begin(now);
        let (connections, mut cx) = self.connections(now);
        connections.count_for(&mut cx, conn.key(), client)
    }

    /// Charges a connection for WebSocket frames that are no messages. Ignored if the connection is
    /// being closed.
    pub fn handle_overhead(&mut self, now: Now, conn: ConnId, overhead: Overhead) {
        let now = self.begin(now);
        let (connections, mut cx) = self.connections(now);
        connections.handle_overhead(&mut cx, conn.key(), overhead);
        self.consult_registrar(now);
    }

    /// Notes that everything that had arrived on a connection is read. The driver must call this
    /// when the connection [is behind](Self::is_behind) and [is not held](Self::is_held).
    pub fn handle_drained(&mut self, now: Now, conn: ConnId) {
        let now = self.begin(now);
        self.connections.handle_drained(now.instant, conn.key());
    }

    // Steps of inputs.

    /// Returns the connections, and the surroundings in which they act.
    pub(super) fn connections(&mut self, now: Now) -> (&mut Connections, Cx<'_>) {
        let Self { connections, config, rng, outputs, bugs, planted, .. } = self;
        (connections, Cx { now, config, rng, out: outputs, bugs, planted: *planted })
    }

    pub(super) fn accept(&mut self, now: Now, source: Source) -> Result<ConnId, Refusal> {
        let accepts = match self.draining {
            Some(_) => Err(Refusal::Draining),
            None => self.clock_is_right(),
        };
        let (connections, mut cx) = self.connections(now);
        match accepts {
            Ok(()) => connections.accept(&mut cx, source).map(ConnId::from_key),
            Err(refusal) => Err(connections.refuse(refusal)),
        }
    }

    pub(super) fn admit(&mut self, key: Key, identity: Identity) {
        let Self { connections, sessions, bugs, .. } = self;
        let player = identity.player.clone();
        if connections.admit(bugs, key, identity) {
            sessions.knock(&player, ConnId::from_key(key), |conn| connections.is_greeting(conn.key()));
        }
    }

    pub(super) fn take_frame(&mut self, now: Now, key: Key, bytes: Bytes) {
        let (connections, mut cx) = self.connections(now);
        match connections.handle_frame(&mut cx, key, bytes) {
            None => {}
            Some(ClientInput::Hello { player, hello }) => self.hello(now, key, &player, hello),
            Some(ClientInput::Message { session, message, metadata }) => {
                self.dispatch(now, key, session, message, &metadata);
            }
        }
    }

    pub(super) fn connection_timeout(&mut self, now: Now, key: Key) {
        let (connections, mut cx) = self.connections(now);
        if let Some(lost) = connections.handle_timeout(&mut cx, key) {
            self.connection_lost(now, lost);
        }
    }

    /// Forgets a connection that is gone. Its session, if the connection was the newest of one,
    /// waits to be resumed.
    pub(super) fn forget_connection(&mut self, now: Now, key: Key) {
        let (connections, cx) = self.connections(now);
        if let Some(lost) = connections.forget(&cx, key) {
            self.connection_lost(now, lost);
        }
    }

    // Effects on connections.

    /// Tells the driver of frames to transmit, unless the driver knows already.
    pub(super) fn wake(&mut self, key: Key) {
        self.connections.wake(&mut self.bugs, &mut self.outputs, key);
    }

    /// Sends an answer to a request. A connection whose queue of answers is full is closed.
    pub(super) fn answer(&mut self, now: Now, key: Key, frame: Bytes) {
        let (connections, mut cx) = self.connections(now);
        connections.answer(&mut cx, key, frame);
    }

    /// Tells a client that one of its messages is unsupported.
    pub(super) fn unsupported(&mut self, now: Now, key: Key, what: v1::Unsupported) {
        let (connections, mut cx) = self.connections(now);
        connections.unsupported(&mut cx, key, what);
    }

    /// Tells a client that it is no member of a room. Of a text that is no valid name only the
    /// front is sent, at most as long as a name.
    pub(super) fn left(
        &mut self,
        now: Now,
        key: Key,
        room: &str,
        reason: v1::LeftReason,
        answered: Answered,
    ) {
        let (request, answers_leave) = match answered {
            Answered::Message => (0, false),
            Answered::Join(request) => (request, false),
            Answered::Leave(request) => (request, true),
        };
        let left = v1::Left { room: shown(room), reason: reason.into(), answers_leave, request };
        let frame = wire::encode(v1::Kind::Left, &v1::Metadata::default(), &left);
        // Many messages may be under way for a room that is gone; one answer is enough.
        let (connections, mut cx) = self.connections(now);
        connections.answer_once(&mut cx, key, frame);
    }

    /// Closes a connection whose peer broke the protocol or its limits, and tells the peer the
    /// reason.
    pub(super) fn misbehaved(&mut self, now: Now, key: Key, reason: v1::Reason, what: String) {
        self.wronged(now, key, reason, what, Wrong::Protocol);
    }

    /// [`Self::misbehaved`], with the kind of the violation.
    pub(super) fn wronged(&mut self, now: Now, key: Key, reason: v1::Reason, what: String, wrong: Wrong) {
        let (connections, mut cx) = self.connections(now);
        connections.punish(&mut cx, key, Offence::new(reason, what).with(wrong));
    }

    /// Starts to close a connection, and ignores its further input. A session of which this
    /// connection is still the newest is detached when the connection is gone.
    pub(super) fn close(&mut self, now: Now, key: Key, reason: v1::Reason, message: &str) {
        let retry_after = match reason {
            v1::Reason::Draining => self.draining.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        self.close_until(now, key, reason, message, retry_after);
    }

    /// Starts to close a connection whose client should return after `retry_after`.
    pub(super) fn close_until(
        &mut self,
        now: Now,
        key: Key,
        reason: v1::Reason,
        message: &str,
        retry_after: Duration,
    ) {
        let (connections, mut cx) = self.connections(now);
        connections.close_until(&mut cx, key, reason, message, retry_after);
    }

    // Effects of connections.

    /// Detaches a session from a closed connection, if the session has no newer one.
    fn connection_lost(&mut self, now: Now, lost: LostConnection) {
        let LostConnection { session, conn, trace } = lost;
        self.detach(now, session, conn, trace);
    }
}

/// Returns the front of a text from outside, at most as long as a name.
fn shown(text: &str) -> String {
    let longest = text.len().min(crate::base::id::MAX_NAME);
    (0..=longest).rev().find_map(|end| text.get(..end)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned as _;

    use super::shown;

    #[test]
    fn no_more_than_a_name_is_shown_of_what_a_client_sent() {
        assert_eq!(shown("arena"), "arena");
        assert_eq!(shown(""), "");
        assert_eq!(shown(&"x".repeat(60_000)).len(), 64);
        assert_eq!(shown(&"\u{1F600}".repeat(20)).len(), 64);
        assert_eq!(shown(&("x".to_owned() + &"\u{1F600}".repeat(20))).len(), 61);
    }
}
