//! Broadcast tree of a room: each node that follows the room reads the entries from its parent, and
//! the root is the room's primary.
//!
//! [`BroadcastTree`] belongs to the primary. The tree has two forms. The *plan* changes with each
//! input: a node that joins gets a parent, a leaf replaces a node that leaves, and a change gives at
//! most `2 * fan_out` nodes another parent. The nodes carry the plan out later, each when
//! [`BroadcastTree::poll`] has told the node its parent and its spare, and until
//! [`BroadcastTree::attached`] both the old and the new parent may feed the node. A move is held
//! back while its parent could be fed by the node itself, so no order of these steps makes a circle,
//! and entries reach every node at all times.
//!
//! Three rules shape the plan:
//!
//! * *Levels.* Only the two lowest levels below a free place may have nodes, so no node is more than
//!   one level below its level in the smallest possible tree.
//! * *Weights.* An inner node, the root excepted, is at most 1.5 times as heavy as its lightest
//!   child. Heavy nodes therefore sink to the leaves, where a node forwards nothing. Exchanges for
//!   this rule wait until all earlier moves are carried out, and are planned one at a time.
//! * *Latencies.* A node joins where the way from the root is shortest, and moves for a way that is
//!   shorter by 20 % and by 1 ms. Round trips that were not measured are estimated.

mod audit;
mod balance;
mod latency;
mod moves;
mod places;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::base::id::NodeId;
use crate::base::plant::{Plant, Planted};

/// Smallest and largest number of children of a node.
const FAN_OUT: core::ops::RangeInclusive<usize> = 2..=8;

/// Maximum number of measured round trips that are kept for a node. The oldest is replaced.
const MEASURED: usize = 8;

/// Maximum number of nodes that are known as possible feeders of a node. A node exceeds this number
/// only if many parents in succession die before the node is attached; the oldest is forgotten.
const FEEDERS: usize = 16;

/// Arguments of a new tree.
#[derive(Clone, Copy, Debug)]
pub struct TreeConfig {
    /// Maximum number of children of a node, from 2 to 8. Other values are moved into this range.
    pub fan_out: usize,
    /// Maximum number of nodes below the root. [`BroadcastTree::add`] refuses more.
    pub nodes: usize,
    /// A bug, for the simulator.
    pub planted: Planted,
}

/// Order to a node: read the entries from `parent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeMove {
    /// The node.
    pub node: NodeId,
    /// Parent of the node.
    pub parent: NodeId,
    /// Node to attach to when the parent dies: the parent's parent. A child of the root has none.
    pub spare: Option<NodeId>,
}

/// Plan of a broadcast tree, and the moves that carry the plan out.
#[derive(Clone, Debug)]
pub struct BroadcastTree {
    root: NodeId,
    fan_out: usize,
    most: usize,
    nodes: BTreeMap<NodeId, TreeNode>,
    /// Nodes whose sources may differ from those that they were told.
    changed: BTreeSet<NodeId>,
    /// Nodes that were told a move, and have not confirmed the move.
    under_way: BTreeSet<NodeId>,
    /// Removed nodes that may feed other nodes still, with the nodes that may feed them. At most as
    /// many as nodes; the first is forgotten.
    gone: BTreeMap<NodeId, VecDeque<NodeId>>,
    /// Number of changes of the plan.
    changes: u64,
    /// Nodes that the last change gave another parent.
    moved: BTreeSet<NodeId>,
    /// True if an inner node may be too heavy.
    unbalanced: bool,
    /// Two halves of an exchange: the second half puts the light node in the place of the heavy one.
    half_done: Option<(NodeId, NodeId)>,
    planted: Planted,
}

#[derive(Clone, Debug)]
struct TreeNode {
    weight: u32,
    /// Round trip to the root, in microseconds.
    root_rtt: u32,
    place: TreePlace,
    /// Last measured round trips to other nodes, in microseconds, the oldest first.
    measured: VecDeque<(NodeId, u32)>,
    /// TreeSources that the node was told last.
    told: Option<TreeSources>,
    /// True if the node was attached to a parent once.
    is_attached: bool,
    /// Nodes that may feed the node: the sources that it has confirmed last, and all that it was told
    /// since then.
    feeders: VecDeque<NodeId>,
}

/// Place in the plan.
#[derive(Clone, Debug, Default)]
struct TreePlace {
    parent: Option<NodeId>,
    children: Vec<NodeId>,
    /// 1 at the root; 0 for a node without a place.
    level: usize,
}

/// Nodes that feed a node: the parent, and the spare after the death of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TreeSources {
    parent: NodeId,
    spare: Option<NodeId>,
}

impl BroadcastTree {
    /// Creates the tree of a primary without followers.
    #[must_use]
    pub fn new(root: NodeId, config: TreeConfig) -> Self {
        let mut top = TreeNode::new(0, 0);
        top.place.level = 1;
        Self {
            root,
            fan_out: config.fan_out.clamp(*FAN_OUT.start(), *FAN_OUT.end()),
            most: config.nodes,
            nodes: BTreeMap::from([(root, top)]),
            changed: BTreeSet::new(),
            under_way: BTreeSet::new(),
            gone: BTreeMap::new(),
            changes: 0,
            moved: BTreeSet::new(),
            unbalanced: false,
            half_done: None,
            planted: config.planted,
        }
    }

    // Getters.

    /// Returns the root: the room's primary.
    #[must_use]
    pub const fn root(&self) -> NodeId {
        self.root
    }

    /// Returns the maximum number of children of a node.
    #[must_use]
    pub const fn fan_out(&self) -> usize {
        self.fan_out
    }

    /// Returns the nodes, the root included, by their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// Returns the number of nodes, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true if the root has no followers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Returns the planned parent of a node. The root has none.
    #[must_use]
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(&node)?.place.parent
    }

    /// Returns the planned spare of a node: the parent's parent.
    #[must_use]
    pub fn spare(&self, node: NodeId) -> Option<NodeId> {
        self.parent(self.parent(node)?)
    }

    /// Returns the planned children of a node.
    #[must_use]
    pub fn children(&self, node: NodeId) -> &[NodeId] {
        self.nodes.get(&node).map_or(&[], |known| &known.place.children)
    }

    /// Returns the level of a node in the plan: 1 for the root, 0 for an unknown node.
    #[must_use]
    pub fn level(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, |known| known.place.level)
    }

    /// Returns the number of levels of the plan.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.nodes.values().map(|known| known.place.level).max().unwrap_or(0)
    }

    /// Returns the weight of a node; 0 for the root and for an unknown node.
    #[must_use]
    pub fn weight(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |known| known.weight)
    }

    /// Returns the number of changes of the plan so far.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the number of nodes that the last change gave another parent.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.moved.len()
    }

    /// Returns true if all nodes have confirmed their places, and no exchange is left to plan.
    /// [`Self::poll`] must have returned `None` since the last input.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.changed.is_empty() && self.under_way.is_empty() && !self.unbalanced
    }

    // Inputs.

    /// Adds a node below the root, with its weight and its round trip to the root in microseconds.
    /// Returns false if the node is in the tree, or if the tree is full.
    pub fn add(&mut self, node: NodeId, weight: u32, rtt: u32) -> bool {
        if self.nodes.contains_key(&node) || self.nodes.len() > self.most {
            return false;
        }
        self.begin();
        self.nodes.insert(node, TreeNode::new(weight, rtt));
        self.hang(node, self.parent_for(node));
        self.sift_up(node);
        true
    }

    /// Removes a node that has left or died. A leaf takes the place of an inner node. Does nothing for
    /// the root, which ends together with its tree.
    pub fn remove(&mut self, node: NodeId) {
        if node == self.root || !self.nodes.contains_key(&node) {
            return;
        }
        self.begin();
        let orphans = self.children(node).to_vec();
        if let Some(leaf) = self.substitute(node) {
            self.exchange(node, leaf);
        }
        if self.planted.is(Plant::OrphanKept) {
            self.changed.retain(|changed| !orphans.contains(changed));
        }
        self.unhang(node);
        self.forget(node);
        for nodes in [&mut self.changed, &mut self.under_way, &mut self.moved] {
            nodes.remove(&node);
        }
        self.refill();
        self.unbalanced = true;
    }

    /// Sets the weight of a node, such as the number of its sessions.
    pub fn reweigh(&mut self, node: NodeId, weight: u32) {
        if let Some(known) = self.nodes.get_mut(&node).filter(|_| node != self.root) {
            known.weight = weight;
            self.unbalanced = true;
        }
    }

    /// Notes a measured round trip between two nodes in microseconds. While no move is under way, one
    /// of them may move to a shorter way from the root.
    pub fn measure(&mut self, a: NodeId, b: NodeId, rtt: u32) {
        if a == b || !self.nodes.contains_key(&a) || !self.nodes.contains_key(&b) {
            return;
        }
        self.note_rtt(a, b, rtt);
        if self.changed.is_empty() && self.under_way.is_empty() && !self.shorten(a, b) {
            self.shorten(b, a);
        }
    }

    /// Confirms that a node is attached to the parent of its last move, and to no other node.
    pub fn attached(&mut self, node: NodeId, parent: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node)
            && known.told.is_some_and(|told| told.parent == parent)
            && self.under_way.remove(&node)
        {
            known.is_attached = true;
            known.feeders = known.told.iter().flat_map(TreeSources::nodes).collect();
        }
    }

    /// Starts a change.
    fn begin(&mut self) {
        self.changes += 1;
        self.moved.clear();
    }
}

impl TreeSources {
    fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        [Some(self.parent), self.spare].into_iter().flatten()
    }
}

impl TreeNode {
    fn new(weight: u32, root_rtt: u32) -> Self {
        Self {
            weight,
            root_rtt,
            place: TreePlace::default(),
            measured: VecDeque::new(),
            told: None,
            is_attached: false,
            feeders: VecDeque::new(),
        }
    }
}
