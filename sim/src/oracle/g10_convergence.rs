//! G10: once links heal, replicas are equal: their trees' roots, and what can be read
//! from them.

use skirmish_core::crdt::Replica;

use super::{Guarantee, Verdict, broken};

/// What a replica says about one player or one counter, in words.
type Facts = Vec<String>;

/// Compares two replicas; `names` are the counters that are in use.
///
/// # Errors
/// If they differ; the verdict says in what.
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
    use skirmish_core::time::{Duration, Instant, Now, Wall};

    #[test]
    fn a_difference_is_caught_and_named() {
        let limits = ReplicaLimits {
            entries_per_owner: 8,
            entries: 64,
            clock_bound: Duration::from_secs(1),
            tombstone_horizon: Duration::from_secs(60),
            planted: skirmish_core::plant::Planted::default(),
        };
        let now = Now { instant: Instant::from_micros(1), wall: Wall(1_000) };
        let (mut one, two) = (Replica::new(1, limits.clone(), [0; 32]), Replica::new(2, limits, [0; 32]));
        assert!(converged(("node", &one), ("client", &two), &[]).is_ok());
        one.set_property(now, "ann", "colour", Some("red".into())).unwrap();
        let verdict = converged(("node", &one), ("client", &two), &[]).unwrap_err();
        assert!(verdict.what.contains("ann.colour"), "{}", verdict.what);
    }
}
