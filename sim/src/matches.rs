//! Searches for matches, common to both worlds: requests of applications, reports to the oracle of
//! G8, failures of matchers, and the state of matchmaking that is demanded after the last fault.

use skirmish_core::id::NodeId;
use skirmish_core::matchmaking::keys;
use skirmish_core::registry::{News, RegistryOp, Request, Span, Watch, WatchId, Watched};
use skirmish_core::rng::Rng;
use skirmish_proto::v1::{self, TicketState};

use crate::oracle::g8_match::{MatchCounts, Matches};
use crate::oracle::{Guarantee, Verdict, broken};
use crate::scenario::{MODES, Shape};

/// Identifier of the oracle's watch of the registry.
pub(crate) const NEWS: WatchId = WatchId(u64::MAX);

/// One in so many players never joins the room of its match.
const ABSENT: u64 = 8;

/// Returns the oracle's watch: of everything under `/match/`, and of the rooms of matches. One span
/// covers both, so that all changes of a revision are reported together.
pub(crate) fn watch() -> Watch {
    let rooms = Span::prefix(format!("/rooms/{}", keys::room_of("")));
    let span = Span { end: rooms.end, ..Span::prefix("/match/") };
    Watch { progress: false, ..Watch::of(span, 0) }
}

/// Passes events of the oracle's watch to the oracle, at a moment of the world. `author` returns
/// the node that requested a revision, if known.
pub(crate) fn observe_watched(
    matches: &mut Matches,
    at: u64,
    author: impl Fn(u64) -> Option<NodeId>,
    watched: &Watched,
) -> Verdict {
    match &watched.news {
        News::Changes(changes) => changes
            .chunk_by(|a, b| a.revision() == b.revision())
            .try_for_each(|changes| matches.changed(at, author(changes[0].revision()), changes)),
        News::Created | News::Progress => Ok(()),
        News::Compacted { .. } | News::Canceled => {
            broken(Guarantee::Match, format_args!("the oracle has missed a part of the registry's history"))
        }
    }
}

/// Returns the request of an application, by the numbers of
/// [`Action::Queue`](crate::scenario::Action).
pub(crate) fn wish(shape: &Shape, mode: i64, party: i64, rating: i64) -> v1::Queue {
    let mode = mode_at(mode) % usize::try_from(shape.queues).unwrap_or(1).clamp(1, MODES.len());
    let alone = party <= 0 || mode == 0;
    v1::Queue {
        mode: MODES[mode].to_owned(),
        // Parties of the same name have different keys.
        party: if alone { String::new() } else { "party".to_owned() },
        party_key: if alone { bytes::Bytes::new() } else { party.to_be_bytes().to_vec().into() },
        party_size: if alone { 0 } else { 2 },
        rating: u32::try_from(rating.clamp(0, 10_000)).unwrap_or(0),
        ..v1::Queue::default()
    }
}

/// Draws true if an application joins the room of its match.
pub(crate) fn joins_match(rng: &mut Rng) -> bool {
    rng.range(1..=ABSENT) > 1
}

/// Returns true if a client in search ends its search after this event about its ticket.
pub(crate) const fn is_end(state: TicketState) -> bool {
    !matches!(
        state,
        TicketState::Waiting | TicketState::Unavailable | TicketState::Lost | TicketState::Unspecified
    )
}

/// Returns the mark of an event about a client's ticket.
pub(crate) const fn mark(state: TicketState) -> Option<&'static str> {
    match state {
        TicketState::TimedOut => Some("search timed out"),
        TicketState::Cancelled => Some("ticket cancelled"),
        TicketState::PartyLost => Some("party lost"),
        TicketState::Unavailable => Some("ticket unavailable"),
        TicketState::Lost => Some("ticket lost"),
        _ => None,
    }
}

/// Returns the counts of the oracle as marks.
pub(crate) const fn marks(counts: &MatchCounts) -> [(&'static str, u64); 8] {
    [
        ("matcher failed over", counts.failed_over),
        ("search moved", counts.moved),
        ("party matched", counts.parties),
        ("player absent", counts.absent),
        ("absent player back", counts.back),
        ("player came", counts.arrived),
        ("player missed", counts.missed),
        ("match not begun", counts.over),
    ]
}

/// Failure of a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatcherFailure {
    /// The node crashes.
    Crash,
    /// The node dies in silence.
    Vanish,
    /// The node pauses.
    Pause,
    /// The node is cut off from the registry.
    Cut,
    /// Messages of the registry do not reach the node.
    Deafen,
    /// The next requests are executed now, later or never, and their outcome is not reported.
    Blur,
    /// The node's watches lag.
    Lag,
    /// The node's next write of a match, or of a ticket's end, is executed only after the node is
    /// gone.
    LastMatch,
}

impl MatcherFailure {
    /// Number of requests that [`Self::Blur`] affects.
    pub(crate) const BLURRED: u32 = 3;

    /// Returns the failure of a number in [`Action::FailMatcher`](crate::scenario::Action).
    pub(crate) const fn numbered(how: i64) -> Self {
        match how % 8 {
            ..=0 => Self::Crash,
            1 => Self::Vanish,
            2 => Self::Pause,
            3 => Self::Cut,
            4 => Self::Deafen,
            5 => Self::Blur,
            6 => Self::Lag,
            _ => Self::LastMatch,
        }
    }
}

/// Returns the index of a mode in [`MODES`], by its number in an action.
pub(crate) fn mode_at(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(0) % MODES.len()
}

/// Returns true if the request makes a write that only a matcher makes: a match, or the end of a
/// ticket. The request may be that of a group.
pub(crate) fn is_of_matcher(request: &Request) -> bool {
    matches!(request, Request::Txn(txn) if txn.success.iter().any(is_op_of_matcher))
}

fn is_op_of_matcher(op: &RegistryOp) -> bool {
    match op {
        RegistryOp::Put(put) => put.ignore_lease || keys::matches().contains(&put.key),
        RegistryOp::Delete(delete) => keys::matches().contains(&delete.span.key),
        RegistryOp::Range(_) => false,
        RegistryOp::Txn(txn) => txn.success.iter().any(is_op_of_matcher),
    }
}

/// Draws the delay of a matcher's last write, in microseconds: the write is executed about when the
/// lease of the matcher's node ends.
pub(crate) fn lateness(rng: &mut Rng, shape: &Shape) -> u64 {
    let lease = shape.node_lease_s * 1_000_000;
    rng.range(lease * 3 / 5..=lease * 2)
}

/// Checks that every search has ended, every match is over, the registry has no remains of either,
/// and one of `nodes` is the matcher of each mode. `searching` is a client that still searches.
/// `passed_over` is the oracle's count before all players began to search for the same match.
pub(crate) fn at_rest(
    matches: &Matches,
    shape: &Shape,
    searching: Option<usize>,
    nodes: &[NodeId],
    passed_over: Option<u64>,
) -> Verdict {
    if shape.queues == 0 {
        return Ok(());
    }
    if let Some(client) = searching {
        return broken(Guarantee::Liveness, format_args!("client {client} still searches for a match"));
    }
    for mode in MODES.iter().take(usize::try_from(shape.queues).unwrap_or(0)) {
        if !matches.elected(mode).is_some_and(|elected| nodes.contains(&elected)) {
            return broken(Guarantee::Liveness, format_args!("nobody forms the matches of {mode}"));
        }
    }
    if let Some(description) = matches.left_behind() {
        return broken(Guarantee::Match, format_args!("{description}"));
    }
    // Tickets with a short time-out may end before the matcher sees them.
    let counts = shape.queue_time_out_ms >= 5_000;
    match passed_over.filter(|before| counts && matches.counts().passed_over > *before) {
        Some(_) => {
            broken(Guarantee::Liveness, format_args!("two who look for the same have not found each other"))
        }
        None => Ok(()),
    }
}
