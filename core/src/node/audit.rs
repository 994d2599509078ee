//! Every bound of a node (G11).

use super::Node;
use crate::hosting::Role;

impl Node {
    /// Checks every bound of the node (G11). Looks at everything there is: for
    /// simulation and debugging.
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        let config = &self.config;
        check(self.connections.len() <= config.connections.total, "connections")?;
        check(self.sessions.len() <= config.sessions.total, "sessions")?;
        check(self.rooms.len() <= config.rooms.total, "rooms")?;
        self.admission.audit(&config.connections, self.connections.len())?;
        check(self.logins.len() <= config.sessions.total, "players whose log-ins are counted")?;
        check(
            self.logins_by_address.len() <= config.connections.total,
            "addresses whose log-ins are counted",
        )?;
        check(self.rooms_by_name.len() == self.rooms.len(), "names of rooms")?;
        let things = self.connections.len()
            + self.sessions.len()
            + self.rooms.len()
            + self.links.len()
            + self.peers.len();
        check(self.agenda.len() <= things, "agenda")?;
        let mut members = 0;
        for hosted in self.rooms.keys().filter_map(|key| self.rooms.get(key)) {
            // Who left behind the first entry of a tail is there until that entry was read.
            let behind = if hosted.is_primary() { 0 } else { config.rooms.window_entries };
            let most = config.rooms.members + behind;
            hosted.room.audit(&crate::config::RoomLimits { members: most, ..config.rooms.clone() })?;
            if hosted.is_primary() {
                members += hosted.room.members().len();
            }
            let used = !hosted.locals.is_empty() || hosted.is_primary() && !hosted.room.members().is_empty();
            check(used, "rooms without a member")?;
            check(hosted.locals.len() <= self.sessions.len(), "sessions in a room")?;
            check(hosted.waiting.len() <= hosted.locals.len(), "sessions on their way into a room")?;
            check(hosted.readers.len() <= self.links.len(), "links that read a room")?;
            match &hosted.role {
                Role::Claiming(claiming) => {
                    check(claiming.early() <= config.links.total, "links that wait for the claim of a room")?;
                }
                Role::Leading(leading) => {
                    check(leading.len() <= hosted.room.members().len(), "places of members")?;
                    check(leading.away() <= leading.len(), "members that are away")?;
                }
                Role::Following(_) => {}
            }
        }
        check(members == self.stats.members, "memberships")?;
        check(self.links.len() <= config.links.total, "links")?;
        check(self.clocks.others() <= self.peers.len(), "clocks of other nodes")?;
        for link in self.links.keys().filter_map(|key| self.links.get(key)) {
            link.audit(config.links.frame_bytes)?;
            check(link.readers.len() <= self.rooms.len(), "rooms read over a link")?;
        }
        for connection in self.connections.keys().filter_map(|key| self.connections.get(key)) {
            connection.audit(config.frames.frame_bytes)?;
            let Some(session) = connection.session.and_then(|key| self.sessions.get(key)) else { continue };
            check(session.memberships.len() <= config.sessions.rooms, "rooms of a session")?;
        }
        Ok(())
    }
}
