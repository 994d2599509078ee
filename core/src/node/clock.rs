//! Effects of the comparison of wall clocks: while the wall clock of a node is off, the node
//! accepts no clients.
//!
//! Members at other nodes go on using the rooms that this node leads, as during a drain. Stamps in
//! those rooms are [reckoned](Clocks::reckon) from the time when the clock was right. The node does
//! not become the primary of more rooms.

use skirmish_proto::v1;

use super::{Event, Node, Refusal};
use crate::base::id::NodeId;
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::config::Config;
use crate::node::clocks::{ClockVerdict, Clocks, Difference};

/// Longest wait of a starting node for the clocks of other nodes, independent of the lifetime of dead
/// nodes' records: time for several dials. A living node may not know the starting one yet.
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);

/// Time after which clients of a node whose clock is off return. Other nodes accept them by then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Message to clients of a node whose clock is off.
const OFF: &str = "the clock of this server is off";

/// Creates the clocks of a starting node.
pub(super) fn clocks(config: &Config) -> Clocks {
    Clocks::new(config.rooms.clock_bound, config.registrar.node_ttl.min(LONGEST_PATIENCE))
}

impl Node {
    // Getters.

    /// Returns the verdict on the node's wall clock. The node accepts clients only while its clock
    /// agrees with the others.
    #[must_use]
    pub const fn clock(&self) -> ClockVerdict {
        self.clocks.verdict()
    }

    /// Returns the measured differences of the other nodes' wall clocks.
    pub fn clock_differences(&self, now: Instant) -> impl Iterator<Item = Difference> {
        self.clocks.differences(now)
    }

    /// Returns the other nodes whose wall clocks were not measured.
    pub fn unmeasured_clocks(&self) -> impl Iterator<Item = NodeId> {
        self.clocks.unmeasured()
    }

    // Commands.

    /// Judges the clock once more, before a token is checked by this clock.
    ///
    /// # Errors
    /// If the node accepts no clients.
    pub fn check_clock(&mut self, now: Now) -> Result<(), Refusal> {
        self.begin(now);
        self.clock_is_right()
    }

    // Inputs.

    /// Begins an input: reads the clocks. Returns the time for all stamps of this input.
    pub(super) fn begin(&mut self, now: Now) -> Now {
        self.now = self.now.max(now.instant);
        let acquainted = self.registrar.knows_nodes();
        if let Some(verdict) = self.clocks.observe(now, acquainted) {
            self.clock_judged(now, verdict);
        }
        self.clocks.reckon(now)
    }

    /// Judges the clock again, after an input that may have changed the known nodes.
    pub(super) fn reconsider_clock(&mut self, now: Now) {
        let acquainted = self.registrar.knows_nodes();
        if let Some(verdict) = self.clocks.reconsider(now.instant, acquainted) {
            self.clock_judged(now, verdict);
        }
    }

    fn clock_judged(&mut self, now: Now, verdict: ClockVerdict) {
        self.event(Event::ClockJudged { verdict });
        if verdict != ClockVerdict::Off {
            return;
        }
        self.stats.clock_stops += 1;
        let (connections, mut cx) = self.connections(now);
        connections.close_all(&mut cx, v1::Reason::Draining, OFF, RETRY_AFTER);
    }

    /// Expects a measurement of another node's clock, if a link between the two nodes is possible
    /// and the other node is not an earlier start of this one.
    pub(super) fn expect_clock(&mut self, node: NodeId, record: &v1::NodeRecord) {
        let own = &self.link_address;
        let dialed = if self.id < node { &record.link } else { own };
        if !dialed.is_empty() && record.link != *own {
            self.clocks.add(node);
        }
    }

    pub(super) fn clock_deadline(&self) -> Option<Deadline> {
        let at = self.clocks.poll_timeout()?;
        Some(Deadline::new(at, "clocks of other nodes are waited for no longer"))
    }

    // Consequences of the verdict.

    pub(super) fn clock_is_off(&self) -> bool {
        self.clock() == ClockVerdict::Off
    }

    pub(super) const fn clock_is_right(&self) -> Result<(), Refusal> {
        match self.clock() {
            ClockVerdict::Unknown => Err(Refusal::ClockUnknown),
            ClockVerdict::Agrees => Ok(()),
            ClockVerdict::Off => Err(Refusal::ClockOff),
        }
    }
}
