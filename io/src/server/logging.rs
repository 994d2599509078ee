//! Log lines and the audit, made from events of the node (rows T1, D3).
//!
//! Every line that belongs to a connection carries `trace_id`, `conn` and, once known, `player`.
//! They are fields of the line and not of a span: a span that is open for a whole connection would
//! cost more memory than the rest of the connection's state. Lines of the audit have the target
//! `audit`. Lines that a stranger can cause are limited by address: [`audit`](super::audit)
//! decides, and the first line after suppressed ones has their number in the field `suppressed`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use skirmish_core::id::{Address, ConnId, LinkId, NodeId};
use skirmish_core::node::{Event, LinkClosure, Passage, Refusal, Trace};
use skirmish_core::time::{Duration, Instant};
use skirmish_proto::v1;
use tracing::{Level, debug, enabled, error, info, warn};

use super::application::ApplicationMessage;
use super::audit::AuditPermit;
use super::http::RefusedRequest;
use super::links::LinkEnd;
use super::readiness::ReadinessChange;
use super::shard::Shard;
use super::trace;

/// Shortest time between two lines about displaced connections.
const DISPLACED_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of logged characters of a stranger's text.
const SHOWN: usize = 128;

/// Displays a trace id in the notation of W3C.
pub(super) struct TraceId(pub(super) Trace);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Logs an event. Returns an application message to the caller.
pub(super) fn event(shard: &mut Shard, now: Instant, event: Event) -> Option<ApplicationMessage> {
    let trace_of = |conn| TraceId(shard.node.trace(conn).unwrap_or_default());
    match event {
        Event::Application { conn, player, type_url, payload, trace } => {
            return Some(ApplicationMessage { conn, player, type_url, payload, trace });
        }
        // Logged by `displaced`, with the time.
        Event::Displaced { .. } => {}
        Event::SessionOpened { conn, player, epoch } => {
            let trace_id = trace_of(conn);
            info!(%trace_id, %conn, %player, epoch, "session opened");
        }
        Event::SessionResumed { conn, player, epoch } => {
            let trace_id = trace_of(conn);
            info!(%trace_id, %conn, %player, epoch, "session resumed");
        }
        Event::SessionKept { player, epoch, .. } => info!(%player, epoch, "session registered anew"),
        Event::SessionEnded { player, reason } => match reason {
            v1::Reason::Kicked => info!(target: "audit", %player, "kicked"),
            // No connection is closed for this reason, so the protocol has no word for it.
            v1::Reason::Unspecified => info!(%player, reason = "EXPIRED", "session ended"),
            _ => info!(%player, reason = name(reason), "session ended"),
        },
        Event::ConnectionLost { conn, player, trace } => {
            let trace_id = TraceId(trace);
            info!(%trace_id, %conn, %player, "connection lost, session kept");
        }
        Event::Unhealthy { conn } => {
            let (trace_id, player) = (trace_of(conn), player(shard, conn));
            debug!(%trace_id, %conn, player, "connection misses heartbeats");
        }
        Event::Misbehaved { conn, what, wrong: _ } => {
            if let Some(AuditPermit { suppressed }) = admit_peer(shard, now, conn) {
                let trace_id = TraceId(shard.node.trace(conn).unwrap_or_default());
                let player = player(shard, conn);
                info!(target: "audit", %trace_id, %conn, player, what, suppressed, "peer broke the protocol or its limits");
            }
        }
        Event::Serving => info!("serving: the registry confirms that this node lives"),
        Event::NotServing if shard.stopping => info!("not serving any more"),
        Event::NotServing => {
            info!("not serving: the registry has not confirmed for too long that this node lives");
        }
        Event::Anew { why } => {
            shard.registry_replaced = Some(why);
            error!(
                %why,
                "the registry was restored, wiped or replaced: every session and room of this node is over, \
                 clients are told so, and the node begins anew by itself; if nobody did this on purpose, \
                 check etcd's data directory and registry.etcd.endpoints"
            );
        }
        // The readiness reasons tell more, and by how much the clock is off.
        Event::ClockJudged { verdict } => debug!(?verdict, "clock compared with those of other nodes"),
        Event::NodeUp { node } => {
            if let Some(name) = shard.node.peer_name(node) {
                shard.names.insert(node, name.to_owned());
            }
            info!(%node, name = shard.names.get(&node), "node up");
        }
        Event::NodeDown { node, is_linked: false } => {
            warn!(%node, name = shard.names.remove(&node), "node down");
        }
        // The name is kept for the log of the link.
        Event::NodeDown { node, is_linked: true } => {
            warn!(%node, name = shard.names.get(&node), "node not in the registry any more, its link works");
        }
        Event::Elected { mode, epoch } => info!(%mode, epoch, "elected: this node forms the matches"),
        Event::Deposed { mode } if shard.stopping => info!(%mode, "stopped forming the matches"),
        Event::Deposed { mode } if shard.node.peers() == 0 => {
            info!(%mode, "deposed: nobody forms the matches until a node is elected");
        }
        Event::Deposed { mode } => info!(%mode, "deposed: another node forms the matches"),
        Event::MatchFormed { id, mode, players, quality, explanation } => {
            info!(%id, %mode, players, quality, %explanation, "match formed");
        }
        Event::MatchFilled { id, mode, team, players, explanation } => {
            info!(%id, %mode, team, players, %explanation, "free places of a match filled");
        }
        Event::TicketEnded { player, mode, state } => debug!(%player, %mode, ?state, "ticket ended"),
        Event::PlayersMissed { id, mode, players, over } => {
            info!(%id, %mode, players, over, "players did not come to their match");
        }
        Event::MatchEnded { id, abandoned } => debug!(%id, abandoned, "match ended"),
        Event::LinkUp { node } => info!(%node, name = shard.names.get(&node), "link up"),
        Event::LinkDown { node } => warn!(%node, name = shard.names.get(&node), "link down"),
        Event::Passed { room, passage, trace } => {
            let trace_id = TraceId(trace);
            match passage {
                Passage::Taken => debug!(%trace_id, %room, "message taken by the room's primary"),
                Passage::Relayed => debug!(%trace_id, %room, "message passed on to the room's primary"),
                Passage::Followed => debug!(%trace_id, %room, "message received from the room's primary"),
            }
        }
        Event::TookOver { room, epoch, term } => info!(%room, epoch, term, "room taken over"),
        Event::SteppedDown { room, epoch, term } => {
            info!(%room, epoch, term, "another node has taken the room over");
        }
        Event::RoomOpened { room, epoch } => debug!(%room, epoch, "room opened"),
        Event::Bug { what, place } => {
            error!(%place, "broken invariant, please report it: {what}");
        }
        Event::RoomClosed { room, epoch } => debug!(%room, epoch, "room closed"),
    }
    None
}

/// Logs the beginning or end of a readiness reason.
pub(super) fn readiness(change: &ReadinessChange) {
    match change {
        ReadinessChange::Began(cause) if cause.reason.is_fault() => {
            warn!(reason = cause.reason.name(), "not ready: {cause}");
        }
        ReadinessChange::Began(cause) => info!(reason = cause.reason.name(), "not ready: {cause}"),
        ReadinessChange::Ended { reason, lasted, times } => {
            let lasted_ms = lasted.as_millis();
            info!(reason = reason.name(), %lasted_ms, times, "a reason not to be ready is over");
        }
    }
}

/// Returns a permit if a line that a peer has caused may be written. Otherwise counts the line.
fn admit(shard: &mut Shard, now: Instant, address: Option<IpAddr>) -> Option<AuditPermit> {
    // Peers that are already gone share one bucket.
    shard.audit.admit(now, address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

fn admit_peer(shard: &mut Shard, now: Instant, conn: ConnId) -> Option<AuditPermit> {
    let address = shard.address(conn);
    admit(shard, now, address)
}

fn admit_link(shard: &mut Shard, now: Instant, link: LinkId) -> Option<AuditPermit> {
    let address = shard.link_address(link);
    admit(shard, now, address)
}

/// Logs the number of suppressed lines of addresses that are quiet by now.
pub(super) fn suppressed(shard: &mut Shard, now: Instant) {
    while let Some((peer, suppressed)) = shard.audit.poll_quiet(now) {
        info!(target: "audit", %peer, suppressed, "lines of this address were suppressed");
    }
    if let Some(suppressed) = shard.audit.take_forgotten(now) {
        info!(target: "audit", suppressed, "lines of many addresses were suppressed");
    }
}

/// Logs that the node closes a connection.
pub(super) fn closing(shard: &mut Shard, now: Instant, conn: ConnId, reason: v1::Reason) {
    let taken_over = reason == v1::Reason::TakenOver;
    let admitted = if taken_over { admit_peer(shard, now, conn) } else { None };
    let trace_id = TraceId(shard.node.trace(conn).unwrap_or_default());
    let (player, reason_name) = (player(shard, conn), name(reason));
    if let Some(AuditPermit { suppressed }) = admitted {
        info!(target: "audit", %trace_id, %conn, player, suppressed, "taken over by a newer connection");
    } else if !taken_over {
        debug!(%trace_id, %conn, player, reason = reason_name, "closing");
    }
}

/// Logs that the node dropped a connection.
pub(super) fn aborted(shard: &Shard, conn: ConnId) {
    let player = player(shard, conn);
    debug!(%conn, player, "did not let itself be closed in time, dropped");
}

/// Logs the refusal of a connection that had no state yet.
pub(super) fn refused_at_accept(shard: &mut Shard, now: Instant, address: IpAddr, refusal: Refusal) {
    shard.counters.refused_connection(refusal);
    if let Some(AuditPermit { suppressed }) = admit(shard, now, Some(address)) {
        info!(target: "audit", peer = %address, suppressed, "connection refused: {refusal}");
    }
}

/// Logs the refusal of a connection that had the last descriptor.
pub(super) fn refused_for_files(shard: &mut Shard, now: Instant, address: IpAddr) {
    if let Some(AuditPermit { suppressed }) = admit(shard, now, Some(address)) {
        info!(target: "audit", peer = %address, suppressed, "connection refused: no more files can be opened");
    }
}

/// Logs connections that were displaced before their `Hello` by others: one line for many.
pub(super) fn displaced(shard: &mut Shard, now: Instant, conn: ConnId, address: Address) {
    let (last, others) = &mut shard.displaced;
    if last.is_some_and(|last| now.since(last) < DISPLACED_INTERVAL) {
        *others += 1;
        return;
    }
    let others = std::mem::take(others);
    *last = Some(now);
    let why = "made room for an address that had fewer: too many connections are waiting to authenticate";
    info!(target: "audit", %conn, peer = %address, others, "{why}");
}

/// Logs the refusal of an upgrade.
pub(super) fn refused_at_upgrade(
    shard: &mut Shard,
    now: Instant,
    address: IpAddr,
    conn: ConnId,
    refused: &RefusedRequest,
) {
    if let Some(AuditPermit { suppressed }) = admit(shard, now, Some(address)) {
        let trace_id = TraceId(trace::fresh(&mut shard.rng));
        let (status, why) = (refused.status(), refused.body());
        let origin = refused.origin().map(shown);
        info!(target: "audit", %trace_id, %conn, peer = %address, status, origin, suppressed, "upgrade refused: {why}");
    }
}

/// Logs a successful upgrade.
pub(super) fn upgraded(shard: &Shard, address: IpAddr, conn: ConnId, trace: Trace) {
    if enabled!(Level::DEBUG) {
        let trace_id = TraceId(trace);
        let player = player(shard, conn);
        debug!(%trace_id, %conn, player, peer = %address, "upgraded");
    }
}

/// Logs the failure of a connection, before or after the upgrade.
pub(super) fn failed(shard: &Shard, conn: ConnId, error: &dyn fmt::Display) {
    if enabled!(Level::DEBUG) {
        let trace_id = TraceId(shard.node.trace(conn).unwrap_or_default());
        let player = player(shard, conn);
        debug!(%trace_id, %conn, player, "connection failed: {error}");
    }
}

/// Logs that the node drops a link.
pub(super) fn link_dropped(shard: &mut Shard, now: Instant, link: LinkId, why: LinkClosure) {
    if let Some(AuditPermit { suppressed }) = admit_link(shard, now, link) {
        let peer = shard.link_peer(link);
        info!(target: "audit", ?link, peer, suppressed, "link dropped: {why}");
    }
}

/// Logs the end of a link's task.
pub(super) fn link_over(shard: &mut Shard, now: Instant, link: LinkId, end: &LinkEnd) {
    // The reason was logged when the node dropped the link.
    if matches!(end, LinkEnd::Dropped) {
        return;
    }
    let Some(AuditPermit { suppressed }) = admit_link(shard, now, link) else { return };
    let peer = shard.link_peer(link);
    match end {
        LinkEnd::Dropped | LinkEnd::Closed | LinkEnd::Failed(_) => {
            info!(?link, peer, suppressed, "link over: {end}")
        }
        LinkEnd::Rubbish(_) | LinkEnd::Stranger(_) => {
            info!(target: "audit", ?link, peer, suppressed, "link over: {end}");
        }
    }
}

/// Logs that there is no place for another link.
pub(super) fn link_refused(shard: &mut Shard, now: Instant, address: IpAddr) {
    if let Some(AuditPermit { suppressed }) = admit(shard, now, Some(address)) {
        info!(target: "audit", peer = %address, suppressed, "link refused: there are too many");
    }
}

/// Logs that another node could not be dialed.
pub(super) fn dial_failed(shard: &Shard, node: NodeId, address: &str, error: &str) {
    // A node with which rooms are shared is dialed many times in a second.
    if shard.link_errors.get(&node).is_some_and(|last| last == error) {
        debug!(%node, address, "node not reached: {error}");
    } else {
        warn!(%node, address, "node not reached: {error}");
    }
}

/// Logs an application message without a handler.
pub(super) fn unrouted(shard: &mut Shard, now: Instant, message: &ApplicationMessage) {
    let ApplicationMessage { conn, player, type_url, .. } = message;
    if let Some(AuditPermit { suppressed }) = admit_peer(shard, now, *conn) {
        let trace_id = TraceId(message.trace);
        info!(target: "audit", %trace_id, %conn, %player, type_url, suppressed, "application message without a handler");
    }
}

/// Returns the beginning of a stranger's text, escaped.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_default).collect()
}

fn player(shard: &Shard, conn: ConnId) -> Option<&str> {
    shard.player(conn).map(skirmish_core::id::Name::as_str)
}

/// Returns a reason's name without the common prefix.
pub(super) fn name(reason: v1::Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}
