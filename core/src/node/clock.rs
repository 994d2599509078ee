//! The wall clock of a node: it is compared with those of the other nodes, and while it is off
//! the node serves nobody.
//!
//! Rooms that it leads go on for members at other nodes, as while it drains: what it stamps
//! there is [reckoned](Clocks::reckon) from when its clock was right. It leads no new ones.

use skirmish_proto::v1;

use super::{Event, Node, Refusal};
use crate::base::id::NodeId;
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::config::Config;
use crate::node::clocks::{ClockVerdict, Clocks, Difference};

/// Longest wait of a node that starts for the clocks of others, however long the registry names
/// the dead: time for several dials. A node that lives may not know the one that starts yet.
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);

/// When clients of a node whose clock is off are to come back: by then they are sent elsewhere.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Message to clients of a node whose clock is off.
const OFF: &str = "the clock of this server is off";

/// The clock of a node that starts.
pub(super) fn clocks(config: &Config) -> Clocks {
    Clocks::new(config.rooms.clock_bound, config.registrar.node_ttl.min(LONGEST_PATIENCE))
}

impl Node {
    // Getters.

    /// The verdict on the node's wall clock: while it does not agree with the others, the node lets
    /// nobody in.
    #[must_use]
    pub const fn clock(&self) -> ClockVerdict {
        self.clocks.verdict()
    }

    /// Differences of the wall clocks of the other nodes that were measured.
    pub fn clock_differences(&self, now: Instant) -> impl Iterator<Item = Difference> {
        self.clocks.differences(now)
    }

    /// The other nodes whose wall clocks were not measured.
    pub fn unmeasured_clocks(&self) -> impl Iterator<Item = NodeId> {
        self.clocks.unmeasured()
    }

    // Commands.

    /// Looks at the clock once more, before a token is checked by it.
    ///
    /// # Errors
    /// If the node lets nobody in.
    pub fn check_clock(&mut self, now: Now) -> Result<(), Refusal> {
        self.begin(now);
        self.clock_is_right()
    }

    // Inputs.

    /// Begins an input: reads the clocks. What the input stamps it stamps by the time returned.
    pub(super) fn begin(&mut self, now: Now) -> Now {
        self.now = self.now.max(now.instant);
        let acquainted = self.registrar.knows_nodes();
        if let Some(verdict) = self.clocks.observe(now, acquainted) {
            self.clock_judged(now, verdict);
        }
        self.clocks.reckon(now)
    }

    /// Something may have become known of the other nodes.
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

    /// The registry names another node, whose clock is to be measured if a link can lead there
    /// and it is not an earlier life of this one.
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
