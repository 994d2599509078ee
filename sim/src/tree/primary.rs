//! The primary's part that plans the broadcast tree.

use skirmish_core::id::NodeId;
use skirmish_core::plant::Planted;
use skirmish_core::room::tree::{BroadcastTree, TreeConfig};

use super::message::TreeMessage;
use crate::oracle::{Guarantee, Violation, broken};

/// The machine, with the moves that it has asked for.
#[derive(Clone, Debug)]
pub struct TreePrimary {
    tree: BroadcastTree,
    counted: u64,
    /// Moves of each change.
    moves: Vec<usize>,
}

impl TreePrimary {
    /// Creates the primary of a tree.
    #[must_use]
    pub fn new(root: NodeId, fan_out: usize, planted: Planted) -> Self {
        let config = TreeConfig { fan_out, nodes: 100_000, planted };
        Self { tree: BroadcastTree::new(root, config), counted: 0, moves: Vec::new() }
    }

    /// Returns the machine.
    #[must_use]
    pub const fn tree(&self) -> &BroadcastTree {
        &self.tree
    }

    /// Returns the moves of each change so far.
    #[must_use]
    pub fn moves(&self) -> &[usize] {
        &self.moves
    }

    /// Takes a message, of which the round trip to the sender is known. Returns the answers.
    ///
    /// # Errors
    /// The machine broke an invariant.
    pub fn handle(
        &mut self,
        from: NodeId,
        message: &TreeMessage,
        rtt: u32,
    ) -> Result<Vec<(NodeId, TreeMessage)>, Violation> {
        match *message {
            TreeMessage::Join { weight } => {
                self.tree.add(from, weight, rtt);
            }
            TreeMessage::Leave => self.tree.remove(from),
            TreeMessage::Weight(weight) => self.tree.reweigh(from, weight),
            TreeMessage::Rtt { peer, rtt } => self.tree.measure(from, peer, rtt),
            TreeMessage::Placed { parent } => self.tree.attached(from, parent),
            _ => {}
        }
        let mut answers = self.moved()?;
        if matches!(message, TreeMessage::Leave) {
            answers.push((from, TreeMessage::Farewell));
        }
        Ok(answers)
    }

    /// Removes a node that is dead. Returns the moves.
    ///
    /// # Errors
    /// The machine broke an invariant.
    pub fn lose(&mut self, node: NodeId) -> Result<Vec<(NodeId, TreeMessage)>, Violation> {
        self.tree.remove(node);
        self.moved()
    }

    fn moved(&mut self) -> Result<Vec<(NodeId, TreeMessage)>, Violation> {
        let mut answers = Vec::new();
        self.check()?;
        while let Some(step) = self.tree.poll() {
            self.check()?;
            answers.push((step.node, TreeMessage::Place { parent: step.parent, spare: step.spare }));
        }
        self.check()?;
        Ok(answers)
    }

    fn check(&mut self) -> Result<(), Violation> {
        if self.tree.changes() > self.counted {
            self.counted = self.tree.changes();
            self.moves.push(self.tree.moved());
        }
        self.tree.audit().or_else(|invariant| {
            broken(Guarantee::Bounded, format_args!("the broadcast tree breaks an invariant: {invariant}"))
        })
    }
}
