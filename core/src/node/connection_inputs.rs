//! Inputs about connections, and what the node does when a connection asks for more than itself.

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

impl Node {
    // Getters.

    /// Whether a connection was held, and [`Self::handle_drained`] waits for the driver to have
    /// read all that has come.
    #[must_use]
    pub fn is_behind(&self, conn: ConnId) -> bool {
        self.connections.is_behind(conn.key())
    }

    /// Whether a connection must not be read. The driver looks before each input of a
    /// connection, and is told by [`Output::Resume`](super::Output::Resume) when it may read on.
    #[must_use]
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.connections.is_held(conn.key())
    }

    // Inputs.

    /// A trusted proxy has connected for a client, of which nothing is known yet. It counts
    /// for the proxy, which has no cap of its own, until [`Self::handle_address`].
    ///
    /// # Errors
    /// If a cap is reached; then there is no state for it, and the driver drops it.
    pub fn handle_proxied(&mut self, now: Now, proxy: Address) -> Result<ConnId, Refusal> {
        let now = self.begin(now);
        self.accept(now, Source::Proxy(proxy))
    }

    /// A proxy has said whom a connection is for: it counts for that address from now on.
    ///
    /// # Errors
    /// If the address has as many connections as it may, or logs in too fast: the connection still counts for the
    /// proxy, and the driver closes it.
    pub fn handle_address(&mut self, now: Now, conn: ConnId, client: Address) -> Result<(), Refusal> {
        let now = self.begin(now);
        let (connections, mut cx) = self.connections(now);
        connections.count_for(&mut cx, conn.key(), client)
    }

    /// The WebSocket of a connection has taken something that is no message. Ignored if the
    /// connection is being closed.
    pub fn handle_overhead(&mut self, now: Now, conn: ConnId, overhead: Overhead) {
        let now = self.begin(now);
        let (connections, mut cx) = self.connections(now);
        connections.handle_overhead(&mut cx, conn.key(), overhead);
        self.consult_registrar(now);
    }

    /// Everything that has come of a connection is read, and it [is not held](Self::is_held).
    /// To be called if the connection [is behind](Self::is_behind).
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

    /// Tells the driver that there is something to transmit, unless the driver knows.
    pub(super) fn wake(&mut self, key: Key) {
        self.connections.wake(&mut self.bugs, &mut self.outputs, key);
    }

    /// Answers a request of the connection. A peer that lets answers pile up is closed.
    pub(super) fn answer(&mut self, now: Now, key: Key, frame: Bytes) {
        let (connections, mut cx) = self.connections(now);
        connections.answer(&mut cx, key, frame);
    }

    /// Tells a client that something it has sent was not understood.
    pub(super) fn unsupported(&mut self, now: Now, key: Key, what: v1::Unsupported) {
        let (connections, mut cx) = self.connections(now);
        connections.unsupported(&mut cx, key, what);
    }

    /// Tells a client that it is not in a room. Of a text that is no name only the front is sent,
    /// cut to the length of a name.
    pub(super) fn left(
        &mut self,
        now: Now,
        key: Key,
        room: &str,
        reason: v1::LeftReason,
        answers_leave: bool,
    ) {
        let left = v1::Left { room: shown(room), reason: reason.into(), answers_leave };
        let frame = wire::encode(v1::Kind::Left, &v1::Metadata::default(), &left);
        // Many messages may be under way for a room that is gone; one answer is enough.
        let (connections, mut cx) = self.connections(now);
        connections.answer_once(&mut cx, key, frame);
    }

    /// Closes a connection whose peer broke the protocol or its limits, and says how.
    pub(super) fn misbehaved(&mut self, now: Now, key: Key, reason: v1::Reason, what: String) {
        self.wronged(now, key, reason, what, Wrong::Protocol);
    }

    /// [`Self::misbehaved`], with the kind of wrong.
    pub(super) fn wronged(&mut self, now: Now, key: Key, reason: v1::Reason, what: String, wrong: Wrong) {
        let (connections, mut cx) = self.connections(now);
        connections.punish(&mut cx, key, Offence::new(reason, what).with(wrong));
    }

    /// Starts to close a connection. Its input is ignored from now on. Its session, if it
    /// still is the newest connection of one, loses it when the connection is gone.
    pub(super) fn close(&mut self, now: Now, key: Key, reason: v1::Reason, message: &str) {
        let retry_after = match reason {
            v1::Reason::Draining => self.draining.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        self.close_until(now, key, reason, message, retry_after);
    }

    /// Starts to close a connection whose client is to come back after a while.
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

    /// Parts a session from a connection that is gone, if the session has no newer one.
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
