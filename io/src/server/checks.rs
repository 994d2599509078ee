//! Checks at the driver's pulse that find the reasons for which the node is not ready for players.

use std::borrow::Cow;
use std::fmt::Write as _;

use skirmish_core::id::NodeId;
use skirmish_core::node::clocks::{ClockVerdict, Difference};
use skirmish_core::node::{Node, Unreachable};
use skirmish_core::registry::{Error, Failure};
use skirmish_core::time::{Duration, Instant};

use super::readiness::Reason;
use super::shard::Shard;
use super::{DRIVER_PULSE, descriptors, logging};
use crate::log_queue::LogQueue;
use crate::registry::Status;

/// Longest time between two checks.
const CHECK_INTERVAL: Duration = DRIVER_PULSE;
/// Unreachable nodes that a line names. Further nodes are counted.
const NODES_NAMED: usize = 2;
/// Lateness of the event loop above which the node is not ready.
const DRIVER_LATE: Duration = Duration::from_secs(2);
/// Shortest time for which the worst lateness is remembered. The longest is twice this time.
const LATENESS_WINDOW: Duration = Duration::from_secs(5);
/// Time for which a connection without a descriptor is remembered.
const FILES_WINDOW: Duration = Duration::from_secs(5);

/// Checks everything if the next check is due.
pub(super) fn pulse(shard: &mut Shard, now: Instant) {
    if now >= shard.next_check {
        run(shard, now);
    }
}

/// Checks everything, and logs the changes.
pub(super) fn run(shard: &mut Shard, now: Instant) {
    shard.next_check = now + CHECK_INTERVAL;
    let draining = (!shard.accepting).then_some(Cow::Borrowed(""));
    shard.readiness.set(now, Reason::Draining, draining);
    let shared = registry_shared(shard);
    let replaced = registry_replaced(shard, now);
    let status = shard.registry.status();
    let refused = refused(&status, shard.node.registry_failure(now)).filter(|_| !shard.stopping);
    let explained = replaced.is_some() || shared.is_some() || refused.is_some();
    let silent = registry_silent(shard, now, &status).filter(|_| !explained);
    shard.readiness.set(now, Reason::RegistryShared, shared);
    shard.readiness.set(now, Reason::RegistryReplaced, replaced);
    for reason in REFUSALS {
        let detail = refused.as_ref().filter(|(known, _)| *known == reason);
        shard.readiness.set(now, reason, detail.map(|(_, detail)| Cow::Owned(detail.clone())));
    }
    shard.readiness.set(now, Reason::RegistrySilent, silent);
    let (off, unknown) = clock(shard, now);
    shard.readiness.set(now, Reason::ClockOff, off);
    shard.readiness.set(now, Reason::ClockUnknown, unknown);
    let (dead, unreachable) = links(shard, now);
    shard.readiness.set(now, Reason::LinksDead, dead);
    shard.readiness.set(now, Reason::PeerUnreachable, unreachable);
    let late = driver_late(shard, now);
    shard.readiness.set(now, Reason::DriverLate, late);
    let out_of_files = out_of_files(shard, now);
    shard.readiness.set(now, Reason::OutOfFiles, out_of_files);
    let log_lost = shard.log.as_ref().and_then(LogQueue::trouble).map(|trouble| trouble.to_string().into());
    shard.readiness.set(now, Reason::LogLost, log_lost);
    logging::suppressed(shard, now);
    while let Some(change) = shard.readiness.poll_change(now) {
        logging::readiness(&change);
    }
}

/// Returns a detail if a node of another deployment keeps this node from registering.
fn registry_shared(shard: &Shard) -> Option<Cow<'static, str>> {
    let (node, name) = shard.node.foreign_node()?;
    Some(format!("node {name:?} ({node})").into())
}

/// Returns a detail if the node has found the registry to be replaced and does not serve again yet.
fn registry_replaced(shard: &mut Shard, now: Instant) -> Option<Cow<'static, str>> {
    if shard.node.is_serving(now) || shard.stopping {
        shard.registry_replaced = None;
    }
    shard.registry_replaced.map(|why| why.to_string().into())
}

/// The reasons for which a registry refuses writes. At most one of them holds at a time.
const REFUSALS: [Reason; 4] =
    [Reason::RegistryFull, Reason::RegistryDenied, Reason::RegistryCorrupt, Reason::RegistryRefuses];

/// Returns the reason for which the registry refuses writes, with the registry's own words if there
/// are any. `failure` is the node's finding. Without a connection, the reason is the registry's
/// refusal to connect: a registry that cannot be reached is a different reason.
fn refused(status: &Status, failure: Option<Failure>) -> Option<(Reason, String)> {
    let said = status.refusal.as_ref();
    let failure = if status.connected { failure } else { said.map(|refusal| refusal.failure) }?;
    let reason = match failure {
        Failure::Refused(Error::NoSpace) => Reason::RegistryFull,
        Failure::Refused(Error::PermissionDenied) => Reason::RegistryDenied,
        Failure::Refused(Error::Corrupt) => Reason::RegistryCorrupt,
        Failure::Refused(_) | Failure::Unavailable | Failure::Unknown => Reason::RegistryRefuses,
    };
    let words = said.filter(|refusal| refusal.failure == failure).map(|refusal| refusal.words.clone());
    Some((reason, words.unwrap_or_else(|| failure.to_string())))
}

/// Returns a detail while the registry does not confirm that the node lives, and while no log-in
/// could be written because there is no connection.
fn registry_silent(shard: &Shard, now: Instant, status: &Status) -> Option<Cow<'static, str>> {
    let cut_off = !status.connected && shard.node.registry_failure(now).is_some();
    // A node that has stopped has informed the registry.
    if shard.node.is_serving(now) && !cut_off || shard.stopping {
        return None;
    }
    let error = status.error.clone().filter(|_| !status.connected);
    Some(error.map_or(Cow::Borrowed(""), Cow::Owned))
}

/// Returns the details of a wall clock that is off, or else of one that was not compared yet.
/// Before the registry has answered, other nodes are unknown, and only `RegistrySilent` is
/// reported.
fn clock(shard: &Shard, now: Instant) -> (Option<Cow<'static, str>>, Option<Cow<'static, str>>) {
    let node = &shard.node;
    match node.clock() {
        ClockVerdict::Agrees => (None, None),
        ClockVerdict::Off => (Some(differences(node, now).into()), None),
        ClockVerdict::Unknown if !node.is_serving(now) => (None, None),
        ClockVerdict::Unknown => {
            let missing: Vec<String> = node.unmeasured_clocks().map(|other| named(node, other)).collect();
            (None, Some(list(&missing).into()))
        }
    }
}

/// Lists the nodes whose clocks differ by more than the bound, with the differences.
fn differences(node: &Node, now: Instant) -> String {
    let mut beyond: Vec<_> = node.clock_differences(now).filter(|other| other.is_beyond).collect();
    beyond.sort_by_key(|other| std::cmp::Reverse(other.ahead_ms.unsigned_abs()));
    let told = |other: &Difference| {
        let way = if other.ahead_ms > 0 { "behind" } else { "ahead of" };
        let (seconds, millis) =
            (other.ahead_ms.unsigned_abs() / 1_000, other.ahead_ms.unsigned_abs() % 1_000);
        format!("{seconds}.{millis:03} s {way} {}", named(node, other.node))
    };
    list(&beyond.iter().map(told).collect::<Vec<_>>())
}

/// Formats a node for people.
fn named(node: &Node, other: NodeId) -> String {
    match node.peer_name(other) {
        Some(name) => format!("node {name:?} ({other})"),
        None => format!("node {other}"),
    }
}

/// Lists the first items, and the number of further ones.
fn list(items: &[String]) -> String {
    let shown = items.get(..NODES_NAMED).unwrap_or(items).join(", ");
    match items.len().saturating_sub(NODES_NAMED) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

/// Returns a detail first if most of the other nodes are unreachable, second if only some are.
///
/// The registry names a dead node for `cluster.node_ttl` longer, or for twice that time if etcd
/// changes its leader meanwhile. Until then no link to a node counts as missing.
fn links(shard: &mut Shard, now: Instant) -> (Option<Cow<'static, str>>, Option<Cow<'static, str>>) {
    let bound = shard.node.config().registrar.node_ttl * 2;
    let all = shard.node.unreachable(now, Duration::ZERO);
    shard.link_errors.retain(|node, _| all.iter().any(|other| other.node == *node));
    let mut dead: Vec<_> = all.into_iter().filter(|other| other.lasts > bound).collect();
    if dead.is_empty() {
        return (None, None);
    }
    dead.sort_by_key(|other| std::cmp::Reverse(other.lasts));
    let mut text = String::new();
    for other in dead.iter().take(NODES_NAMED) {
        let separator = if text.is_empty() { "" } else { ", " };
        let Unreachable { node, name, address, lasts, dials } = other;
        let seconds = lasts.as_secs();
        let _ = write!(text, "{separator}node {name:?} ({node}), which ");
        let _ = match (address.as_str(), *dials) {
            // This node has to dial the other, since the other has the higher number.
            ("", true) => write!(text, "takes no links (it has no cluster.link.address)"),
            ("", false) | (_, true) => write!(text, "takes links at {address:?}"),
            (_, false) => write!(text, "takes links at {address:?} and has to dial this node"),
        };
        let _ = write!(text, ", for {seconds} s");
        if let Some(error) = shard.link_errors.get(node) {
            let _ = write!(text, ": {error}");
        }
    }
    if let Some(more @ 1..) = dead.len().checked_sub(NODES_NAMED) {
        let _ = write!(text, ", and {more} more");
    }
    let most = dead.len() * 2 > shard.node.others();
    let text = Some(Cow::Owned(text));
    if most { (text, None) } else { (None, text) }
}

fn driver_late(shard: &Shard, now: Instant) -> Option<Cow<'static, str>> {
    let worst = shard.lateness(now);
    let seconds = worst.as_secs_f64();
    (worst > DRIVER_LATE).then(|| format!("it came {seconds:.1} s late within the last seconds").into())
}

fn out_of_files(shard: &Shard, now: Instant) -> Option<Cow<'static, str>> {
    let lately = shard.out_of_files.is_some_and(|last| now.since(last) < FILES_WINDOW);
    (lately || descriptors::are_scarce()).then_some(Cow::Borrowed(""))
}

/// The worst lateness of the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    /// Beginning of the time in which `worst` was measured.
    since: Instant,
    worst: Duration,
    /// The worst lateness of the previous window.
    before: Duration,
}

impl Lateness {
    /// Adds a measured lateness.
    pub(super) fn note(&mut self, now: Instant, late: Duration) {
        *self = self.at(now);
        self.worst = self.worst.max(late);
    }

    /// Returns the worst lateness of the last seconds.
    pub(super) fn worst(&self, now: Instant) -> Duration {
        let Self { worst, before, .. } = self.at(now);
        worst.max(before)
    }

    /// Returns the state at a time, with expired windows dropped.
    fn at(self, now: Instant) -> Self {
        match now.since(self.since) {
            passed if passed < LATENESS_WINDOW => self,
            passed if passed < LATENESS_WINDOW * 2 => {
                Self { since: now, worst: Duration::ZERO, before: self.worst }
            }
            _ => Self { since: now, ..Self::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryRefusal;

    #[test]
    fn a_refusal_is_told_from_silence_and_in_the_registrys_words() {
        let full = Failure::Refused(Error::NoSpace);
        let words = |failure| Some(RegistryRefusal { failure, words: "its own words".to_owned() });
        let status = |connected, refusal| Status { connected, refusal, ..Status::default() };
        for (failure, reason) in [
            (full, Reason::RegistryFull),
            (Failure::Refused(Error::PermissionDenied), Reason::RegistryDenied),
            (Failure::Refused(Error::Corrupt), Reason::RegistryCorrupt),
            (Failure::Refused(Error::TooLarge), Reason::RegistryRefuses),
            (Failure::Unavailable, Reason::RegistryRefuses),
            (Failure::Unknown, Reason::RegistryRefuses),
        ] {
            let said = refused(&status(true, words(failure)), Some(failure));
            assert_eq!(said, Some((reason, "its own words".to_owned())));
            assert!(REFUSALS.contains(&reason));
            let (_, other) =
                refused(&status(true, words(Failure::Refused(Error::EmptyKey))), Some(failure)).unwrap();
            assert_eq!(other, failure.to_string());
        }
        // The registry accepts writes; an earlier refusal is over, or was about one request.
        assert_eq!(refused(&status(true, words(full)), None), None);
        // The registry refuses connections and cannot be reached.
        let denied = words(Failure::Refused(Error::PermissionDenied));
        let said = refused(&status(false, denied), Some(Failure::Unavailable));
        assert_eq!(said.map(|(reason, _)| reason), Some(Reason::RegistryDenied));
        assert_eq!(refused(&status(false, None), Some(Failure::Unavailable)), None);
    }

    #[test]
    fn a_lateness_is_remembered_for_some_seconds() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let (long, short) = (Duration::from_secs(3), Duration::from_millis(3));
        for start in [1, 7, 100] {
            let mut lateness = Lateness::default();
            lateness.note(at(start), long);
            for later in 0..200_u64 {
                let now = at(start) + Duration::from_millis(100 * later);
                lateness.note(now, short);
                let remembered = lateness.worst(now) == long;
                if later < 50 {
                    assert!(remembered, "{start}: forgotten after {later}");
                }
                if later >= 101 {
                    assert!(!remembered, "{start}: remembered after {later}");
                }
            }
        }
        let mut lateness = Lateness::default();
        lateness.note(at(1), long);
        assert_eq!(lateness.worst(at(60)), Duration::ZERO);
    }
}
