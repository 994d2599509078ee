//! Handles events of the watched directories: nodes that start and stop, sessions that are taken
//! over.

use super::claim::{Attempt, Goal};
use super::directory::NodeChange;
use super::directory_watch::{DirectoryWatch, Page};
use super::keys::{self, Owner, Subject};
use super::pending::{Purpose, Topic};
use super::table::{ClaimAttempt, RecordReport, ServicePhase};
use super::{Decision, Registrar};
use crate::base::plant::Plant;
use crate::base::time::Instant;
use crate::registry::{Change, Failure, KeyValue, News, Response, Watched};

impl Registrar {
    const fn directory_watch_mut(&mut self, topic: Topic) -> &mut DirectoryWatch {
        match topic {
            Topic::Nodes => &mut self.nodes,
            Topic::Sessions => &mut self.sessions,
        }
    }

    /// Sends the next read of each directory when it is due.
    pub(super) fn poll_directories(&mut self, now: Instant) {
        if !self.may_rely_on_store() {
            return;
        }
        for (topic, directory) in [(Topic::Nodes, &mut self.nodes), (Topic::Sessions, &mut self.sessions)] {
            if let Some(request) = directory.poll(&self.config, now) {
                self.stats.requests += 1;
                let registration = self.presence.registration();
                let (seen, key_changes) = (self.generation.seen(), self.generation.key_changes());
                let purpose = Purpose::Read(topic);
                let pending =
                    super::Pending { purpose, sent: now, registration, seen, key_changes, writes: None };
                self.calls.send(request, pending);
            }
        }
    }

    pub(super) fn handle_page(&mut self, now: Instant, topic: Topic, outcome: Result<Response, Failure>) {
        let Self { nodes, sessions, config, rng, bugs, .. } = self;
        let directory = match topic {
            Topic::Nodes => nodes,
            Topic::Sessions => sessions,
        };
        let Some((page, watch)) = directory.handle_outcome(config, now, outcome, rng, bugs) else { return };
        if let Some(mut watch) = watch {
            if self.planted.is(Plant::WatchFromNow) {
                watch.start = 0;
            }
            let id = self.calls.watch(watch);
            self.directory_watch_mut(topic).handle_watching(id);
        }
        match topic {
            Topic::Nodes => self.handle_nodes(now, &page),
            Topic::Sessions => self.handle_sessions(now, &page),
        }
    }

    pub(super) fn handle_watched(&mut self, now: Instant, watched: Watched) {
        let Watched { id, news, revision } = watched;
        if self.generation.watches(id) {
            self.generation.see(revision);
            return self.handle_generation_watch(now, &news);
        }
        let Self { nodes, sessions, config, rng, .. } = self;
        let topic = if nodes.takes(config, now, id, &news, rng) {
            Topic::Nodes
        } else if sessions.takes(config, now, id, &news, rng) {
            Topic::Sessions
        } else {
            // News of a watch that was ended meanwhile.
            return;
        };
        self.generation.see(revision);
        // The directory has handled the end of the watch, and its start and its progress need no action.
        let News::Changes(changes) = news else { return };
        for change in &changes {
            match topic {
                Topic::Nodes => self.handle_node_change(now, change),
                Topic::Sessions => self.handle_session_change(now, change),
            }
        }
    }

    fn handle_nodes(&mut self, now: Instant, page: &Page) {
        for change in self.directory.handle_page(page, &mut self.stats.garbage) {
            self.report_node(change);
        }
        if page.lacks(&keys::node_key(self.me)) {
            self.handle_own_deletion(now, page.revision);
        }
        self.review_deployment(now);
    }

    fn handle_node_change(&mut self, now: Instant, change: &Change) {
        if let Some(node_change) = self.directory.handle_change(change, &mut self.stats.garbage) {
            self.report_node(node_change);
        }
        if let Change::Delete { key, revision, .. } = change
            && *key == keys::node_key(self.me)
        {
            self.handle_own_deletion(now, *revision);
        }
        self.review_deployment(now);
    }

    /// Handles the absence of the node's own record at a revision.
    fn handle_own_deletion(&mut self, now: Instant, revision: u64) {
        if self.presence.life().is_some_and(|life| revision > life) {
            self.handle_unregistered(now);
        }
    }

    fn report_node(&mut self, change: NodeChange) {
        let (id, decision) = match change {
            NodeChange::Up(id, record) => (id, Decision::NodeUp { id, record }),
            NodeChange::Down(id) => (id, Decision::NodeDown { id }),
        };
        if id != self.me {
            self.decisions.push_back(decision);
        }
    }

    fn handle_sessions(&mut self, now: Instant, page: &Page) {
        let gone = self.held(|subject, held| {
            let is_session = matches!(subject, Subject::Session(_));
            is_session && held.modified <= page.revision && page.lacks(&subject.key())
        });
        for (subject, _) in gone {
            self.handle_record(now, &subject, page.revision, None);
        }
        for kv in &page.kvs {
            self.handle_session_record(now, kv);
        }
    }

    fn handle_session_change(&mut self, now: Instant, change: &Change) {
        match change {
            Change::Put { kv, .. } => self.handle_session_record(now, kv),
            Change::Delete { key, revision, .. } => {
                if let Some(subject) = Subject::session(key) {
                    self.handle_record(now, &subject, *revision, None);
                }
            }
        }
    }

    fn handle_session_record(&mut self, now: Instant, kv: &KeyValue) {
        let subject = Subject::session(&kv.key);
        let owner = subject.as_ref().and_then(|subject| subject.owner(kv));
        if owner.is_none() {
            self.stats.garbage += 1;
        }
        if let Some(subject) = subject {
            self.handle_record(now, &subject, kv.modified, owner);
        }
    }

    /// Handles the record of a session as of a revision; `owner` is `None` if the record was absent or
    /// unreadable.
    fn handle_record(&mut self, now: Instant, subject: &Subject, revision: u64, owner: Option<Owner>) {
        let Some(entry) = self.table.entries.get_mut(subject) else {
            if owner.is_some_and(|owner| owner.node == self.me) {
                self.sweep(now, subject, Attempt::seen(Goal::Drop { held: None }, revision));
            }
            return;
        };
        if entry.report.is_none_or(|report| report.revision < revision) {
            entry.report = Some(RecordReport { revision, owner });
        }
        // A record that this node does not own, or has written since, needs no action.
        let Some(held) = entry.held.filter(|held| held.modified < revision) else { return };
        let idle = entry.work.is_none();
        match owner {
            Some(owner) if owner.node != self.me => self.handle_other_owner(now, subject, owner),
            // The attempt in progress will read the record itself.
            _ if !idle => {}
            // An own record with another session comes from a late request of a claim that was undone.
            Some(owner) if owner.session == Some(held.session) && owner.epoch == held.epoch => {}
            _ => self.doubt(now, subject),
        }
    }

    /// Handles another node's ownership of a session that this node owns as far as is known. If the other node
    /// has claimed the session for an older connection, the session is registered anew.
    pub(super) fn handle_other_owner(&mut self, now: Instant, subject: &Subject, owner: Owner) {
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        let is_older = entry.held.is_some_and(|held| owner.dial.is_behind(held.dial));
        if is_older && !self.planted.is(Plant::KeepOverridden) {
            index.set_doubtful(subject, entry, true);
            return self.advance(now, subject);
        }
        self.lose(now, subject, owner.epoch);
    }

    /// Gives up a session or room that another node owns now. An epoch that is not above the held one shows a
    /// store that went back: then the generation's key is read, which decides about everything.
    pub(super) fn lose(&mut self, now: Instant, subject: &Subject, epoch: u64) {
        let Some((entry, _)) = self.table.entry(&mut self.bugs, subject) else { return };
        if entry.held.is_some_and(|held| epoch <= held.epoch) {
            self.generation.plan_read(now);
            self.advance(now, subject);
        } else {
            self.give_up(now, subject, epoch);
        }
    }

    /// Deletes an own record of a session or room not held here. Such a record comes from a request that the
    /// registry executed late. With a full table the record stays until another node claims the session or
    /// asks for the room, or until the lease ends.
    pub(super) fn sweep(&mut self, now: Instant, subject: &Subject, attempt: Attempt) {
        let is_known = self.table.entries.contains_key(subject);
        if !self.running || !is_known && self.table.entries.len() >= self.config.keys {
            return;
        }
        self.stats.swept += 1;
        let entry = self.table.entries.entry(subject.clone()).or_default();
        self.table.index.set_phase(subject, entry, ServicePhase::Idle);
        entry.work = Some(ClaimAttempt::new(attempt, None));
        self.advance(now, subject);
    }
}
