//! Registry in the process that uses it.

use alloc::collections::VecDeque;

use super::{Failure, News, Registry, RegistryCommand, RegistryConfig, RegistryEvent, Watched};
use crate::base::time::{Deadline, Instant};

/// A [`Registry`] that gets a node's [`RegistryCommand`]s directly: the default of a single server, and
/// etcd's part in the simulator. Every command is answered at once, and no outcome is unknown. All data end
/// with the process.
#[derive(Debug)]
pub struct Embedded {
    registry: Registry,
    events: VecDeque<RegistryEvent>,
}

impl Embedded {
    /// Creates an empty registry.
    #[must_use]
    pub fn new(config: RegistryConfig, now: Instant) -> Self {
        Self { registry: Registry::new(config, now), events: VecDeque::new() }
    }

    /// Returns the machine.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Executes a command.
    pub fn handle_call(&mut self, now: Instant, call: RegistryCommand) {
        match call {
            RegistryCommand::Request { id, request } => {
                let outcome = self.registry.handle(now, &request).map_err(Failure::Refused);
                self.events.push_back(RegistryEvent::Reply { id, outcome });
            }
            RegistryCommand::Watch { id, watch } => {
                if self.registry.watch(now, id, watch).is_err() {
                    let revision = self.registry.revision();
                    self.events.push_back(RegistryEvent::Watched(Watched {
                        id,
                        revision,
                        news: News::Canceled,
                    }));
                }
            }
            RegistryCommand::Unwatch(id) => self.registry.unwatch(id),
        }
    }

    /// Handles deadlines that are due: leases may have ended.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.registry.handle_timeout(now);
    }

    /// Returns the next answer, or the next news of a watch.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        self.events.pop_front().or_else(|| self.registry.poll_output().map(RegistryEvent::Watched))
    }

    /// Returns the time of the next [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.registry.poll_timeout()
    }
}
