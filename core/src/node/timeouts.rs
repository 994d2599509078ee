//! Deadlines of connections and sessions.

use skirmish_proto::v1;

use super::{Event, Node, Output, Timer, claims};
use crate::base::id::ConnId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{LATE, Now};
use crate::node::connection::{Connection, Phase};
use crate::node::heartbeat::Beat;
use crate::wire;

impl Node {
    pub(super) fn connection_timeout(&mut self, now: Now, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return self.bugs.found("a connection that is not in the table is due");
        };
        connection.booking.clear();
        if connection.paused.is_some_and(|until| until <= now.instant) {
            connection.paused = None;
            self.outputs.push_back(Output::Resume(ConnId::from_key(key)));
        }
        if connection.is_open() {
            // What it answers is not read.
            if connection.paused.is_some() && connection.heartbeat.handle_frame(&self.config.heartbeat) {
                self.stats.unhealthy -= 1;
            }
            match connection.heartbeat.handle_timeout(&self.config.heartbeat, now.instant, &mut self.rng) {
                Beat::Early => {}
                Beat::Ping { nonce, unhealthy } => {
                    let rtt = connection.heartbeat.rtt().unwrap_or_default();
                    let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                    let ping = v1::Ping { nonce, rtt_us };
                    // A queue that is full is not read, and the miss will tell.
                    connection.queue(wire::encode(v1::Kind::Ping, &v1::Metadata::default(), &ping));
                    if unhealthy {
                        self.stats.unhealthy += 1;
                        self.event(Event::Unhealthy { conn: ConnId::from_key(key) });
                    }
                    self.wake(key);
                }
                Beat::Dead if self.planted.is(Plant::HeartbeatBlind) => {
                    connection.heartbeat.handle_frame(&self.config.heartbeat);
                }
                Beat::Dead => {
                    self.stats.heartbeat_timeouts += 1;
                    self.close(now, key, v1::Reason::HeartbeatTimeout, "too many heartbeats were missed");
                }
            }
        } else if let due = connection.phase_deadline()
            && due <= now.instant
        {
            let (connections, late) = (&self.config.connections, now.instant.since(due) > LATE);
            let again =
                if connection.is_closing() { connections.linger } else { connections.handshake_timeout };
            if late && !self.planted.is(Plant::TimeoutsFirst) && connection.excuse(now.instant + again) {
                // Its deadline is booked below.
            } else if connection.is_closing() {
                self.outputs.push_back(Output::Abort(ConnId::from_key(key)));
                self.forget_connection(now, key);
            } else {
                self.stats.handshake_timeouts += 1;
                let (reason, what) = match connection.phase {
                    Phase::Claiming { .. } => (v1::Reason::Overloaded, claims::UNAVAILABLE),
                    _ => (v1::Reason::HandshakeTimeout, "no Hello within the handshake deadline"),
                };
                self.close(now, key, reason, what);
            }
        }
        self.book_connection(key);
    }

    pub(super) fn session_timeout(&mut self, now: Now, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return self.bugs.found("a session that is not in the table is due");
        };
        session.booking.clear();
        match session.expires {
            Some(at) if at <= now.instant => {
                let knocks =
                    |conn: ConnId| self.connections.get(conn.key()).is_some_and(Connection::is_greeting);
                // A connection says its Hello in bounded time. The player may also be one who
                // has not been named yet, or who could not come while the node stood still:
                // either excuses once, both together each time.
                let at_the_door = session.knocking.iter().copied().any(knocks);
                let (late, unnamed) = (now.instant.since(at) > LATE, self.admission.waiting() > 0);
                let excused = (late || unnamed) && !core::mem::replace(&mut session.excused, true);
                let may_come = excused || (late && unnamed);
                if at_the_door || (may_come && !self.planted.is(Plant::TimeoutsFirst)) {
                    let later = now.instant + self.config.connections.handshake_timeout;
                    session.expires = Some(later);
                    return self.agenda.book(Timer::Session(key), &mut session.booking, later);
                }
                self.stats.expiries += 1;
                self.end_session(now, key, v1::Reason::Unspecified);
            }
            Some(at) => self.agenda.book(Timer::Session(key), &mut session.booking, at),
            None => {}
        }
    }
}
