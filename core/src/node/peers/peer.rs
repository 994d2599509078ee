//! Another node: the link to it, the rooms that are followed there, and the next dial.

use alloc::collections::BTreeSet;
use alloc::string::String;

use crate::base::agenda::Booking;
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant};

/// Time for which a node is dialed without a back-off, from the loss of a link over which a room was
/// followed, or from the moment when a room comes to follow a node without a link.
pub(super) const HASTE: Duration = Duration::from_secs(5);

/// Shortest limit of a dial in haste. On a slow path the limit is longer, by the last round trip.
const HASTY_DIAL: Duration = Duration::from_millis(150);

/// Limit of a dial in haste, in round trips: TCP, TLS, and as much again for delays.
const HASTY_ROUND_TRIPS: u32 = 4;

/// Another node, as long as the registry names it or rooms are followed there.
#[derive(Debug)]
pub(super) struct Peer {
    /// The link to the node, once both have said `LinkHello`.
    link: Option<Key>,
    /// Rooms that the node is the primary of and this node follows.
    rooms: BTreeSet<Key>,
    /// The node's name in the registry; empty as long as its record was not read.
    name: String,
    /// True unless the registry does not name the node any more.
    is_named: bool,
    /// Address to dial; `None` if the other side dials, or takes no links.
    address: Option<String>,
    /// The next dial, or, while a dial is under way, the moment to give that up.
    dial_at: Option<Instant>,
    booking: Booking,
    /// Dials in a row that failed.
    failures: u32,
    /// Start of the time without a link that works, unless one does.
    unlinked: Instant,
    /// End of the time without a back-off.
    hasty_until: Instant,
    /// True if there was such a time since the last link: the next is after another link.
    was_hasty: bool,
    /// Start of the last dial.
    dialed: Option<Instant>,
    /// Round trip of the last link, if it was measured.
    rtt: Duration,
}

/// Next step towards a node whose dial has become due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DialStep {
    /// Dial this address, for so long at most, and again after a time if nothing comes of it.
    Dial { address: String, limit: Duration, again: Duration },
    /// The dial was put off until then.
    Later(Instant),
    /// No dial is needed.
    Nothing,
}

impl Peer {
    /// A node of which only the number is known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            link: None,
            rooms: BTreeSet::new(),
            name: String::new(),
            is_named: true,
            address: None,
            dial_at: None,
            booking: Booking::default(),
            failures: 0,
            unlinked: now,
            hasty_until: now,
            was_hasty: false,
            dialed: None,
            rtt: Duration::ZERO,
        }
    }

    // Getters.

    /// The open link to the node.
    pub(super) const fn link(&self) -> Option<Key> {
        self.link
    }

    /// The node's name in the registry; may be empty.
    pub(super) const fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Returns false if the registry does not name the node any more.
    pub(super) const fn is_named(&self) -> bool {
        self.is_named
    }

    /// Start of the time without a link that works; means nothing while one does.
    pub(super) const fn unlinked(&self) -> Instant {
        self.unlinked
    }

    /// The rooms that are followed at the node.
    pub(super) const fn rooms(&self) -> &BTreeSet<Key> {
        &self.rooms
    }

    // Rooms.

    /// Notes that a room is followed at the node.
    pub(super) fn follow(&mut self, room: Key) {
        self.rooms.insert(room);
    }

    /// Notes that a room is not followed at the node any more.
    pub(super) fn unfollow(&mut self, room: Key) {
        self.rooms.remove(&room);
    }

    // Dials.

    /// Reads the node's record in the registry: its name, and the address to dial if this side
    /// is to dial. Returns true if the first dial is due now.
    pub(super) fn handle_record(&mut self, name: &str, address: Option<String>) -> bool {
        self.name.clear();
        self.name.push_str(name);
        self.is_named = true;
        self.address = address;
        self.address.is_some() && self.link.is_none() && self.dial_at.is_none()
    }

    /// Notes that the registry does not name the node any more: the node is not dialed.
    pub(super) fn lose_name(&mut self, now: Instant) {
        self.is_named = false;
        self.address = None;
        self.dial_at = None;
        self.hasty_until = now;
    }

    /// Sets the next dial. Returns the booking in the agenda.
    pub(super) const fn dial_at(&mut self, at: Instant) -> &mut Booking {
        self.dial_at = Some(at);
        &mut self.booking
    }

    /// The booking in the agenda.
    pub(super) const fn booking(&mut self) -> &mut Booking {
        &mut self.booking
    }

    /// Dials without a back-off from now on, since a room is shared with the node. Returns false if
    /// this was in vain since the last link.
    pub(super) fn make_haste(&mut self, now: Instant) -> bool {
        if core::mem::replace(&mut self.was_hasty, true) {
            return false;
        }
        self.hasty_until = now + HASTE;
        self.failures = 0;
        true
    }

    /// Returns true if the round trip to the node is known, and with it the time that a dial takes.
    pub(super) const fn is_measured(&self) -> bool {
        !self.rtt.is_zero()
    }

    /// Decides on a dial that may have become due. Without haste a dial takes `usual` at most.
    pub(super) fn handle_timeout(&mut self, now: Instant, usual: Duration) -> DialStep {
        self.booking.clear();
        match self.dial_at.take() {
            Some(at) if at > now => DialStep::Later(at),
            Some(_) if self.link.is_none() => {
                let Some(address) = self.address.clone() else { return DialStep::Nothing };
                self.dialed = Some(now);
                let (limit, again) = match self.is_hasty(now) {
                    true => (self.hasty_limit(), self.hasty_interval()),
                    false => (usual, usual * 2),
                };
                DialStep::Dial { address, limit, again }
            }
            Some(_) | None => DialStep::Nothing,
        }
    }

    /// Notes that a dial failed, or that a link is gone. Returns the time of the next dial if this
    /// side is to dial again. Without haste it is the back-off after a number of failures in a row.
    pub(super) fn handle_failure(
        &mut self,
        now: Instant,
        back_off: impl FnOnce(u32) -> Duration,
    ) -> Option<Instant> {
        if self.link.is_some() || self.address.is_none() {
            return None;
        }
        if self.is_hasty(now) {
            let next = self.dialed.map_or(now, |dialed| dialed + self.hasty_interval());
            return Some(next.max(now));
        }
        self.failures = self.failures.saturating_add(1);
        Some(now + back_off(self.failures))
    }

    fn is_hasty(&self, now: Instant) -> bool {
        now < self.hasty_until
    }

    fn hasty_limit(&self) -> Duration {
        HASTY_DIAL.max(self.rtt * HASTY_ROUND_TRIPS)
    }

    /// Time from one dial in haste to the next: two are under way at most.
    fn hasty_interval(&self) -> Duration {
        self.hasty_limit() * 2 / 3
    }

    // Links.

    /// Notes the open link to the node, and forgets the dial. Returns the link that it replaces.
    pub(super) const fn linked(&mut self, link: Key) -> Option<Key> {
        self.failures = 0;
        self.dial_at = None;
        self.was_hasty = false;
        self.link.replace(link)
    }

    /// Notes that a link is gone, whose round trip was measured at last as `rtt`. Returns true if it
    /// was the open link to the node.
    pub(super) fn lose(&mut self, link: Key, rtt: Option<Duration>) -> bool {
        let is_lost = self.link == Some(link);
        if is_lost {
            self.link = None;
            self.rtt = rtt.unwrap_or(self.rtt);
        }
        is_lost
    }

    /// Notes the moment from which on no link works.
    pub(super) const fn set_unlinked(&mut self, now: Instant) {
        self.unlinked = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Key = Key { slot: 1, generation: 0 };
    const NEWER: Key = Key { slot: 2, generation: 0 };

    const USUAL: Duration = Duration::from_secs(3);

    const fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    /// A usual dial of an address.
    fn dial(address: &str) -> DialStep {
        DialStep::Dial { address: address.into(), limit: USUAL, again: USUAL * 2 }
    }

    /// Number of failures in a row, with this one.
    fn failures(peer: &mut Peer) -> Option<u32> {
        let mut failures = 0;
        let next = peer.handle_failure(at(0), |count| {
            failures = count;
            USUAL
        });
        next.map(|next| {
            assert_eq!(next, at(0) + USUAL);
            failures
        })
    }

    /// A node that this one dials.
    fn dialed() -> Peer {
        let mut peer = Peer::new(at(0));
        assert!(peer.handle_record("two", Some("two:1".into())));
        peer
    }

    #[test]
    fn a_record_leads_to_a_dial_unless_one_is_set_or_a_link_is_open() {
        let mut peer = dialed();
        assert_eq!(peer.name(), "two");
        peer.dial_at(at(5));
        assert!(!peer.handle_record("zwei", Some("two:2".into())), "the dial is set");
        assert_eq!(peer.name(), "zwei");
        assert_eq!(peer.handle_timeout(at(5), USUAL), dial("two:2"), "to the newest address");
        peer.linked(LINK);
        assert!(!peer.handle_record("zwei", Some("two:2".into())), "the link is open");
        peer.lose(LINK, None);
        assert!(!peer.handle_record("zwei", None), "the other side dials");
    }

    #[test]
    fn a_dial_is_made_when_it_is_due_and_once() {
        let mut peer = dialed();
        peer.dial_at(at(5));
        assert_eq!(peer.handle_timeout(at(4), USUAL), DialStep::Later(at(5)));
        peer.dial_at(at(5));
        assert_eq!(peer.handle_timeout(at(5), USUAL), dial("two:1"));
        assert_eq!(peer.handle_timeout(at(6), USUAL), DialStep::Nothing, "no other is set");
    }

    #[test]
    fn no_node_is_dialed_to_which_a_link_is_open_or_that_dials_itself() {
        let mut peer = dialed();
        peer.linked(LINK);
        peer.dial_at(at(5));
        assert_eq!(peer.handle_timeout(at(5), USUAL), DialStep::Nothing);
        let mut peer = Peer::new(at(0));
        peer.dial_at(at(5));
        assert_eq!(peer.handle_timeout(at(5), USUAL), DialStep::Nothing);
    }

    #[test]
    fn an_open_link_forgets_the_dial() {
        let mut peer = dialed();
        peer.dial_at(at(5));
        peer.linked(LINK);
        peer.lose(LINK, None);
        assert_eq!(peer.handle_timeout(at(5), USUAL), DialStep::Nothing);
    }

    #[test]
    fn failures_count_in_a_row_and_only_where_this_side_dials() {
        let mut peer = dialed();
        assert_eq!((failures(&mut peer), failures(&mut peer)), (Some(1), Some(2)));
        peer.linked(LINK);
        assert_eq!(failures(&mut peer), None, "a link is open");
        peer.lose(LINK, None);
        assert_eq!(failures(&mut peer), Some(1), "a link has worked meanwhile");
        peer.failures = u32::MAX;
        assert_eq!(failures(&mut peer), Some(u32::MAX));
        peer.handle_record("two", None);
        assert_eq!(failures(&mut peer), None, "the other side dials");
    }

    #[test]
    fn only_the_newest_link_is_the_open_one() {
        let mut peer = dialed();
        assert_eq!(peer.linked(LINK), None);
        assert_eq!(peer.linked(NEWER), Some(LINK));
        assert!(!peer.lose(LINK, None));
        assert_eq!(peer.link(), Some(NEWER));
        assert!(peer.lose(NEWER, None));
        assert_eq!(peer.link(), None);
    }

    #[test]
    fn rooms_are_followed_each_once() {
        let mut peer = dialed();
        for room in [NEWER, LINK, NEWER] {
            peer.follow(room);
        }
        assert!(peer.rooms().iter().eq(&[LINK, NEWER]));
        peer.unfollow(NEWER);
        assert!(peer.rooms().iter().eq(&[LINK]));
    }

    #[test]
    fn in_haste_a_dial_follows_the_one_before_it_and_no_back_off_counts() {
        const MS: Duration = Duration::from_millis(1);
        let mut peer = dialed();
        assert_eq!(failures(&mut peer), Some(1));
        let start = at(0) + MS * 1_000;
        assert!(peer.make_haste(start));
        let mut next = |now| peer.handle_failure(now, |_| panic!("a back-off"));
        assert_eq!(next(start), Some(start), "at once");
        peer.dial_at(start);
        let hasty = DialStep::Dial { address: "two:1".into(), limit: MS * 150, again: MS * 100 };
        assert_eq!(peer.handle_timeout(start, USUAL), hasty);
        let mut next = |now| peer.handle_failure(now, |_| panic!("a back-off"));
        assert_eq!(next(start + MS), Some(start + MS * 100), "it was refused");
        assert_eq!(next(start + MS * 150), Some(start + MS * 150), "it took too long");
        let end = start + HASTE;
        assert_eq!(peer.handle_failure(end, |failures| MS * failures), Some(end + MS), "counted anew");
        assert!(!peer.make_haste(end), "it was in vain");
        peer.dial_at(end);
        assert_eq!(peer.handle_timeout(end, USUAL), dial("two:1"));
    }

    #[test]
    fn in_haste_the_limit_grows_with_the_round_trip() {
        const MS: Duration = Duration::from_millis(1);
        let mut peer = dialed();
        peer.linked(LINK);
        peer.lose(LINK, Some(MS * 90));
        assert!(peer.make_haste(at(0)));
        peer.dial_at(at(0));
        let hasty = DialStep::Dial { address: "two:1".into(), limit: MS * 360, again: MS * 240 };
        assert_eq!(peer.handle_timeout(at(0), USUAL), hasty);
    }
}
