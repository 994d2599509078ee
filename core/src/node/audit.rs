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
        self.connections.audit(config)?;
        self.sessions.audit(config)?;
        self.rooms.audit(config.rooms.total)?;
        let things = self.rooms.len() + self.links.len() + self.peers.len();
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
        Ok(())
    }
}
