//! The registry of the tests: one record, which names the primary and the backup of the room, and the
//! leases of the nodes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::sites::Sites;
use crate::base::id::NodeId;
use crate::hosting::{LiveLeases, RoomInput};
use crate::registrar::Reign;

/// A request to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Claim,
    Release,
    Pair { epoch: u64, term: u32, backup: Option<NodeId> },
    Swap { epoch: u64, term: u32, primary: NodeId },
}

/// Event of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Led(Reign),
    LedBy(Reign),
    Vacant,
    Paired(Option<NodeId>, u64),
    Deposed(Reign),
    /// Another node may be the primary from now on.
    Lost,
    /// A node is not named any more.
    Gone(NodeId),
}

/// The record of the room, requests that were not taken, and news that were not heard.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) record: Option<Reign>,
    revision: u64,
    /// Nodes that the registry names.
    named: Vec<bool>,
    pub(super) requests: Vec<VecDeque<Request>>,
    pub(super) news: Vec<VecDeque<News>>,
}

pub(super) fn node(site: usize) -> NodeId {
    NodeId(site as u64 + 1)
}

pub(super) fn site_of(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap() - 1
}

impl Registry {
    pub(super) fn new(count: usize) -> Self {
        Self {
            record: None,
            revision: 1,
            named: alloc::vec![true; count],
            requests: alloc::vec![VecDeque::new(); count],
            news: alloc::vec![VecDeque::new(); count],
        }
    }

    pub(super) fn next_request(&self) -> Option<usize> {
        self.requests.iter().position(|queue| !queue.is_empty())
    }

    pub(super) fn next_news(&self) -> Option<usize> {
        self.news.iter().position(|queue| !queue.is_empty())
    }

    /// Sends a request of a node.
    pub(super) fn ask(&mut self, at: usize, request: Request) {
        match request {
            Request::Claim => {
                // The answer to a claim that is under way serves for this claim, too.
                let is_answer = |news: &News| matches!(news, News::Led(_) | News::LedBy(_));
                if self.requests[at].contains(&request) || self.news[at].iter().any(is_answer) {
                    return;
                }
            }
            // The last wish counts.
            Request::Pair { .. } => {
                self.requests[at].retain(|other| !matches!(other, Request::Pair { .. }));
            }
            // A release gives a take-over up.
            Request::Release => {
                self.requests[at].retain(|other| !matches!(other, Request::Swap { .. }));
            }
            Request::Swap { .. } => {}
        }
        self.requests[at].push_back(request);
    }

    fn write(&mut self, reign: Reign) -> Reign {
        self.revision += 1;
        *self.record.insert(Reign { revision: self.revision, ..reign })
    }

    /// Takes the next request of a node.
    pub(super) fn take_request(&mut self, at: usize) {
        let me = node(at);
        let news = match (self.requests[at].pop_front().unwrap(), self.record) {
            (Request::Release, record) => {
                self.record = record.filter(|record| record.primary != me);
                return;
            }
            (Request::Claim, Some(record)) if record.primary != me || record.backup.is_some() => {
                News::LedBy(record)
            }
            (Request::Claim, _) => {
                let epoch = self.revision + 1;
                let (term, primary, backup, revision) = (1, me, None, epoch);
                News::Led(self.write(Reign { epoch, term, primary, backup, revision }))
            }
            (Request::Pair { epoch, term, backup }, Some(record)) if record.epoch == epoch => {
                if record.term == term && record.primary == me {
                    let revision = self.write(Reign { backup, ..record }).revision;
                    News::Paired(backup, revision)
                } else {
                    News::Deposed(record)
                }
            }
            (Request::Pair { .. }, _) => News::Lost,
            (Request::Swap { epoch, term, primary }, Some(record)) if record.epoch == epoch => {
                let is_mine = (record.term, record.primary, record.backup) == (term, primary, Some(me));
                if is_mine && self.named[at] {
                    let (term, primary, backup) = (term + 1, me, Some(primary));
                    News::Led(self.write(Reign { term, primary, backup, ..record }))
                } else {
                    News::LedBy(record)
                }
            }
            (Request::Swap { .. }, _) => News::Vacant,
        };
        self.news[at].push_back(news);
    }
}

impl Sites {
    /// Gives a node the next news of the registry.
    pub(super) fn take_news(&mut self, at: usize) {
        let news = self.registry.news[at].pop_front().unwrap();
        let Some(hosted) = &self.sites[at].hosted else {
            if matches!(news, News::Led(_)) {
                self.registry.ask(at, Request::Release);
            }
            return;
        };
        let awaits = hosted.awaits_registry();
        let (epoch, term) = (hosted.room().epoch(), hosted.room().term());
        let input = match news {
            News::Led(reign) if awaits => RoomInput::Led(reign),
            News::LedBy(reign) if awaits => RoomInput::LedBy(reign),
            News::Vacant if awaits => RoomInput::Vacant,
            News::Led(_) | News::LedBy(_) | News::Vacant => return,
            News::Paired(backup, revision) => RoomInput::Paired { backup, revision },
            News::Deposed(reign) if reign.epoch == epoch && reign.term > term => RoomInput::Deposed(reign),
            News::Deposed(_) => return,
            News::Lost => RoomInput::Lost,
            // A node without a link is forgotten, with the rooms that are followed there.
            News::Gone(gone) if self.sites[at].follows.contains(&gone) => {
                if self.link(at, site_of(gone)).is_none() {
                    self.sites[at].follows.remove(&gone);
                }
                RoomInput::NodeGone { node: gone }
            }
            News::Gone(_) => return,
        };
        self.input(at, input);
    }

    // LiveLeases.

    /// Lets the leases of a node end, as far as the node knows.
    pub(super) fn lapse(&mut self, at: usize) {
        self.sites[at].leases = LiveLeases::default();
    }

    /// Lets the lease of a node end, as far as the node knows, but not that of its rooms.
    pub(super) fn lapse_node(&mut self, at: usize) {
        self.sites[at].leases.lone = false;
    }

    /// Lets the leases of a node end in the registry, which then names another primary if asked. A record
    /// with a backup stays.
    pub(super) fn expire(&mut self, at: usize) {
        let me = node(at);
        assert!(!self.sites[at].leases.lone, "a lease ends before its node takes it for over");
        self.registry.named[at] = false;
        let is_kept = |record: &Reign| record.primary != me || record.backup.is_some();
        let record = self.registry.record;
        let is_lost = record.is_some_and(|record| !is_kept(&record)) || !self.sites[at].leases.rooms;
        self.registry.record = record.filter(is_kept);
        for (other, news) in self.registry.news.iter_mut().enumerate() {
            if other != at {
                news.push_back(News::Gone(me));
            } else if is_lost {
                news.push_back(News::Lost);
            }
        }
    }

    /// Gives a node new leases. The node knows by then which rooms are its own.
    pub(super) fn lease(&mut self, at: usize) {
        while self.registry.news[at].contains(&News::Lost) {
            self.take_news(at);
        }
        self.registry.named[at] = true;
        self.sites[at].leases = LiveLeases { lone: true, rooms: true };
        self.input(at, RoomInput::Leased);
    }

    /// Kills the process of a node.
    pub(super) fn kill(&mut self, at: usize) {
        self.sites[at].hosted = None;
        for other in (0..self.sites.len()).filter(|other| *other != at) {
            let (one, two) = (at.min(other), at.max(other));
            if self.links[&(one, two)].is_some() {
                self.cut(one, two);
            }
        }
        let site = &mut self.sites[at];
        (site.lives, site.leases) = (false, LiveLeases::default());
        site.player.wants = false;
        (site.player.is_local, site.player.number) = (false, 0);
        self.registry.news[at].clear();
        self.registry.requests[at].clear();
    }
}
