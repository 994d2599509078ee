//! Comparison of the wall clocks of a cluster's nodes.
//!
//! Tokens, stamps of a room's state and the times that clients receive all use the wall clock of
//! the player's node. So nodes compare their wall clocks over their links, and a node whose clock
//! is off accepts no clients. Each node judges only its own clock.
//!
//! # Measurement
//!
//! The answer to a ping names the wall clock of the peer. The peer read this clock between the
//! sending of the ping and the arrival of the answer, so the reading counts for the middle of that
//! time, plus or minus half of the round trip. The reading is kept as a difference to this node's
//! *monotonic* clock: when this node's own wall clock is set, the very next input shows the change,
//! without another measurement. The error of a measurement grows with age, as two monotonic clocks
//! may drift apart. A new measurement replaces the old one if its error is smaller, or if the two
//! contradict each other, since then the peer's clock was set.
//!
//! # Verdict
//!
//! A node is off if the others that differ from it by more than the bound are at least as many as
//! those that do not, the node itself included. A tie is off, since a tie does not show the right
//! side. Nodes that cannot be measured are left out when the `patience` of [`Clocks::new`] has
//! passed since the node knows the others: a registry may name nodes that have been dead for a long
//! time.
//!
//! Nodes that the registry does not name any more still count for that `patience`, but only against
//! a node that is off already: when a registry has lost all leases, a node is alone until the
//! others are registered again.

use alloc::collections::BTreeMap;

use crate::base::id::NodeId;
use crate::base::plant::{Plant, Planted};
use crate::base::time::{Duration, Instant, Now, Wall};

/// Highest drift of two monotonic clocks, per mille of the time that has passed: far more than that
/// of any working clock.
const DRIFT_PER_MILLE: i64 = 30;

/// Error of two readings that count whole milliseconds, in microseconds.
const GRAIN_US: i64 = 1_000;

/// Longest time between two judgements, if there are inputs.
const JUDGE_AGAIN: Duration = Duration::from_secs(1);

/// Cap on the measurements of removed nodes; more of them are not kept, and do not count.
const MOST_GONE: usize = 64;

/// Verdict of the comparison on the node's own wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockVerdict {
    /// Not every other node was measured yet.
    #[default]
    Unknown,
    /// Most of the measured nodes agree with this node.
    Agrees,
    /// The clock is off.
    Off,
}

/// Difference of another node's wall clock from this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The other node.
    pub node: NodeId,
    /// Milliseconds that the other clock is ahead; negative if it is behind.
    pub ahead_ms: i64,
    /// Highest error of that number, in milliseconds.
    pub error_ms: i64,
    /// True if the difference surely is more than the bound.
    pub is_beyond: bool,
}

/// A measurement of another node's wall clock.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The other's wall clock less this node's monotonic clock, in microseconds.
    base: i64,
    /// Highest error of `base` at the time of the measurement, in microseconds.
    error: i64,
    taken: Instant,
}

impl Sample {
    fn error_at(&self, now: Instant) -> i64 {
        let age = signed(now.since(self.taken).as_micros());
        self.error.saturating_add(age / 1_000 * DRIFT_PER_MILLE)
    }

    /// Returns true if both samples may be right.
    fn fits(&self, other: &Self, now: Instant) -> bool {
        let apart = self.base.saturating_sub(other.base).saturating_abs();
        apart <= self.error_at(now).saturating_add(other.error_at(now))
    }
}

/// The machine that compares a node's wall clock with those of others. It holds one measurement for
/// each known node.
#[derive(Debug)]
pub struct Clocks {
    /// Smallest difference of a clock that is off, in microseconds.
    bound: i64,
    patience: Duration,
    others: BTreeMap<NodeId, Option<Sample>>,
    /// Removed nodes, with the time of the removal.
    gone: BTreeMap<NodeId, (Sample, Instant)>,
    verdict: ClockVerdict,
    /// Time since which the node is registered and knows the others.
    acquainted: Option<Instant>,
    /// Last reading of the wall clock.
    wall: Wall,
    /// Difference of the wall clock and the monotonic one at the last reading, in microseconds.
    base: i64,
    /// `base` and the time of the last judgement.
    judged: Option<(i64, Instant)>,
    /// `base` at the last time when the clock was right.
    right: Option<i64>,
    planted: Planted,
}

impl Clocks {
    /// Creates the clocks of a node that knows no others yet. Two clocks may differ by `bound`. The
    /// node waits for the measurements of others until `patience` has passed since it knows them.
    #[must_use]
    pub fn new(bound: Duration, patience: Duration) -> Self {
        Self {
            bound: signed(bound.as_micros()),
            patience,
            others: BTreeMap::new(),
            gone: BTreeMap::new(),
            verdict: ClockVerdict::default(),
            acquainted: None,
            wall: Wall::default(),
            base: 0,
            judged: None,
            right: None,
            planted: Planted::default(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) const fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    // Getters.

    /// Returns the verdict on the clock.
    #[must_use]
    pub const fn verdict(&self) -> ClockVerdict {
        self.verdict
    }

    /// Returns the last reading of the node's own wall clock, right or not.
    #[must_use]
    pub const fn wall(&self) -> Wall {
        self.wall
    }

    /// Returns the number of other nodes that are known.
    #[must_use]
    pub fn others(&self) -> usize {
        self.others.len()
    }

    /// Returns the other nodes that were not measured.
    pub fn unmeasured(&self) -> impl Iterator<Item = NodeId> {
        self.others.iter().filter(|(_, sample)| sample.is_none()).map(|(node, _)| *node)
    }

    /// Returns the differences to the measured nodes.
    pub fn differences(&self, now: Instant) -> impl Iterator<Item = Difference> {
        self.measured().map(move |(node, sample)| Difference {
            node,
            ahead_ms: sample.base.saturating_sub(self.base) / 1_000,
            error_ms: sample.error_at(now) / 1_000,
            is_beyond: self.is_beyond(sample, now),
        })
    }

    /// Returns the time with the wall clock for stamps of state: the node's own clock, unless that
    /// is off. Then it is the time that the clock would show if nobody had set it or, if the clock
    /// never was right, the median of the others.
    #[must_use]
    pub fn reckon(&self, now: Now) -> Now {
        let Some(right) = self.right.filter(|_| self.verdict == ClockVerdict::Off) else { return now };
        let micros = right.saturating_add(signed(u128::from(now.instant.as_micros())));
        Now { wall: Wall(u64::try_from(micros / 1_000).unwrap_or(0)), ..now }
    }

    // Inputs.

    /// Adds another node whose clock can be measured.
    pub fn add(&mut self, node: NodeId) {
        let kept = self.gone.remove(&node).map(|(sample, _)| sample);
        self.others.entry(node).or_insert(kept);
    }

    /// Removes another node.
    pub fn remove(&mut self, now: Instant, node: NodeId) {
        let Some(sample) = self.others.remove(&node).flatten() else { return };
        self.expire(now);
        if self.gone.len() < MOST_GONE {
            self.gone.insert(node, (sample, now));
        }
        self.judged = None;
    }

    /// Takes the answer of a node that was pinged at `sent`, with that node's wall clock.
    pub fn measure(&mut self, now: Instant, node: NodeId, sent: Instant, wall: Wall) {
        let Some(kept) = self.others.get_mut(&node).filter(|_| wall.0 > 0) else { return };
        let half = signed(now.since(sent).as_micros()) / 2;
        let middle = signed(u128::from(sent.as_micros())).saturating_add(half);
        let new = Sample {
            base: signed(u128::from(wall.0) * 1_000).saturating_sub(middle),
            error: half.saturating_add(GRAIN_US),
            taken: now,
        };
        if kept.is_none_or(|kept| new.error <= kept.error_at(now) || !kept.fits(&new, now)) {
            *kept = Some(new);
            self.judged = None;
        }
    }

    /// Reads the node's clocks. `acquainted` is true if the node is registered and knows the other
    /// registered nodes. Returns the verdict if it has changed.
    pub fn observe(&mut self, now: Now, acquainted: bool) -> Option<ClockVerdict> {
        self.wall = now.wall;
        self.base = signed(u128::from(now.wall.0) * 1_000)
            .saturating_sub(signed(u128::from(now.instant.as_micros())));
        self.reconsider(now.instant, acquainted)
    }

    /// Judges as [`Self::observe`] does, by the last reading of the wall clock.
    pub fn reconsider(&mut self, now: Instant, acquainted: bool) -> Option<ClockVerdict> {
        if self.verdict == ClockVerdict::Unknown && !self.is_known(now, acquainted) {
            return None;
        }
        let is_judged = self.judged.is_some_and(|(base, at)| {
            let moved = base.saturating_sub(self.base).saturating_abs();
            moved <= self.bound / 16 && now.since(at) < JUDGE_AGAIN
        });
        let before = self.verdict;
        if !is_judged {
            self.expire(now);
            self.judged = Some((self.base, now));
            self.verdict = self.judge(now);
        }
        match self.verdict {
            ClockVerdict::Off => self.right = self.right.or_else(|| self.middle()),
            _ => self.right = Some(self.base),
        }
        (self.verdict != before).then_some(self.verdict)
    }

    // Polls.

    /// Returns the time at which [`Self::observe`] decides without the missing measurements.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let since = self.acquainted.filter(|_| self.verdict == ClockVerdict::Unknown)?;
        Some(since + self.patience)
    }

    /// Returns true if enough is known for a first verdict.
    fn is_known(&mut self, now: Instant, acquainted: bool) -> bool {
        if acquainted && self.acquainted.is_none() {
            self.acquainted = Some(now);
        }
        let Some(since) = self.acquainted else { return false };
        let all = acquainted && self.others.values().all(Option::is_some);
        all || now.since(since) >= self.patience || self.planted.is(Plant::ClockUncompared)
    }

    /// Returns the measured nodes and the removed ones.
    fn measured(&self) -> impl Iterator<Item = (NodeId, &Sample)> {
        let others = self.others.iter().filter_map(|(node, sample)| Some((*node, sample.as_ref()?)));
        others.chain(self.gone.iter().map(|(node, (sample, _))| (*node, sample)))
    }

    fn expire(&mut self, now: Instant) {
        let patience = self.patience;
        self.gone.retain(|_, (_, since)| now.since(*since) < patience);
    }

    fn judge(&self, now: Instant) -> ClockVerdict {
        let living = self.others.values().flatten();
        let was_off = self.verdict == ClockVerdict::Off;
        let is_off = self.outvoted(living, now)
            || was_off && self.outvoted(self.measured().map(|(_, sample)| sample), now);
        if is_off && !self.planted.is(Plant::ClockUncompared) {
            ClockVerdict::Off
        } else {
            ClockVerdict::Agrees
        }
    }

    /// Returns true if the nodes that differ from this one are at least as many as those that do
    /// not, this node included.
    fn outvoted<'a>(&self, samples: impl Iterator<Item = &'a Sample>, now: Instant) -> bool {
        let (mut beyond, mut within) = (0_usize, 1_usize);
        for sample in samples {
            if self.is_beyond(sample, now) {
                beyond += 1;
            } else {
                within += 1;
            }
        }
        beyond >= within
    }

    /// Returns true if another node's clock surely differs by more than the bound. For a node that
    /// is off the bound is a quarter smaller, so that the verdict does not flap.
    fn is_beyond(&self, sample: &Sample, now: Instant) -> bool {
        let most = if self.verdict == ClockVerdict::Off { self.bound - self.bound / 4 } else { self.bound };
        let apart = sample.base.saturating_sub(self.base).saturating_abs();
        apart.saturating_sub(sample.error_at(now)) > most
    }

    /// Returns the median of the others' clocks.
    fn middle(&self) -> Option<i64> {
        let mut bases: alloc::vec::Vec<i64> = self.measured().map(|(_, sample)| sample.base).collect();
        bases.sort_unstable();
        bases.get(bases.len() / 2).copied()
    }
}

fn signed(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const BOUND: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(10);
    const HOUR_MS: i64 = 3_600_000;
    const BEGINNING: i64 = 1_700_000_000_000;

    /// Returns the time after `ms` milliseconds, by a wall clock that is off by `off_ms`.
    fn at(ms: u64, off_ms: i64) -> Now {
        let wall = BEGINNING + i64::try_from(ms).unwrap() + off_ms;
        Now { instant: Instant::from_micros(ms * 1_000), wall: Wall(u64::try_from(wall).unwrap()) }
    }

    fn named(others: u64) -> Clocks {
        let mut clocks = Clocks::new(BOUND, PATIENCE);
        (1..=others).for_each(|node| clocks.add(NodeId(node)));
        clocks
    }

    /// Measures a node by a ping whose answer arrives after `rtt` milliseconds.
    fn measure(clocks: &mut Clocks, ms: u64, node: u64, off_ms: i64, rtt: u64) {
        let answered = at(ms - rtt / 2, off_ms).wall;
        let (now, sent) = (at(ms, 0).instant, at(ms - rtt, 0).instant);
        clocks.measure(now, NodeId(node), sent, answered);
    }

    #[test]
    fn a_lone_node_agrees_as_soon_as_it_knows_that_it_is_alone() {
        let mut clocks = named(0);
        assert_eq!((clocks.observe(at(1, 0), false), clocks.verdict()), (None, ClockVerdict::Unknown));
        assert_eq!(clocks.observe(at(2, HOUR_MS), true), Some(ClockVerdict::Agrees));
        assert_eq!((clocks.observe(at(3, 0), true), clocks.poll_timeout()), (None, None));
    }

    #[test]
    fn all_others_are_measured_before_anything_is_said() {
        let mut clocks = named(2);
        assert_eq!(clocks.observe(at(100, 0), true), None);
        measure(&mut clocks, 110, 1, 0, 10);
        assert_eq!(clocks.observe(at(110, 0), true), None);
        assert_eq!(clocks.unmeasured().collect::<Vec<_>>(), [NodeId(2)]);
        measure(&mut clocks, 120, 2, 0, 10);
        assert_eq!(clocks.observe(at(120, 0), true), Some(ClockVerdict::Agrees));
    }

    #[test]
    fn the_dead_are_left_out_when_they_were_waited_for() {
        let mut clocks = named(3);
        clocks.observe(at(100, HOUR_MS), true);
        measure(&mut clocks, 110, 1, 0, 10);
        assert_eq!(clocks.poll_timeout(), Some(at(100, 0).instant + PATIENCE));
        assert_eq!(clocks.observe(at(10_099, HOUR_MS), true), None);
        assert_eq!(
            clocks.observe(at(10_100, HOUR_MS), true),
            Some(ClockVerdict::Off),
            "one differs, none agrees"
        );
        clocks.add(NodeId(9));
        assert_eq!(
            clocks.observe(at(10_101, 0), true),
            Some(ClockVerdict::Agrees),
            "known once, known for ever"
        );
    }

    #[test]
    fn the_majority_is_right_and_a_tie_is_off() {
        // Number of the four others that are an hour ahead.
        for (ahead, verdict) in [(0, ClockVerdict::Agrees), (2, ClockVerdict::Agrees), (3, ClockVerdict::Off)]
        {
            let mut clocks = named(4);
            (1..=4).for_each(|n| measure(&mut clocks, 100, n, if n <= ahead { HOUR_MS } else { 0 }, 2));
            assert_eq!(clocks.observe(at(100, 0), true), Some(verdict), "{ahead}");
        }
        for (others, verdict) in [(1, ClockVerdict::Off), (2, ClockVerdict::Agrees), (3, ClockVerdict::Off)] {
            let mut clocks = named(others);
            (1..=others).for_each(|n| measure(&mut clocks, 100, n, if n % 2 == 1 { -HOUR_MS } else { 0 }, 2));
            assert_eq!(clocks.observe(at(100, 0), true), Some(verdict), "half or more of {others} others");
        }
    }

    #[test]
    fn a_step_is_noticed_at_once_and_so_is_its_end() {
        let mut clocks = named(2);
        (1..=2).for_each(|node| measure(&mut clocks, 100, node, 0, 2));
        assert_eq!(clocks.observe(at(100, 0), true), Some(ClockVerdict::Agrees));
        for step in [HOUR_MS, -HOUR_MS, 2_100, -2_100] {
            let now = at(200, step);
            assert_eq!(clocks.observe(now, true), Some(ClockVerdict::Off), "{step}");
            let differences: Vec<_> = clocks.differences(now.instant).collect();
            let told = |d: &Difference| d.is_beyond && (d.ahead_ms + step).abs() <= 1 && d.error_ms <= 10;
            assert!(differences.len() == 2 && differences.iter().all(told), "{differences:?}");
            assert_eq!(clocks.reckon(now), at(200, 0), "what is stamped goes on");
            assert_eq!(clocks.wall(), now.wall);
            assert_eq!(clocks.observe(at(201, 0), true), Some(ClockVerdict::Agrees));
            assert_eq!(clocks.reckon(at(201, 0)), at(201, 0));
        }
        assert_eq!(clocks.observe(at(300, 1_900), true), None, "within the bound");
    }

    #[test]
    fn a_node_that_never_was_right_stamps_as_the_others_do() {
        let mut clocks = named(3);
        for (node, off) in [(1, 30), (2, -20), (3, -HOUR_MS)] {
            measure(&mut clocks, 100, node, off, 2);
        }
        assert_eq!(clocks.observe(at(100, HOUR_MS), true), Some(ClockVerdict::Off));
        assert_eq!(clocks.reckon(at(150, HOUR_MS)).wall, at(150, -20).wall);
    }

    #[test]
    fn a_slow_answer_is_not_taken_for_a_difference() {
        let mut clocks = named(1);
        // The peer answers at once, but the answer needs a minute to arrive.
        let (sent, wall) = (at(1_000, 0).instant, at(1_000, 0).wall);
        clocks.measure(at(61_000, 0).instant, NodeId(1), sent, wall);
        assert_eq!(clocks.observe(at(61_000, 0), true), Some(ClockVerdict::Agrees));
        measure(&mut clocks, 61_100, 1, 3_000, 4);
        assert_eq!(clocks.observe(at(61_100, 0), true), Some(ClockVerdict::Off), "the better answer counts");
        clocks.measure(at(62_000, 0).instant, NodeId(1), at(61_200, 0).instant, at(61_200, 3_000).wall);
        let error = clocks.differences(at(62_000, 0).instant).next().unwrap().error_ms;
        assert!(error < 100, "a worse answer that says nothing else changes nothing: {error}");
    }

    #[test]
    fn a_peer_whose_clock_was_set_is_measured_anew() {
        let mut clocks = named(1);
        measure(&mut clocks, 100, 1, 0, 2);
        clocks.observe(at(100, 0), true);
        measure(&mut clocks, 1_100, 1, HOUR_MS, 900);
        assert_eq!(clocks.observe(at(1_100, 0), true), Some(ClockVerdict::Off));
        measure(&mut clocks, 2_100, 1, 0, 900);
        assert_eq!(clocks.observe(at(2_100, 0), true), Some(ClockVerdict::Agrees));
    }

    #[test]
    fn a_clock_at_the_bound_is_not_judged_now_so_now_so() {
        let mut clocks = named(1);
        let mut turns = 0;
        for second in 1..200_u64 {
            let (ms, off) = (second * 1_000, 2_000 + [60, 10, -30, 40][usize::try_from(second % 4).unwrap()]);
            measure(&mut clocks, ms, 1, off, 2);
            for ms in [ms, ms + 900] {
                turns += usize::from(clocks.observe(at(ms, 0), true).is_some());
            }
        }
        assert!(turns <= 2, "{turns}");
    }

    #[test]
    fn a_node_that_is_gone_has_a_say_for_a_while() {
        let mut clocks = named(2);
        measure(&mut clocks, 100, 1, HOUR_MS, 2);
        measure(&mut clocks, 100, 2, HOUR_MS, 2);
        assert_eq!(clocks.observe(at(100, 0), true), Some(ClockVerdict::Off));
        clocks.remove(at(200, 0).instant, NodeId(1));
        clocks.remove(at(300, 0).instant, NodeId(2));
        assert_eq!((clocks.others(), clocks.differences(at(300, 0).instant).count()), (0, 2));
        assert_eq!(clocks.observe(at(10_299, 0), true), None);
        // One node is registered again and needs no measurement; the time of the other one is over.
        clocks.add(NodeId(2));
        assert_eq!(clocks.observe(at(20_000, 0), true), None);
        clocks.remove(at(20_000, 0).instant, NodeId(2));
        assert_eq!(clocks.observe(at(29_999, 0), true), None);
        assert_eq!(clocks.observe(at(31_000, 0), true), Some(ClockVerdict::Agrees));
        measure(&mut clocks, 31_001, 1, HOUR_MS, 2);
        assert_eq!((clocks.others(), clocks.observe(at(31_001, 0), true)), (0, None));
    }

    #[test]
    fn nodes_that_are_gone_do_not_speak_for_a_node_that_agrees() {
        let mut clocks = named(2);
        (1..=2).for_each(|node| measure(&mut clocks, 100, node, 0, 2));
        assert_eq!(clocks.observe(at(100, 0), true), Some(ClockVerdict::Agrees));
        // Both nodes have started anew, with other clocks.
        for node in 1..=2 {
            clocks.remove(at(200, 0).instant, NodeId(node));
            clocks.add(NodeId(node + 10));
            measure(&mut clocks, 300, node + 10, HOUR_MS, 2);
        }
        assert_eq!(clocks.observe(at(300, 0), true), Some(ClockVerdict::Off));
    }

    #[test]
    fn nodes_that_are_gone_do_not_turn_a_node_off() {
        let mut clocks = named(2);
        (1..=2).for_each(|node| measure(&mut clocks, 100, node, 0, 2));
        assert_eq!(clocks.observe(at(100, 0), true), Some(ClockVerdict::Agrees));
        (1..=2).for_each(|node| clocks.remove(at(200, 0).instant, NodeId(node)));
        assert_eq!(clocks.observe(at(300, HOUR_MS), true), None, "nobody is left who could differ");
    }

    #[test]
    fn of_nodes_that_are_gone_a_bounded_number_counts() {
        let most = u64::try_from(MOST_GONE).unwrap();
        let mut clocks = named(most + 10);
        for node in 1..=most + 10 {
            measure(&mut clocks, 100, node, 0, 2);
            clocks.remove(at(100, 0).instant, NodeId(node));
        }
        assert_eq!(clocks.differences(at(100, 0).instant).count(), MOST_GONE);
    }

    #[test]
    fn a_peer_that_does_not_say_is_not_measured() {
        let mut clocks = named(1);
        clocks.measure(at(100, 0).instant, NodeId(1), at(99, 0).instant, Wall(0));
        assert_eq!(clocks.unmeasured().count(), 1);
    }
}
