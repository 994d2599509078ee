//! G10: once links heal, replicas are equal: the roots of their trees, and everything that can be
//! read from them. Before that, no node's replica goes back to an older write. Convergence rests on
//! this rule.

use std::collections::BTreeMap;

use skirmish_core::crdt::{Replica, Stamp};
use skirmish_proto::v1;

use super::{Guarantee, RoomNumber, Verdict, broken};

/// The newest writes that were in each node's replicas.
#[derive(Debug, Default)]
pub(super) struct Newest(BTreeMap<(usize, RoomNumber), ReplicaWrites>);

/// The newest writes of one replica.
#[derive(Debug, Default)]
struct ReplicaWrites {
    /// Life of the node's process, and epoch of the room.
    of: (u32, u64),
    /// Number of the replica's last change that was observed.
    change: u64,
    /// Stamps of the entries that are not removed. Tombstones are dropped some day, and then the
    /// replica does not know their age any more.
    stamps: BTreeMap<(i32, String, String), Stamp>,
}

impl Newest {
    /// Observes the changes in a node's replica of a room. Replicas of clients are not observed,
    /// since a client may take its own writes back.
    pub(super) fn observe(
        &mut self,
        node: (usize, u32),
        room: RoomNumber,
        epoch: u64,
        replica: &Replica,
    ) -> Verdict {
        let change = replica.change();
        let known = self.0.entry((node.0, room)).or_default();
        if known.of != (node.1, epoch) || change < known.change {
            *known = ReplicaWrites { of: (node.1, epoch), ..ReplicaWrites::default() };
        }
        if change == known.change {
            return Ok(());
        }
        let (entries, change) = replica.changes_since(known.change, usize::MAX);
        known.change = change;
        for v1::StateEntry { domain, owner, name, stamp, removed, .. } in entries {
            let Some(stamp) = stamp.map(Stamp::from) else { continue };
            let label = match v1::Domain::try_from(domain) {
                Ok(v1::Domain::Presence) => format!("the presence of {owner}"),
                _ => format!("{owner}.{name}"),
            };
            let key = (domain, owner, name);
            let before = if removed { known.stamps.remove(&key) } else { known.stamps.insert(key, stamp) };
            if let Some(before) = before.filter(|before| *before > stamp) {
                return broken(
                    Guarantee::Convergence,
                    format_args!(
                        "node {}'s replica of room {room} had {label} as written at {before:?}, and goes back \
                         to what was written at {stamp:?}",
                        node.0
                    ),
                );
            }
        }
        Ok(())
    }
}

/// Statements of a replica about one player or one counter each, in words.
type Facts = Vec<String>;

/// Compares two replicas. `names` are the counters in use.
///
/// # Errors
/// If the replicas differ; the verdict names the difference.
pub fn converged(ours: (&str, &Replica), theirs: (&str, &Replica), names: &[String]) -> Verdict {
    let (left, right) = (facts(ours.1, names), facts(theirs.1, names));
    if left != right {
        let only =
            |a: &Facts, b: &Facts| a.iter().find(|fact| !b.contains(fact)).cloned().unwrap_or_default();
        return broken(
            Guarantee::Convergence,
            format_args!(
                "{} has \"{}\", {} has \"{}\"",
                ours.0,
                only(&left, &right),
                theirs.0,
                only(&right, &left)
            ),
        );
    }
    if ours.1.root() != theirs.1.root() {
        return broken(
            Guarantee::Convergence,
            format_args!("{} and {} read the same, but their roots differ", ours.0, theirs.0),
        );
    }
    Ok(())
}

fn facts(replica: &Replica, names: &[String]) -> Facts {
    let present = replica.present().map(|player| format!("{player} is present"));
    let properties = replica.properties().map(|(owner, name, value)| format!("{owner}.{name} = {value:?}"));
    let counters = names.iter().map(|name| format!("{name} = {}", replica.counter(name)));
    let mut facts: Facts = present.chain(properties).chain(counters).collect();
    facts.sort();
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use skirmish_core::crdt::ReplicaLimits;
    use skirmish_core::plant::{Plant, Planted};
    use skirmish_core::time::{Duration, Instant, Now, Wall};

    fn replica(name: u64, planted: Planted) -> Replica {
        let limits = ReplicaLimits {
            entries_per_owner: 8,
            entries: 64,
            clock_bound: Duration::from_secs(1),
            tombstone_horizon: Duration::from_secs(60),
            planted,
        };
        Replica::new(name, limits, [0; 32])
    }

    fn now(ms: u64) -> Now {
        Now { instant: Instant::from_micros(ms * 1_000), wall: Wall(1_000 + ms) }
    }

    /// Observes the replica of a node that receives the older of two writes last.
    fn hears_late(planted: Planted) -> Verdict {
        let (mut node, mut client) = (replica(1, planted), replica(2, Planted::default()));
        let mut newest = Newest::default();
        let mut batches = Vec::new();
        for (ms, value) in [(1, "red"), (2, "blue")] {
            client.set_property(now(ms), "ann", "colour", Some(value.into())).unwrap();
            batches.insert(0, client.changes_since(0, usize::MAX).0);
        }
        for (ms, batch) in (3..).zip(batches) {
            node.merge(now(ms), None, &batch).unwrap();
            newest.observe((0, 1), 0, 1, &node)?;
        }
        Ok(())
    }

    #[test]
    fn a_replica_that_goes_back_is_caught() {
        assert!(hears_late(Planted::default()).is_ok());
        let verdict = hears_late(Planted::with(Plant::ArrivalWins)).unwrap_err();
        assert!(verdict.description.contains("ann.colour"), "{}", verdict.description);
    }

    #[test]
    fn a_replica_of_another_life_is_another() {
        let mut newest = Newest::default();
        let mut new = replica(1, Planted::default());
        for (ms, life, epoch) in [(9, 1, 1), (5, 2, 1), (3, 2, 2)] {
            new = replica(ms, Planted::default());
            new.set_property(now(ms), "ann", "colour", Some("red".into())).unwrap();
            assert!(newest.observe((0, life), 0, epoch, &new).is_ok());
        }
        new.set_property(now(10), "ann", "colour", None).unwrap();
        assert!(newest.observe((0, 2), 0, 2, &new).is_ok());
    }

    #[test]
    fn a_difference_is_caught_and_named() {
        let (mut one, two) = (replica(1, Planted::default()), replica(2, Planted::default()));
        assert!(converged(("node", &one), ("client", &two), &[]).is_ok());
        one.set_property(now(1), "ann", "colour", Some("red".into())).unwrap();
        let verdict = converged(("node", &one), ("client", &two), &[]).unwrap_err();
        assert!(verdict.description.contains("ann.colour"), "{}", verdict.description);
    }
}
