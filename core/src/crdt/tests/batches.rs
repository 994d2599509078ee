//! A batch with one entry is judged once, a longer batch twice: the outcome is the same.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;
use skirmish_proto::v1;

use super::{at, limits, property};
use crate::base::time::Duration;
use crate::crdt::{Replica, ReplicaLimits, StateError};

/// An entry that arrives, with its source and time.
#[derive(Clone, Debug)]
struct Arrival {
    /// Time that passes before the arrival.
    pass_ms: u64,
    /// Source of the entry: a server (`None`), or the client of player 0 or 1, the owner or not.
    writer: Option<u8>,
    entry: v1::StateEntry,
    /// True if the entry is before the entry without effect in a batch of both.
    first: bool,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let stamp = (0..400_u64, 0..2_u64);
    let what = (0..5_u8, 0..2_u8, 0..4_u8, any::<Option<u8>>());
    (prop_oneof![0..3_u64, 0..150_u64], proptest::option::of(0..2_u8), what, stamp, any::<bool>()).prop_map(
        |(pass_ms, writer, (kind, owner, name, value), (wall_ms, replica), first)| {
            let owner = format!("player{owner}");
            let name = format!("name{name}");
            let mut entry = property(&owner, &name, wall_ms, None);
            match kind {
                0 => {
                    entry.domain = v1::Domain::Presence.into();
                    entry.name.clear();
                    entry.removed = value.is_none();
                }
                1 => {
                    entry = v1::StateEntry { removed: false, stamp: None, ..entry };
                    entry.domain = v1::Domain::Counter.into();
                    (entry.replica, entry.plus) = (replica, value.unwrap_or_default().into());
                }
                _ => {
                    entry.removed = value.is_none();
                    entry.value = value.map(|value| Bytes::from(alloc::vec![value])).unwrap_or_default();
                }
            }
            if let Some(stamp) = &mut entry.stamp {
                stamp.replica = replica;
            }
            Arrival { pass_ms, writer, entry, first }
        },
    )
}

/// Returns everything that callers can see of a replica.
fn seen(r: &Replica) -> impl PartialEq + core::fmt::Debug {
    let properties: Vec<_> =
        r.properties().map(|(owner, name, value)| format!("{owner}.{name}={value:?}")).collect();
    let present: Vec<_> = r.present().map(Into::<alloc::string::String>::into).collect();
    let log = (r.changes_since(0, usize::MAX), r.change(), r.forgotten(), r.poll_timeout().map(|due| due.at));
    (properties, present, log, r.root(), r.len(), r.version())
}

#[test]
fn what_does_nothing_needs_no_room() {
    let limits = ReplicaLimits { entries: 1, ..limits() };
    let mut r = Replica::new(1, limits, [1; 32]);
    r.merge(at(700_000), None, &[property("ann", "a", 700_000, Some("x"))]).unwrap();
    let forgotten = [property("bob", "a", 0, None)];
    assert_eq!(r.merge(at(700_000), Some("bob"), &forgotten), Ok(false));
    // The owner of the entry makes no difference.
    assert_eq!(r.merge(at(700_000), Some("ann"), &forgotten), Ok(false));
    // An entry from a server is counted before it is judged.
    assert_eq!(r.merge(at(700_000), None, &forgotten), Err(StateError::TooMany));
    assert_eq!(
        r.merge(at(700_000), Some("bob"), &[property("bob", "a", 700_000, None)]),
        Err(StateError::TooMany)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_entry_alone_does_what_it_does_in_a_batch(
        arrivals in proptest::collection::vec(arrival(), 0..60),
    ) {
        // Low caps and a short horizon: room has to be made, and dropped entries arrive again.
        let limits = ReplicaLimits {
            entries_per_owner: 3,
            entries: 6,
            clock_bound: Duration::from_millis(200),
            tombstone_horizon: Duration::from_millis(50),
            ..limits()
        };
        let nothing = property("nobody", "known", 0, Some("x"));
        let mut alone = Replica::new(1, limits, [1; 32]);
        alone.merge(at(0), None, core::slice::from_ref(&nothing)).unwrap();
        let mut batch = alone.clone();
        let mut ms = 0;
        for Arrival { pass_ms, writer, entry, first } in arrivals {
            ms += pass_ms;
            let writer = writer.map(|writer| format!("player{writer}"));
            let two = if first { [entry.clone(), nothing.clone()] } else { [nothing.clone(), entry.clone()] };
            let outcome = alone.merge(at(ms), writer.as_deref(), &[entry]);
            prop_assert_eq!(batch.merge(at(ms), writer.as_deref(), &two), outcome);
            prop_assert_eq!(seen(&batch), seen(&alone));
            prop_assert!(alone.len() <= 6);
        }
    }
}
