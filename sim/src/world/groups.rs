//! Group commit: the same machine as in the driver of etcd, used here by a node's driver.

use skirmish_core::registry::{
    Aftermath, CallId, Failure, GroupConfig, GroupFailure, GroupId, GroupOutput, RegistryEvent, Request,
    Response,
};
use skirmish_core::time::Duration;

use super::registry_messages::{ExchangeId, MessageContent};
use super::{World, WorldEvent};
use crate::history::Actor;
use crate::oracle::{Guarantee, Verdict};
use crate::scenario::Shape;

type RequestOutcome = Result<Response, Failure>;

/// Most requests in a group, if requests are grouped.
const MEMBERS: usize = 16;

/// Most groups in flight, if requests are grouped.
const IN_FLIGHT: usize = 2;

/// Most requests in flight, if each request is sent alone.
const ALONE_IN_FLIGHT: usize = 64;

/// Most waiting requests of a node.
const WAITING: usize = 16 * 1024;

/// Most bytes of a group.
const BYTES: usize = 512 * 1024;

/// Returns the bounds of the groups of a node.
pub(super) const fn config(shape: &Shape) -> GroupConfig {
    let (members, in_flight) = if shape.group_us == 0 { (1, ALONE_IN_FLIGHT) } else { (MEMBERS, IN_FLIGHT) };
    let patience = Duration::from_millis(shape.registry_call_ms);
    GroupConfig { waiting: WAITING, members, bytes: BYTES, in_flight, patience }
}

/// Returns true if at least two of the outcomes, which arrived at once, are of this kind.
fn several(outcomes: &[(CallId, RequestOutcome)], is_of_kind: impl Fn(&RequestOutcome) -> bool) -> bool {
    outcomes.iter().filter(|(_, outcome)| is_of_kind(outcome)).nth(1).is_some()
}

impl World<'_> {
    /// Gives a node's request to the driver, which gathers requests for a while or sends each at
    /// once.
    pub(super) fn ask(&mut self, node: usize, id: CallId, request: Request) {
        let (window, life) = (self.scenario.shape.group_us, self.nodes[node].life);
        let now = self.nodes[node].clock.now(self.at).instant;
        let Some(link) = self.registry_link(node) else { return };
        link.groups.handle_request(now, id, request);
        if window == 0 {
            self.launch(node);
        } else if !std::mem::replace(&mut link.gathers, true) {
            self.schedule(self.at + window, WorldEvent::Gathered(node, life));
        }
        self.drain_groups(node);
    }

    /// Sends the groups of a driver that has gathered requests for long enough.
    pub(super) fn gathered(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life {
            return;
        }
        if self.nodes[node].is_paused() {
            return self.nodes[node].deferred.push(WorldEvent::Gathered(node, life));
        }
        if let Some(link) = self.registry_link(node) {
            link.gathers = false;
            self.launch(node);
        }
    }

    /// Sends every group that can be sent.
    pub(super) fn launch(&mut self, node: usize) {
        let process = &self.nodes[node];
        let (now, life) = (process.clock.now(self.at).instant, process.life);
        let over = process.clock.world(now + Duration::from_millis(self.scenario.shape.registry_call_ms));
        while let Some(link) = self.registry_link(node).filter(|link| link.connected)
            && let Some(group) = link.groups.poll_group(now)
        {
            link.flying.insert(group.id);
            let session = link.session;
            self.send_message(
                node,
                session,
                MessageContent::Request(ExchangeId::Group(group.id), group.request),
            );
            self.schedule(over, WorldEvent::GroupSilent(node, life, group.id));
        }
    }

    /// Gives the driver's connection up, since a group was not answered in time.
    pub(super) fn group_silent(&mut self, node: usize, life: u32, id: GroupId) -> Verdict {
        if self.nodes[node].life != life {
            return Ok(());
        }
        if self.nodes[node].is_paused() {
            self.nodes[node].deferred.push(WorldEvent::GroupSilent(node, life, id));
            return Ok(());
        }
        match self.registry_link(node).filter(|link| link.flying.contains(&id)).map(|link| link.session) {
            Some(session) => self.lose_registry(node, session),
            None => Ok(()),
        }
    }

    /// Handles the answer to a group.
    pub(super) fn group_answered(&mut self, node: usize, id: GroupId, outcome: RequestOutcome) -> Verdict {
        let now = self.nodes[node].clock.now(self.at).instant;
        let Some(link) = self.registry_link(node).filter(|link| link.flying.contains(&id)) else {
            return Ok(());
        };
        link.flying.remove(&id);
        match outcome {
            Ok(response) => {
                if let Err(malformed) = link.groups.handle_response(now, id, response) {
                    return self.broken(Guarantee::Once, format!("node {node}'s {id:?}: {malformed}"));
                }
            }
            Err(failure) => {
                let aftermath = link.groups.handle_failure(now, id, GroupFailure::Outcome(failure));
                if aftermath == Aftermath::Halved {
                    self.coverage.hit("group halved");
                }
            }
        }
        self.drain_groups(node);
        self.launch(node);
        self.settle_node(node)
    }

    /// Ends every group in flight after the loss of the connection. The groups may have been
    /// executed or not.
    pub(super) fn lose_groups(&mut self, node: usize) -> Verdict {
        let now = self.nodes[node].clock.now(self.at).instant;
        let flying = self.registry_link(node).map(|link| std::mem::take(&mut link.flying));
        for id in flying.into_iter().flatten() {
            if let Some(link) = self.registry_link(node) {
                // Reads wait for the next connection.
                let _ = link.groups.handle_failure(now, id, GroupFailure::Lost);
            }
            self.drain_groups(node);
        }
        self.settle_node(node)
    }

    /// Ends requests that have run out of time.
    pub(super) fn groups_timeout(&mut self, node: usize) {
        let now = self.nodes[node].clock.now(self.at).instant;
        if let Some(link) = self.registry_link(node) {
            link.groups.handle_timeout(now);
            self.drain_groups(node);
        }
    }

    /// Queues the outcomes of a node's requests for the node.
    fn drain_groups(&mut self, node: usize) {
        let mut outcomes = Vec::new();
        while let Some(output) = self.registry_link(node).and_then(|link| link.groups.poll_output()) {
            match output {
                GroupOutput::Reply { id, outcome, .. } => outcomes.push((id, outcome)),
                // The time of the group ends at about this moment, and then the connection is given
                // up.
                GroupOutput::Overdue { .. } => self.coverage.hit("registry silent"),
            }
        }
        if several(&outcomes, |outcome| outcome.as_ref().is_ok_and(Response::wrote)) {
            self.coverage.hit("revision shared");
        }
        if several(&outcomes, |outcome| *outcome == Err(Failure::Unknown)) {
            self.coverage.hit("group unknown");
        }
        for (id, outcome) in outcomes {
            let told = RegistryEvent::Reply { id, outcome };
            self.history.record(self.at, Actor::Node(node), format_args!("is told: {told:?}"));
            self.nodes[node].told.push_back(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::draw::draw;
    use crate::world::{RunOptions, run};

    #[test]
    fn some_seeds_have_groups_that_are_done_refused_and_unknown() {
        let mut missing = vec!["revision shared", "group halved", "group unknown"];
        for scenario in (0..200).map(draw).filter(|scenario| scenario.shape.group_us > 0) {
            let coverage = run(&scenario, RunOptions::default()).coverage;
            missing.retain(|mark| !coverage.iter().any(|(hit, visits, _)| hit == *mark && visits > 0));
            if missing.is_empty() {
                break;
            }
        }
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn nothing_is_grouped_where_each_request_goes_alone() {
        let alone = (0..40).map(draw).filter(|scenario| scenario.shape.group_us == 0);
        for scenario in alone.filter(|scenario| scenario.shape.has_remote_registry()).take(3) {
            let coverage = run(&scenario, RunOptions::default()).coverage;
            let shared = coverage.iter().find(|(mark, ..)| *mark == "revision shared");
            assert_eq!(shared.map(|(_, visits, _)| visits), Some(0), "seed {}", scenario.seed);
        }
    }
}
