//! Every bound of a node (G11).

use super::Node;

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
        self.rooms.audit(config.rooms.total)?;
        self.admission.audit(&config.connections, self.connections.len())?;
        check(self.logins.len() <= config.sessions.total, "players whose log-ins are counted")?;
        check(
            self.logins_by_address.len() <= config.connections.total,
            "addresses whose log-ins are counted",
        )?;
        let things = self.connections.len()
            + self.sessions.len()
            + self.rooms.len()
            + self.links.len()
            + self.peers.len();
        check(self.agenda.len() <= things, "agenda")?;
        let mut members = 0;
        for hosted in self.rooms.iter() {
            hosted.audit(config, self.sessions.len(), self.links.len())?;
            if hosted.is_primary() {
                members += hosted.room().members().len();
            }
        }
        check(members == self.rooms.counts().members, "memberships")?;
        check(self.links.len() <= config.links.total, "links")?;
        check(self.clocks.others() <= self.peers.len(), "clocks of other nodes")?;
        for link in self.links.keys().filter_map(|key| self.links.get(key)) {
            link.audit(config.links.frame_bytes)?;
            check(link.rooms().count() <= self.rooms.len(), "rooms read over a link")?;
        }
        for connection in self.connections.keys().filter_map(|key| self.connections.get(key)) {
            connection.audit(config.frames.frame_bytes)?;
            let Some(session) = connection.session.and_then(|key| self.sessions.get(key)) else { continue };
            check(session.memberships.len() <= config.sessions.rooms, "rooms of a session")?;
        }
        Ok(())
    }
}
