//! Invariants of the plan and of the order of moves, under random inputs and by example.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;

const ROOT: NodeId = NodeId(0);

/// Primary with its nodes: tells the moves, and confirms them in any order.
struct Followers {
    tree: BroadcastTree,
    /// Moves that were told and not confirmed.
    told: Vec<TreeMove>,
    told_so_far: usize,
    /// Last confirmed sources of each node, and all that were told since then. Nodes that have left
    /// are included: they serve their children until these have moved.
    sources: BTreeMap<NodeId, Vec<TreeMove>>,
}

impl Followers {
    fn new(fan_out: usize) -> Self {
        let config = TreeConfig { fan_out, nodes: 2_000, planted: Planted::default() };
        Self {
            tree: BroadcastTree::new(ROOT, config),
            told: vec![],
            told_so_far: 0,
            sources: BTreeMap::new(),
        }
    }

    /// Tells all moves, and checks the plan.
    fn tell(&mut self) {
        self.told_so_far += 1;
        // Checks of a large tree take long.
        let checked = self.tree.len() < 100 || self.told_so_far.is_multiple_of(32);
        let check = |tree: &BroadcastTree| {
            if checked {
                tree.audit().unwrap()
            }
        };
        check(&self.tree);
        while let Some(step) = self.tree.poll() {
            check(&self.tree);
            assert!(self.tree.moved() <= 2 * self.tree.fan_out());
            self.sources.entry(step.node).or_default().push(step);
            self.told.push(step);
        }
        check(&self.tree);
    }

    /// Confirms one of the moves that were told.
    fn confirm(&mut self, which: usize) {
        if self.told.is_empty() {
            return;
        }
        let step = self.told.swap_remove(which % self.told.len());
        self.sources.insert(step.node, vec![step]);
        self.tree.attached(step.node, step.parent);
        self.tell();
    }

    fn remove(&mut self, node: NodeId) {
        self.tree.remove(node);
        if node == ROOT {
            return;
        }
        // Nobody can attach to the node any more.
        self.told.retain(|step| step.node != node && step.parent != node);
        self.tell();
    }

    /// Confirms until there is nothing left. Returns the number of confirmed moves.
    fn rest(&mut self) -> usize {
        self.tell();
        let mut confirmed = 0;
        while !self.told.is_empty() {
            self.confirm(0);
            confirmed += 1;
            assert!(confirmed < 60 * self.tree.len() + 200, "the tree comes to no rest");
        }
        assert!(self.tree.is_at_rest());
        for node in self.tree.nodes().filter(|node| *node != ROOT) {
            let told = self.sources[&node].last().unwrap();
            assert_eq!(Some(told.parent), self.tree.parent(node));
            assert_eq!(told.spare, self.tree.spare(node));
        }
        confirmed
    }

    /// Panics if nodes could feed each other in a circle, through sources told or confirmed.
    fn assert_no_circle(&self) {
        let mut left: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, steps) in &self.sources {
            let sources = steps.iter().flat_map(|step| [Some(step.parent), step.spare]).flatten();
            left.insert(*node, sources.filter(|at| self.sources.contains_key(at)).collect());
        }
        while !left.is_empty() {
            let free: BTreeSet<NodeId> =
                left.iter().filter(|(_, above)| above.is_empty()).map(|(node, _)| *node).collect();
            assert!(!free.is_empty(), "a circle among {:?}", left.keys());
            left.retain(|node, _| !free.contains(node));
            for above in left.values_mut() {
                *above = above.difference(&free).copied().collect();
            }
        }
    }
}

/// Round trips of a cluster with three zones of hosts.
fn rtt(a: NodeId, b: NodeId) -> u32 {
    let (zone, host) = (|node: NodeId| node.0 % 3, |node: NodeId| node.0 % 12);
    if host(a) == host(b) {
        100
    } else if zone(a) == zone(b) {
        800
    } else {
        20_000
    }
}

fn joined(fan_out: usize, weights: &[u32]) -> Followers {
    let mut followers = Followers::new(fan_out);
    for (number, weight) in weights.iter().enumerate() {
        assert!(followers.tree.add(NodeId(number as u64 + 1), *weight, 1_000));
        followers.rest();
    }
    followers
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u32),
    Remove(usize),
    Reweigh(usize, u32),
    Measure(usize, usize, u32),
    Confirm(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = any::<u16>().prop_map(usize::from);
    let weight = prop_oneof![Just(0), 1..5_u32, 1..1_000_u32];
    prop_oneof![
        4 => weight.clone().prop_map(Step::Add),
        2 => node.clone().prop_map(Step::Remove),
        1 => (node.clone(), weight).prop_map(|(node, weight)| Step::Reweigh(node, weight)),
        2 => (node.clone(), node.clone(), 0..50_000_u32).prop_map(|(a, b, rtt)| Step::Measure(a, b, rtt)),
        4 => node.prop_map(Step::Confirm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_invariant_holds_after_every_input(
        fan_out in 2..=8_usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut followers = Followers::new(fan_out);
        for (number, step) in steps.into_iter().enumerate() {
            let nodes: Vec<NodeId> = followers.tree.nodes().collect();
            let pick = |which: usize| nodes[which % nodes.len()];
            match step {
                Step::Add(weight) => {
                    let node = NodeId(number as u64 + 1);
                    prop_assert!(followers.tree.add(node, weight, rtt(ROOT, node)));
                }
                Step::Remove(node) => followers.remove(pick(node)),
                Step::Reweigh(node, weight) => followers.tree.reweigh(pick(node), weight),
                Step::Measure(a, b, rtt) => followers.tree.measure(pick(a), pick(b), rtt),
                Step::Confirm(which) => followers.confirm(which),
            }
            followers.tell();
            followers.assert_no_circle();
        }
        followers.rest();
    }
}

#[test]
fn a_thousand_nodes_come_and_go() {
    for fan_out in [2, 3, 8] {
        let mut rng = Rng::new([fan_out as u8; 32]);
        let mut followers = Followers::new(fan_out);
        let mut below = |most: usize| rng.range(0..=most as u64 - 1) as usize;
        for number in 1..=1_000 {
            let node = NodeId(number);
            followers.tree.add(node, below(100) as u32, rtt(ROOT, node));
            followers.tell();
            for _ in 0..below(5) {
                followers.confirm(below(1_000));
            }
        }
        followers.rest();
        followers.assert_no_circle();
        for _ in 0..120 {
            let nodes: Vec<NodeId> = followers.tree.nodes().collect();
            let (a, b) = (nodes[below(nodes.len())], nodes[below(nodes.len())]);
            match below(4) {
                0 => followers.remove(a),
                1 => followers.tree.reweigh(a, below(1_000) as u32),
                _ => followers.tree.measure(a, b, rtt(a, b)),
            }
            followers.tell();
            for _ in 0..below(20) {
                followers.confirm(below(1_000));
            }
        }
        followers.assert_no_circle();
        followers.rest();
    }
}

#[test]
fn removing_all_nodes_keeps_the_tree_shallow() {
    for fan_out in [2, 3, 8] {
        let mut followers = joined(fan_out, &[5; 150]);
        loop {
            let tree = &followers.tree;
            let inner = tree.nodes().find(|node| *node != ROOT && !tree.children(*node).is_empty());
            let Some(inner) = inner else { break };
            followers.remove(inner);
        }
        for node in followers.tree.nodes().collect::<Vec<_>>() {
            followers.remove(node);
        }
        assert!(followers.tree.is_empty() && followers.tree.is_at_rest());
        assert!(followers.tree.gone.is_empty());
    }
}

#[test]
fn a_light_node_changes_places_with_a_heavy_parent_once() {
    let mut followers = joined(2, &[30, 30, 30, 30]);
    followers.tree.add(NodeId(9), 1, 1_000);
    assert_eq!(followers.tree.level(NodeId(9)), 2);
    assert!(followers.tree.moved() <= 3);
    followers.rest();
    // A difference of less than a half is none.
    followers.tree.add(NodeId(10), 21, 1_000);
    assert_eq!(followers.tree.level(NodeId(10)), 3);
}

#[test]
fn a_node_that_becomes_heavy_sinks() {
    let mut followers = joined(2, &(1..=30).map(|n| 10 + n).collect::<Vec<_>>());
    let inner = followers.tree.children(ROOT)[0];
    assert_eq!(followers.tree.children(inner).len(), 2);
    followers.tree.reweigh(inner, 10_000);
    followers.rest();
    assert!(followers.tree.children(inner).is_empty(), "{:?}", followers.tree);
}

#[test]
fn a_move_waits_until_its_parent_is_fed_by_others() {
    let mut followers = joined(2, &[30, 30]);
    let light = NodeId(9);
    followers.tree.add(light, 1, 1_000);
    let heavy = followers.tree.children(light)[0];
    let first = followers.tree.poll().unwrap();
    assert_eq!((first.node, first.parent, first.spare), (light, ROOT, None));
    assert_eq!(followers.tree.poll(), None, "the new node has nothing to read from yet");
    followers.tree.attached(light, ROOT);
    let second = followers.tree.poll().unwrap();
    assert_eq!((second.node, second.parent, second.spare), (heavy, light, Some(ROOT)));
    // A confirmation of another place counts for nothing.
    followers.tree.attached(heavy, ROOT);
    assert!(!followers.tree.is_at_rest());
}

#[test]
fn a_leaf_takes_the_place_of_an_inner_node_and_the_children_get_it_as_their_parent() {
    let mut followers = joined(2, &[7; 14]);
    let dead = followers.tree.children(ROOT)[0];
    let orphans = followers.tree.children(dead).to_vec();
    followers.remove(dead);
    let heir = followers.tree.parent(orphans[0]).unwrap();
    assert_eq!(followers.tree.parent(heir), Some(ROOT));
    assert!(followers.tree.moved() <= 3);
    assert!(orphans.iter().all(|orphan| followers.tree.spare(*orphan) == Some(ROOT)));
    followers.rest();
}

#[test]
fn a_shorter_way_must_be_worth_the_move() {
    let mut followers = joined(2, &[7, 7]);
    followers.tree.add(NodeId(3), 7, 10_000);
    followers.tree.add(NodeId(4), 7, 10_000);
    followers.rest();
    let (near, far) = (followers.tree.children(ROOT)[0], followers.tree.children(ROOT)[1]);
    let leaf = followers.tree.children(near)[0];
    let measure = |followers: &mut Followers, a, b, rtt| {
        followers.tree.measure(a, b, rtt);
        followers.rest();
        followers.tree.parent(leaf).unwrap()
    };
    assert_eq!(measure(&mut followers, leaf, near, 9_000), near);
    assert_eq!(measure(&mut followers, leaf, far, 7_500), near, "15 % are not enough");
    assert_eq!(measure(&mut followers, leaf, far, 3_000), far);
    assert_eq!(measure(&mut followers, leaf, near, 2_100), far, "less than 1 ms is not enough");
}

#[test]
fn steady_latencies_come_to_rest_with_few_long_links() {
    for fan_out in [2, 4, 8] {
        let mut followers = Followers::new(fan_out);
        for number in 1..=200 {
            followers.tree.add(NodeId(number), 10, rtt(ROOT, NodeId(number)));
            followers.rest();
        }
        let report = |followers: &mut Followers| {
            let mut moved = 0;
            for number in 1..=200 {
                let node = NodeId(number);
                for peer in [followers.tree.parent(node), followers.tree.spare(node)].into_iter().flatten() {
                    followers.tree.measure(node, peer, rtt(node, peer));
                    moved += followers.rest();
                }
            }
            moved
        };
        let rounds: Vec<usize> = (0..20).map(|_| report(&mut followers)).collect();
        assert_eq!(rounds.last(), Some(&0), "nodes with {fan_out} children move for ever: {rounds:?}");
        let worst = followers.tree.nodes().map(|node| followers.tree.way(node)).max().unwrap();
        assert!(worst <= 100_000, "{worst} us with {fan_out} children");
    }
}

#[test]
fn a_full_tree_and_a_known_node_are_refused() {
    let config = TreeConfig { fan_out: 1, nodes: 2, planted: Planted::default() };
    let mut tree = BroadcastTree::new(ROOT, config);
    assert_eq!(tree.fan_out(), 2);
    assert!(!tree.add(ROOT, 1, 1));
    assert!(tree.add(NodeId(1), 1, 1) && !tree.add(NodeId(1), 1, 1));
    assert!(tree.add(NodeId(2), 1, 1) && !tree.add(NodeId(3), 1, 1));
    tree.remove(ROOT);
    tree.remove(NodeId(3));
    tree.reweigh(ROOT, 9);
    tree.measure(ROOT, NodeId(3), 9);
    assert_eq!((tree.len(), tree.weight(ROOT), tree.level(NodeId(3))), (3, 0, 0));
    tree.audit().unwrap();
}
