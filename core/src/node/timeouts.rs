//! Deadlines of sessions.

use skirmish_proto::v1;

use super::{Node, Timer};
use crate::base::id::ConnId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{LATE, Now};

impl Node {
    pub(super) fn session_timeout(&mut self, now: Now, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return self.bugs.found("a session that is not in the table is due");
        };
        session.booking.clear();
        match session.expires {
            Some(at) if at <= now.instant => {
                let knocks = |conn: ConnId| self.connections.is_greeting(conn.key());
                // A connection says its Hello in bounded time. The player may also be one who
                // has not been named yet, or who could not come while the node stood still:
                // either excuses once, both together each time.
                let at_the_door = session.knocking.iter().copied().any(knocks);
                let (late, unnamed) = (now.instant.since(at) > LATE, self.connections.unauthenticated() > 0);
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
