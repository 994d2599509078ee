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
        check(self.agenda.len() <= self.rooms.len(), "agenda")?;
        let mut members = 0;
        for hosted in self.rooms.iter() {
            hosted.audit(config, self.sessions.len(), self.peers.links())?;
            if hosted.is_primary() {
                members += hosted.room().members().len();
            }
        }
        check(members == self.rooms.counts().members, "memberships")?;
        self.peers.audit(config)?;
        let is_read = |(link, room)| self.rooms.get(room).is_some_and(|hosted| hosted.reads(link));
        check(self.peers.reads().all(is_read), "rooms read over a link")?;
        self.player_tickets.audit()?;
        self.matcher.audit()?;
        check(self.clocks.others() <= self.peers.nodes(), "clocks of other nodes")
    }
}
