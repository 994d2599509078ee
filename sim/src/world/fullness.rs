//! A registry without space, and the check that its nodes detect it.

use skirmish_core::registry::{Error, Failure};

use super::{World, WorldEvent};
use crate::history::Actor;
use crate::oracle::{Guarantee, Verdict};
use crate::scenario::Action;

impl World<'_> {
    /// Makes the registry refuse all requests that need space, for this long.
    pub(super) fn fill_registry(&mut self, millis: u64) {
        let at = self.at;
        let until = at + millis * 1_000;
        let Some(registry) = self.registry.as_mut() else { return };
        let (_, end) = registry.full.get_or_insert((at, until));
        *end = until.max(*end);
        registry.machine.set_full(true);
        self.coverage.hit("registry full");
        self.trouble(Actor::Registry, "full");
        self.schedule(until, WorldEvent::RegistryEmptied);
    }

    /// Gives the registry space again, if the time has come.
    pub(super) fn empty_registry(&mut self) -> Verdict {
        let at = self.at;
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        let Some((since, _)) = registry.full.take_if(|(_, until)| *until <= at) else { return Ok(()) };
        registry.machine.set_full(false);
        self.relief(Actor::Registry, "full");
        self.all_noticed(since)
    }

    /// Gives the registry space again at once.
    pub(super) fn end_fullness(&mut self) -> Verdict {
        let at = self.at;
        if let Some((_, until)) = self.registry.as_mut().and_then(|registry| registry.full.as_mut()) {
            *until = at;
        }
        self.empty_registry()
    }

    /// Checks that every node has detected the lack of space, if it has lasted long enough and
    /// nothing else can have hidden it.
    fn all_noticed(&mut self, since: u64) -> Verdict {
        let shape = &self.scenario.shape;
        let other =
            |action: Action| shape.is_disturbed_by(action) && !matches!(action, Action::FillRegistry { .. });
        if self.at - since < shape.refusal_bound()
            || self.scenario.steps.iter().any(|step| other(step.action))
        {
            return Ok(());
        }
        for node in &self.nodes {
            let now = node.clock.now(self.at).instant;
            let failure = node.machine.as_ref().and_then(|machine| machine.registry_failure(now));
            if failure != Some(Failure::Refused(Error::NoSpace)) {
                let (number, millis) = (node.number, (self.at - since) / 1_000);
                let description = format!(
                    "the registry has had no space for {millis} ms, and node {number} has it that {failure:?}"
                );
                return self.broken(Guarantee::Liveness, description);
            }
        }
        self.coverage.hit("registry full noticed");
        Ok(())
    }
}
