//! The surroundings of a machine of the node during one input.

use alloc::collections::VecDeque;

use super::{Event, Output};
use crate::base::bug::Bugs;
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::time::Now;
use crate::config::Config;

/// Time, configuration, and the parts of the node that all its machines share.
///
/// A machine changes itself. Everything else that it may change is in here: it draws random
/// numbers, queues output for the driver, and records broken invariants.
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) config: &'a Config,
    pub(super) rng: &'a mut Rng,
    /// Outputs for the driver, of all machines in one order.
    pub(super) out: &'a mut VecDeque<Output>,
    pub(super) bugs: &'a mut Bugs,
    pub(super) planted: Planted,
}

impl Cx<'_> {
    /// Queues an event for the driver.
    pub(super) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }
}
