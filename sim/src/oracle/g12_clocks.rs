//! G12: a node whose wall clock is off among the nodes that it reaches serves nobody. The node has
//! a stated time to find out. From then on no player is let in or stays connected, so that such a
//! clock judges no token and stamps no write to a room's state.
//!
//! L1 demands that a node whose clock is right serves again.

use std::collections::BTreeMap;

use super::{Guarantee, Verdict, broken};

/// Observed clock of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeClock {
    /// The node's number, and the life of its process.
    pub node: (usize, u32),
    /// True if the clock surely is off, and the node has all the information to know this: see
    /// [`is_off`].
    pub is_off: bool,
    /// Connections of the node that it is not closing.
    pub connections: usize,
}

/// Times since which clocks have been off.
#[derive(Debug, Default)]
pub struct ClocksOracle {
    since: BTreeMap<(usize, u32), u64>,
}

/// Returns true if a clock surely is off. `others` is the number of nodes that the clock's node
/// knows. `ahead_ms` are the leads, in milliseconds, of the nodes among them that the clock's node
/// reaches. Two clocks may differ by `most`.
#[must_use]
pub fn is_off(ahead_ms: &[i64], others: usize, most: i64) -> bool {
    let beyond = ahead_ms.iter().filter(|ahead| ahead.saturating_abs() > most).count();
    beyond > others.saturating_sub(beyond)
}

impl ClocksOracle {
    /// Starts all times anew, since a clock was set somewhere.
    pub fn forget(&mut self) {
        self.since.clear();
    }

    /// Checks every node that is up.
    ///
    /// # Errors
    /// If a node serves players although its clock has been off for longer than `within`.
    pub fn check(&mut self, at: u64, nodes: &[NodeClock], within: u64) -> Verdict {
        self.since.retain(|node, _| nodes.iter().any(|now| now.node == *node && now.is_off));
        for now in nodes.iter().filter(|now| now.is_off) {
            let since = *self.since.entry(now.node).or_insert(at);
            if now.connections > 0 && at - since > within {
                return broken(
                    Guarantee::Clocks,
                    format_args!(
                        "node {} has {} connections, although its clock is off since {} ms",
                        now.node.0,
                        now.connections,
                        (at - since) / 1_000
                    ),
                );
            }
        }
        Ok(())
    }

    /// Checks a node that lets a player in. `is_off` says that the node's clock is off at this
    /// moment.
    ///
    /// # Errors
    /// If the clock has been off for longer than `within`.
    pub fn lets_in(&self, at: u64, node: (usize, u32), is_off: bool, within: u64) -> Verdict {
        match self.since.get(&node).filter(|since| is_off && at - **since > within) {
            None => Ok(()),
            Some(since) => broken(
                Guarantee::Clocks,
                format_args!(
                    "node {} lets a player in, although its clock is off since {} ms",
                    node.0,
                    (at - since) / 1_000
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: (usize, u32) = (1, 0);

    fn standing(is_off: bool, connections: usize) -> NodeClock {
        NodeClock { node: NODE, is_off, connections }
    }

    #[test]
    fn the_majority_and_a_tie_put_a_clock_off() {
        for (ahead, others, off) in [
            (&[][..], 0, false),
            (&[5_000], 1, true),
            (&[2_000], 1, false),
            (&[-5_000, 0], 2, false),
            (&[-5_000, 9_000], 2, true),
            (&[5_000, 5_000], 4, false),
            (&[5_000, 5_000], 3, true),
        ] {
            assert_eq!(is_off(ahead, others, 2_000), off, "{ahead:?} of {others}");
        }
    }

    #[test]
    fn whoever_serves_for_longer_than_it_may_is_caught() {
        let mut clocks = ClocksOracle::default();
        assert!(clocks.check(100, &[standing(true, 1)], 50).is_ok());
        assert!(clocks.check(150, &[standing(true, 1)], 50).is_ok());
        assert!(clocks.lets_in(150, NODE, true, 50).is_ok());
        assert!(clocks.lets_in(151, NODE, true, 50).is_err());
        assert!(clocks.lets_in(151, NODE, false, 50).is_ok());
        assert!(clocks.check(151, &[standing(true, 0)], 50).is_ok());
        assert!(clocks.check(151, &[standing(true, 1)], 50).is_err());
    }

    #[test]
    fn time_in_which_it_could_not_know_does_not_count() {
        let mut clocks = ClocksOracle::default();
        assert!(clocks.check(100, &[standing(true, 1)], 50).is_ok());
        assert!(clocks.check(120, &[standing(false, 1)], 50).is_ok());
        assert!(clocks.check(151, &[standing(true, 1)], 50).is_ok());
        clocks.forget();
        assert!(clocks.check(202, &[standing(true, 1)], 50).is_ok());
        assert!(clocks.check(260, &[], 50).is_ok());
        assert!(clocks.lets_in(300, NODE, true, 50).is_ok());
    }
}
