//! Follower of a room, as far as the broadcast tree is concerned.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use skirmish_core::id::NodeId;
use skirmish_core::plant::{Plant, Planted};
use skirmish_core::room::Log;

use super::message::{TreeMessage, TreeSeen};

/// Node of the tree: the window of the log, its parents and its children. The root has no parent.
///
/// A node that gets another parent attaches there by its cursor, and detaches the old parent only
/// when the new one feeds it. Meanwhile both do, and of each entry the first copy counts. A node
/// without any parent attaches to its spare at once, and there to the root.
#[derive(Clone, Debug)]
pub struct TreeStub {
    root: NodeId,
    /// Window of the log.
    log: Log,
    /// True if the log has a position.
    started: bool,
    /// Parent and spare that the primary has told.
    sources: Option<(NodeId, Option<NodeId>)>,
    feeds: BTreeMap<NodeId, StubFeed>,
    /// Last entry that was sent to each child.
    children: BTreeMap<NodeId, u64>,
    /// Requests of children from before this node has started: the child, attempt, cursor, gap.
    waiting: Vec<(NodeId, u64, Option<u64>, bool)>,
    /// Nodes that are dead or have left.
    dead: BTreeSet<NodeId>,
    attempts: u64,
    leaving: bool,
    /// True if the primary has taken the node, which leaves, out of the tree.
    released: bool,
    /// True if the node has left.
    gone: bool,
    /// Entries sent to children.
    frames: u64,
    sent: Vec<(NodeId, TreeMessage)>,
    seen: Vec<TreeSeen>,
    planted: Planted,
}

/// A parent, past or future, that a node has asked for entries.
#[derive(Clone, Copy, Debug)]
struct StubFeed {
    attempt: u64,
    state: StubFeedState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StubFeedState {
    /// The request is not answered.
    Asked { gap: bool },
    /// Entries come from there.
    Feeding,
    /// The window there begins with this entry, which is not the next.
    Ahead { first: u64 },
}

impl TreeStub {
    /// Creates a node with a window of so many entries.
    #[must_use]
    pub fn new(id: NodeId, root: NodeId, window: usize, planted: Planted) -> Self {
        Self {
            root,
            log: Log::new(window, usize::MAX),
            started: id == root,
            sources: None,
            feeds: BTreeMap::new(),
            children: BTreeMap::new(),
            waiting: Vec::new(),
            dead: BTreeSet::new(),
            attempts: 0,
            leaving: false,
            released: false,
            gone: false,
            frames: 0,
            sent: Vec::new(),
            seen: Vec::new(),
            planted,
        }
    }

    // Getters.

    /// Returns the number of the newest entry.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.log.head()
    }

    /// Returns true if the node has a position in the log.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.started
    }

    /// Returns true if the node has left.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// Returns the number of entries sent to children.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns the parent and the spare that the primary has told.
    #[must_use]
    pub const fn sources(&self) -> Option<(NodeId, Option<NodeId>)> {
        self.sources
    }

    /// Returns the nodes that feed this node.
    pub fn parents(&self) -> impl Iterator<Item = NodeId> + '_ {
        let feeding = |feed: &StubFeed| feed.state == StubFeedState::Feeding;
        self.feeds.iter().filter(move |(_, feed)| feeding(feed)).map(|(node, _)| *node)
    }

    /// Returns the nodes that this node feeds.
    pub fn children(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.children.keys().copied()
    }

    /// Returns true if the node neither waits for a parent nor is leaving.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.leaving && self.feeds.len() == self.parents().count()
    }

    // Output.

    /// Takes the messages to send.
    pub fn take_sent(&mut self) -> Vec<(NodeId, TreeMessage)> {
        std::mem::take(&mut self.sent)
    }

    /// Takes the observable acts.
    pub fn take_seen(&mut self) -> Vec<TreeSeen> {
        std::mem::take(&mut self.seen)
    }

    // Inputs.

    /// Starts to follow the room.
    pub fn join(&mut self, weight: u32) {
        self.send(self.root, TreeMessage::Join { weight });
    }

    /// Starts to leave: the node serves its children until they have other parents.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.send(self.root, TreeMessage::Leave);
    }

    /// Appends an entry, at the root.
    pub fn publish(&mut self, frame: Bytes) -> u64 {
        let seq = self.log.head() + 1;
        self.take(seq, frame);
        seq
    }

    /// Takes a message of another node.
    pub fn handle(&mut self, from: NodeId, message: TreeMessage) {
        match message {
            TreeMessage::Place { parent, spare } => self.place(parent, spare),
            TreeMessage::Farewell => {
                self.released = true;
                self.go();
            }
            TreeMessage::Attach { attempt, cursor, gap } if self.started => {
                self.serve(from, attempt, cursor, gap);
            }
            TreeMessage::Attach { attempt, cursor, gap } => self.waiting.push((from, attempt, cursor, gap)),
            TreeMessage::Detach => {
                self.children.remove(&from);
                self.waiting.retain(|(child, ..)| *child != from);
                self.go();
            }
            TreeMessage::Feeding { attempt, base } if self.is_answer(from, attempt) => {
                self.feeding(from, base);
            }
            TreeMessage::OutOfWindow { attempt, first } if self.is_answer(from, attempt) => {
                self.ahead(from, first);
            }
            TreeMessage::Skipped { to } if self.is_fed_by(from) && to > self.head() => self.skip(from, to),
            TreeMessage::Entry { seq, frame } if self.is_fed_by(from) && seq > self.head() => {
                self.take(seq, frame);
                self.catch_up();
            }
            // Late answers, entries of a detached parent, copies, and messages for the primary.
            _ => {}
        }
    }

    /// Notes that another node is dead or has left.
    pub fn lose(&mut self, node: NodeId) {
        self.dead.insert(node);
        self.children.remove(&node);
        self.waiting.retain(|(child, ..)| *child != node);
        if self.feeds.remove(&node).is_some() {
            self.seen.push(TreeSeen::Refed);
            self.fail_over();
        }
        self.go();
    }

    fn send(&mut self, to: NodeId, message: TreeMessage) {
        self.sent.push((to, message));
    }

    /// Returns true if a node answers the last request to it.
    fn is_answer(&self, from: NodeId, attempt: u64) -> bool {
        self.feeds.get(&from).is_some_and(|feed| feed.attempt == attempt)
    }

    fn is_fed_by(&self, node: NodeId) -> bool {
        self.feeds.get(&node).is_some_and(|feed| feed.state == StubFeedState::Feeding)
    }

    // Towards parents.

    fn place(&mut self, parent: NodeId, spare: Option<NodeId>) {
        self.sources = Some((parent, spare));
        if self.is_fed_by(parent) {
            self.keep_only(parent);
        } else if self.parents().next().is_none() {
            self.fail_over();
        } else if !self.dead.contains(&parent) {
            self.attach(parent, false);
        }
    }

    /// Attaches to the first living source, at the price of a gap if there is no other way.
    fn fail_over(&mut self) {
        if self.parents().next().is_some() || self.planted.is(Plant::OrphanKept) && self.started {
            return;
        }
        let Some((parent, spare)) = self.sources else { return };
        let sources = [Some(parent), spare, Some(self.root)];
        let Some(source) = sources.into_iter().flatten().find(|node| !self.dead.contains(node)) else {
            return;
        };
        let asked = StubFeedState::Asked { gap: true };
        if self.feeds.get(&source).is_none_or(|feed| feed.state != asked) {
            self.attach(source, true);
        }
    }

    fn attach(&mut self, parent: NodeId, gap: bool) {
        self.attempts += 1;
        let attempt = self.attempts;
        let is_blind = gap && self.planted.is(Plant::GapUnpulled);
        let cursor = (self.started && !is_blind).then(|| self.head());
        self.feeds.insert(parent, StubFeed { attempt, state: StubFeedState::Asked { gap } });
        self.send(parent, TreeMessage::Attach { attempt, cursor, gap });
    }

    /// Notes that a parent sends the entries after `base`.
    fn feeding(&mut self, parent: NodeId, base: u64) {
        if !self.started {
            self.started = true;
            self.log.restart(base);
            self.seen.push(TreeSeen::Started(base));
        } else if base > self.head() && !self.planted.is(Plant::GapUnpulled) {
            self.skip(parent, base);
            if self.feeds.get(&parent).is_some_and(|feed| matches!(feed.state, StubFeedState::Ahead { .. })) {
                return;
            }
        }
        if let Some(feed) = self.feeds.get_mut(&parent) {
            feed.state = StubFeedState::Feeding;
        }
        for (child, attempt, cursor, gap) in std::mem::take(&mut self.waiting) {
            self.serve(child, attempt, cursor, gap);
        }
        if self.sources.is_some_and(|(planned, _)| planned == parent) {
            self.keep_only(parent);
        }
        self.seen.push(TreeSeen::Refed);
    }

    /// Detaches all other parents, and reports to the primary.
    fn keep_only(&mut self, parent: NodeId) {
        for other in self.feeds.keys().copied().filter(|node| *node != parent).collect::<Vec<_>>() {
            self.feeds.remove(&other);
            self.send(other, TreeMessage::Detach);
        }
        self.seen.push(TreeSeen::Refed);
        self.send(self.root, TreeMessage::Placed { parent });
    }

    /// Waits for a parent whose window begins too late, or accepts the gap if nobody else has the
    /// entries.
    fn ahead(&mut self, parent: NodeId, first: u64) {
        if let Some(feed) = self.feeds.get_mut(&parent) {
            feed.state = StubFeedState::Ahead { first };
        }
        self.catch_up();
        self.fail_over();
    }

    /// Attaches again to parents whose windows have the next entry.
    fn catch_up(&mut self) {
        let next = self.head() + 1;
        let is_due = |feed: &StubFeed| matches!(feed.state, StubFeedState::Ahead { first } if first <= next);
        let due: Vec<NodeId> =
            self.feeds.iter().filter(|(_, feed)| is_due(feed)).map(|(node, _)| *node).collect();
        for parent in due {
            self.attach(parent, false);
        }
    }

    /// Goes on after entry `to`, and announces the gap. If another parent has the entries, waits for
    /// them instead.
    fn skip(&mut self, parent: NodeId, to: u64) {
        if self.parents().any(|other| other != parent) {
            return self.ahead(parent, to + 1);
        }
        self.seen.push(TreeSeen::Announced(self.head() + 1, to));
        self.log.restart(to);
        for child in self.children.iter_mut().filter(|(_, sent)| **sent < to) {
            *child.1 = to;
            self.sent.push((*child.0, TreeMessage::Skipped { to }));
        }
        self.catch_up();
    }

    // Towards children.

    /// Delivers an entry, and passes the entry on.
    fn take(&mut self, seq: u64, frame: Bytes) {
        if seq > self.head() + 1 {
            self.log.restart(seq - 1);
        }
        self.log.append(frame.clone(), None);
        self.seen.push(TreeSeen::Delivered(seq, frame.clone()));
        for child in self.children.iter_mut().filter(|(_, sent)| **sent < seq) {
            *child.1 = seq;
            self.frames += 1;
            self.sent.push((*child.0, TreeMessage::Entry { seq, frame: frame.clone() }));
        }
    }

    /// Answers a child, and sends what the child does not have.
    fn serve(&mut self, child: NodeId, attempt: u64, cursor: Option<u64>, gap: bool) {
        let first = self.log.first();
        let base = match cursor {
            None => self.head(),
            Some(cursor) if cursor + 1 >= first => cursor,
            Some(_) if gap => first - 1,
            Some(_) => {
                self.children.remove(&child);
                return self.send(child, TreeMessage::OutOfWindow { attempt, first });
            }
        };
        self.send(child, TreeMessage::Feeding { attempt, base });
        for seq in base + 1..=self.head() {
            if let Some(frame) = self.log.get(seq, false) {
                self.frames += 1;
                self.sent.push((child, TreeMessage::Entry { seq, frame: frame.clone() }));
            }
        }
        self.children.insert(child, base.max(self.head()));
    }

    /// Leaves, if nothing is left to do.
    fn go(&mut self) {
        if self.leaving && self.released && self.children.is_empty() && self.waiting.is_empty() && !self.gone
        {
            for parent in std::mem::take(&mut self.feeds).into_keys() {
                self.send(parent, TreeMessage::Detach);
            }
            self.gone = true;
            self.seen.push(TreeSeen::Gone);
        }
    }
}
