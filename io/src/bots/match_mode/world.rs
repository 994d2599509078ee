//! State that the bots of the match mode share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use skirmish_core::time::Instant;
use skirmish_proto::v1::Matched;

use super::super::options::Options;
use super::super::stats::Stats;
use super::super::verdict::Findings;
use super::super::world::BattleStage;
use super::battle::MatchBattle;
use super::ledger::{MatchLedger, Rules};

/// Shared by all bots and the conducting task. There is one thread, so no task waits for the lock.
#[derive(Debug)]
pub(super) struct MatchModeState {
    pub options: Options,
    shared: Mutex<SharedMatchMode>,
}

#[derive(Debug)]
pub(super) struct SharedMatchMode {
    pub stage: BattleStage,
    pub stats: Stats,
    pub ledger: MatchLedger,
    pub bots: Vec<MatchBot>,
    /// Battles that at least one player has not left.
    pub battles: BTreeMap<String, MatchBattle>,
    /// Number of battles so far.
    pub rooms: u32,
    /// Breaches and counters of the battles that are over.
    pub found: Findings,
    /// Number of players that were away or behind when their battle had to end.
    pub unsettled: u32,
    /// Number of bots that were connected at least once.
    pub arrived: u32,
    pub connected: u32,
    /// Number of bots whose task has ended.
    pub gone: u32,
    /// The first error.
    pub trouble: Option<String>,
    /// True if a bot was refused for good.
    pub refused: bool,
}

/// State of a bot.
#[derive(Clone, Debug, Default)]
pub(super) struct MatchBot {
    /// Wakes the bot's task.
    pub waker: Option<Waker>,
    pub arrived: bool,
    pub connected: bool,
    /// True if the bot searches, or is in a match.
    pub busy: bool,
}

impl MatchModeState {
    pub(super) fn new(options: Options) -> Self {
        let rules = Rules {
            mode: options.matches.queue.clone().unwrap_or_default(),
            shape: options.matches.shape(),
            prefix: options.prefix.clone(),
            in_parties: options.matches.in_parties(options.players),
        };
        let shared = SharedMatchMode {
            stage: BattleStage::Gather,
            stats: Stats::new(),
            ledger: MatchLedger::new(rules, options.players),
            bots: vec![MatchBot::default(); options.players as usize],
            battles: BTreeMap::new(),
            rooms: 0,
            found: Findings::default(),
            unsettled: 0,
            arrived: 0,
            connected: 0,
            gone: 0,
            trouble: None,
            refused: false,
        };
        Self { options, shared: Mutex::new(shared) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SharedMatchMode> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the next stage and wakes every bot.
    pub(super) fn enter(&self, stage: BattleStage) {
        let mut shared = self.lock();
        shared.stage = stage;
        shared.bots.iter().filter_map(|bot| bot.waker.as_ref()).for_each(Waker::wake_by_ref);
    }
}

impl SharedMatchMode {
    /// Returns the number of bots that search or are in a match.
    pub(super) fn busy(&self) -> u32 {
        u32::try_from(self.bots.iter().filter(|bot| bot.busy).count()).unwrap_or(u32::MAX)
    }

    /// Notes that a bot was notified of its match. The first notified bot begins the battle.
    pub(super) fn told(&mut self, bot: u32, matched: &Matched, now: Instant, until: Instant) {
        if let Some(bots) = self.ledger.told(bot, matched, now) {
            let mut battle = MatchBattle::new(bots, until);
            // A bot that has given the match up does not join.
            let absent = battle.bots().iter().copied().filter(|bot| self.ledger.has_left(*bot, matched));
            absent.collect::<Vec<_>>().into_iter().for_each(|bot| battle.done(bot));
            self.battles.insert(matched.r#match.clone(), battle);
            self.rooms += 1;
        }
    }

    /// Notes that a bot has given a match up, and does not join.
    pub(super) fn gave_up(&mut self, bot: u32, id: &str) {
        if self.ledger.gave_up(bot, id) {
            self.battles.remove(id);
        }
        if let Some(battle) = self.battles.get_mut(id) {
            battle.done(bot);
        }
        self.end_battle(id, false);
    }

    /// Ends the battle if it is settled, or if `at_once`. Then every player may leave.
    pub(super) fn end_battle(&mut self, id: &str, at_once: bool) {
        let Self { bots, battles, found, unsettled, .. } = self;
        let Some(battle) = battles.get_mut(id) else { return };
        if battle.is_over() || !(at_once || battle.is_settled()) {
            return;
        }
        let (findings, open) = battle.end(|bot| bots[bot as usize].connected);
        for (all, broken) in found.breaches.iter_mut().zip(findings.breaches) {
            all.merge(broken);
        }
        found.unknown.merge(findings.unknown);
        found.counts.merge(findings.counts);
        *unsettled += open;
        let wakers = battle.bots().iter().filter_map(|bot| bots[*bot as usize].waker.as_ref());
        wakers.for_each(Waker::wake_by_ref);
    }

    /// Notes that a bot has left its match.
    pub(super) fn left(&mut self, bot: u32) {
        if let Some(id) = self.ledger.left(bot) {
            self.battles.remove(&id);
        }
    }
}
