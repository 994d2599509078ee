//! Deadlines of connections: pauses, heartbeats, and the ends of phases.

use skirmish_proto::v1;

use super::connection::Phase;
use super::{Connections, LostConnection, UNAVAILABLE};
use crate::base::id::ConnId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Instant, LATE};
use crate::node::cx::Cx;
use crate::node::heartbeat::Beat;
use crate::node::{Event, Output};
use crate::wire;

impl Connections {
    /// Returns the earliest deadline, and its connection.
    pub(crate) fn next_timer(&self) -> Option<(Instant, Key)> {
        self.agenda.next()
    }

    /// Takes out the connection with the earliest deadline, if the deadline has come. The
    /// connection is to be given to [`Self::handle_timeout`].
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Key> {
        self.agenda.take_due(now)
    }

    /// Executes all due actions of a connection that was [taken out](Self::take_due).
    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>, key: Key) -> Option<LostConnection> {
        let Some(connection) = self.table.get_mut(key) else {
            cx.bugs.found("a connection that is not in the table is due");
            return None;
        };
        connection.booking.clear();
        if connection.paused.is_some_and(|until| until <= cx.now.instant) {
            connection.paused = None;
            cx.out.push_back(Output::Resume(ConnId::from_key(key)));
        }
        let (is_open, due) = (connection.is_open(), connection.phase_deadline());
        if is_open {
            self.beat(cx, key);
        } else if due <= cx.now.instant
            && let Some(lost) = self.end_phase(cx, key, due)
        {
            return Some(lost);
        }
        self.book(key);
        None
    }

    /// Sends a ping if one is due, or closes a connection that has missed too many.
    fn beat(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(connection) = self.table.get_mut(key) else {
            return cx.bugs.found("the heart of a connection beats that is not in the table");
        };
        // Answers are not read while the connection is paused.
        if connection.paused.is_some() && connection.heartbeat.handle_frame(&cx.config.heartbeat) {
            self.stats.unhealthy -= 1;
        }
        match connection.heartbeat.handle_timeout(&cx.config.heartbeat, cx.now.instant, cx.rng) {
            Beat::Early => {}
            Beat::Ping { nonce, unhealthy } => {
                let rtt = connection.heartbeat.rtt().unwrap_or_default();
                let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                let ping = v1::Ping { nonce, rtt_us };
                // A full queue drops the ping: then the peer does not read, and the miss counts.
                connection.queue.push(wire::encode(v1::Kind::Ping, &v1::Metadata::default(), &ping));
                if unhealthy {
                    self.stats.unhealthy += 1;
                    cx.event(Event::Unhealthy { conn: ConnId::from_key(key) });
                }
                self.wake(cx.bugs, cx.out, key);
            }
            Beat::Dead if cx.planted.is(Plant::HeartbeatBlind) => {
                if connection.heartbeat.handle_frame(&cx.config.heartbeat) {
                    self.stats.unhealthy -= 1;
                }
            }
            Beat::Dead => {
                self.stats.heartbeat_timeouts += 1;
                self.close(cx, key, v1::Reason::HeartbeatTimeout, "too many heartbeats were missed");
            }
        }
    }

    /// Ends a phase at its deadline, `due`. A deadline that is found late is put off once.
    fn end_phase(&mut self, cx: &mut Cx<'_>, key: Key, due: Instant) -> Option<LostConnection> {
        let Some(connection) = self.table.get_mut(key) else {
            cx.bugs.found("a phase ends of a connection that is not in the table");
            return None;
        };
        let (caps, late) = (&cx.config.connections, cx.now.instant.since(due) > LATE);
        let again = if connection.is_closing() { caps.linger } else { caps.handshake_timeout };
        if late && !cx.planted.is(Plant::TimeoutsFirst) && connection.excuse(cx.now.instant + again) {
            return None;
        }
        if connection.is_closing() {
            cx.out.push_back(Output::Abort(ConnId::from_key(key)));
            return self.forget(cx, key);
        }
        self.stats.handshake_timeouts += 1;
        let (reason, what) = match connection.phase {
            Phase::Claiming { .. } => (v1::Reason::Overloaded, UNAVAILABLE),
            _ => (v1::Reason::HandshakeTimeout, "no Hello within the handshake deadline"),
        };
        self.close(cx, key, reason, what);
        None
    }
}
