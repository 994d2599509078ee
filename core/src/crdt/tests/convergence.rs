//! Replicas end up equal after writes, clock skews, partitions, and messages that arrive late or
//! twice.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;
use skirmish_proto::v1;

use super::{ReconciliationCost, reconcile, replica, skewed};
use crate::crdt::Replica;

/// One action of a run.
#[derive(Clone, Debug)]
enum Step {
    Set {
        replica: usize,
        owner: u8,
        name: u8,
        value: u8,
    },
    Remove {
        replica: usize,
        owner: u8,
        name: u8,
    },
    RemoveOwner {
        replica: usize,
        owner: u8,
    },
    Present {
        replica: usize,
        player: u8,
        present: bool,
    },
    Add {
        replica: usize,
        owner: u8,
        name: u8,
        delta: i8,
    },
    /// Sends some changes of one replica. The message stays in flight.
    Send {
        replica: usize,
        after: u64,
    },
    /// Delivers a message that was sent. The same message may be delivered again.
    Arrive {
        replica: usize,
        message: usize,
    },
    Reconcile {
        replica: usize,
        with: usize,
    },
    Collect {
        replica: usize,
    },
    Pass {
        ms: u32,
    },
}

const REPLICAS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    let r = || replica.clone();
    prop_oneof![
        4 => (r(), 0..3_u8, 0..4_u8, 0..8_u8)
            .prop_map(|(replica, owner, name, value)| Step::Set { replica, owner, name, value }),
        2 => (r(), 0..3_u8, 0..4_u8).prop_map(|(replica, owner, name)| Step::Remove { replica, owner, name }),
        1 => (r(), 0..3_u8).prop_map(|(replica, owner)| Step::RemoveOwner { replica, owner }),
        2 => (r(), 0..3_u8, any::<bool>())
            .prop_map(|(replica, player, present)| Step::Present { replica, player, present }),
        2 => (r(), 0..3_u8, 0..2_u8, any::<i8>())
            .prop_map(|(replica, owner, name, delta)| Step::Add { replica, owner, name, delta }),
        4 => (r(), 0..20_u64).prop_map(|(replica, after)| Step::Send { replica, after }),
        6 => (r(), any::<prop::sample::Index>())
            .prop_map(|(replica, message)| Step::Arrive { replica, message: message.index(1 << 16) }),
        1 => (r(), r()).prop_map(|(replica, with)| Step::Reconcile { replica, with }),
        1 => r().prop_map(|replica| Step::Collect { replica }),
        // Sometimes longer than the horizon of 600 s.
        1 => prop_oneof![0..5_u32, 0..700_000_u32].prop_map(|ms| Step::Pass { ms }),
    ]
}

struct World {
    replicas: Vec<Replica>,
    skews: Vec<i64>,
    messages: Vec<Vec<v1::StateEntry>>,
    ms: u64,
}

impl World {
    fn new(skews: &[i64]) -> Self {
        let replicas = (0..skews.len()).map(|id| replica(id as u64 + 1)).collect();
        Self { replicas, skews: skews.to_vec(), messages: Vec::new(), ms: 1_000_000 }
    }

    fn reconcile(&mut self, a: usize, b: usize) -> ReconciliationCost {
        let (low, high) = (a.min(b), a.max(b));
        let now = (skewed(self.ms, self.skews[low]), skewed(self.ms, self.skews[high]));
        let (left, right) = self.replicas.split_at_mut(high);
        reconcile(now, &mut left[low], &mut right[0])
    }

    fn run(&mut self, step: &Step) {
        let player = |n: &u8| format!("player{n}");
        let now = |world: &Self, replica: usize| skewed(world.ms, world.skews[replica]);
        match step {
            Step::Set { replica, owner, name, value } => {
                let value = Bytes::from(alloc::vec![*value]);
                let now = now(self, *replica);
                self.replicas[*replica]
                    .set_property(now, &player(owner), &player(name), Some(value))
                    .unwrap();
            }
            Step::Remove { replica, owner, name } => {
                let now = now(self, *replica);
                self.replicas[*replica].set_property(now, &player(owner), &player(name), None).unwrap();
            }
            Step::RemoveOwner { replica, owner } => {
                let now = now(self, *replica);
                self.replicas[*replica].remove_owner(now, &player(owner));
            }
            Step::Present { replica, player: who, present } => {
                let now = now(self, *replica);
                self.replicas[*replica].set_present(now, &player(who), *present).unwrap();
            }
            Step::Add { replica, owner, name, delta } => {
                let now = now(self, *replica);
                let delta = i64::from(*delta);
                self.replicas[*replica].add(now, &player(owner), &player(name), delta).unwrap();
            }
            Step::Send { replica, after } => {
                self.messages.push(self.replicas[*replica].changes_since(*after, 500).0);
            }
            Step::Arrive { replica, message } => {
                let Some(message) = self.messages.get(message % self.messages.len().max(1)).cloned() else {
                    return;
                };
                let now = now(self, *replica);
                self.replicas[*replica].merge(now, None, &message).unwrap();
            }
            Step::Reconcile { replica, with } => {
                if replica != with {
                    self.reconcile(*replica, *with);
                }
            }
            Step::Collect { replica } => {
                let now = now(self, *replica);
                self.replicas[*replica].collect(now);
            }
            Step::Pass { ms } => self.ms += u64::from(*ms),
        }
    }

    /// Reconciles all pairs until one round finds no difference. Returns the number of the rounds
    /// before.
    fn settle(&mut self) -> usize {
        for round in 0.. {
            let mut quiet = true;
            for a in 0..self.replicas.len() {
                for b in 0..a {
                    quiet &= self.reconcile(a, b).messages == 1;
                }
            }
            if quiet {
                return round;
            }
            assert!(round < 4, "reconciliations go on finding something");
        }
        unreachable!()
    }
}

type Visible = (Vec<alloc::string::String>, Vec<(alloc::string::String, Bytes)>, [i64; 2]);

fn visible(replica: &Replica) -> Visible {
    (
        replica.present().map(Into::into).collect(),
        replica.properties().map(|(owner, name, value)| (format!("{owner}/{name}"), value.clone())).collect(),
        ["player0", "player1"].map(|name| replica.counter(name)),
    )
}

proptest! {
    #[test]
    fn replicas_converge(
        skews in proptest::collection::vec(-2_000..2_000_i64, REPLICAS),
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(&skews);
        for step in &steps {
            world.run(step);
        }
        world.settle();
        let first = &world.replicas[0];
        for other in &world.replicas[1..] {
            prop_assert_eq!(visible(other), visible(first));
            prop_assert_eq!(other.root(), first.root());
        }
    }

    /// Replicas that exchange messages within the horizon never restore a removed entry, whenever
    /// each of them collects tombstones.
    #[test]
    fn what_was_removed_stays_removed(
        skews in proptest::collection::vec(-2_000..2_000_i64, REPLICAS),
        rounds in proptest::collection::vec(
            proptest::collection::vec(step().prop_filter("no writes", |step| {
                matches!(step, Step::Send { .. } | Step::Reconcile { .. } | Step::Collect { .. })
            }), 0..6),
            1..8,
        ),
    ) {
        let mut world = World::new(&skews);
        world.run(&Step::Set { replica: 0, owner: 0, name: 0, value: 1 });
        world.settle();
        // A delay longer than every skew, so that the removal is the newest write by all clocks.
        world.run(&Step::Pass { ms: 5_000 });
        world.run(&Step::Remove { replica: 1, owner: 0, name: 0 });
        for steps in &rounds {
            for step in steps {
                world.run(step);
            }
            world.settle();
            for replica in &world.replicas {
                prop_assert_eq!(replica.property("player0", "player0"), None);
            }
            world.run(&Step::Pass { ms: 250_000 });
        }
    }

    /// Collecting tombstones at different times leaves no difference for a reconciliation to find.
    #[test]
    fn collection_is_invisible(
        steps in proptest::collection::vec(step(), 0..60),
        collectors in proptest::collection::vec(any::<bool>(), REPLICAS),
    ) {
        let mut world = World::new(&[0; REPLICAS]);
        for step in &steps {
            world.run(step);
        }
        world.settle();
        let before: Vec<_> = world.replicas.iter().map(|r| (r.root(), visible(r))).collect();
        world.run(&Step::Pass { ms: 650_000 });
        for (replica, _) in collectors.iter().enumerate().filter(|(_, collects)| **collects) {
            world.run(&Step::Collect { replica });
        }
        let after: Vec<_> = world.replicas.iter().map(|r| (r.root(), visible(r))).collect();
        prop_assert_eq!(before, after);
        prop_assert_eq!(world.settle(), 0);
    }

    /// Replicas that merge the same entries in any order have the same tree. A replica that was
    /// changed step by step has the same tree as a replica that merged only the final entries.
    #[test]
    fn the_tree_depends_only_on_the_state(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new(&[0; REPLICAS]);
        for step in steps.iter().filter(|step| !matches!(step, Step::Collect { .. })) {
            world.run(step);
        }
        for original in &world.replicas {
            let mut copy = replica(9);
            let (mut entries, _) = original.changes_since(0, usize::MAX);
            entries.reverse();
            copy.merge(skewed(world.ms, 0), None, &entries).unwrap();
            prop_assert_eq!(copy.root(), original.root());
            prop_assert_eq!(visible(&copy), visible(original));
        }
    }
}
