//! State that the bots of one battle share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use skirmish_core::time::Instant;

use super::options::Options;
use super::stats::Stats;
use super::verdict::Checker;

/// The stages of a battle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BattleStage {
    /// The bots connect and join.
    Gather,
    /// Messages are sent from `from` until before `to`.
    Play { from: Instant, to: Instant },
    /// Nothing is sent any more; messages in flight are delivered.
    Settle,
    /// The bots end their sessions.
    Leave,
}

/// Shared by all bots and the conducting task. There is one thread, so no task waits for the lock.
#[derive(Debug)]
pub(super) struct BattleState {
    pub options: Options,
    shared: Mutex<SharedBattle>,
}

#[derive(Debug)]
pub(super) struct SharedBattle {
    pub stage: BattleStage,
    pub stats: Stats,
    pub checker: Checker,
    pub bots: Vec<Bot>,
    /// Number of bots that were in their room at least once.
    pub arrived: u32,
    /// Number of connected bots, for the progress line.
    pub connected: u32,
    /// Messages without an outcome.
    pub outstanding: u64,
    /// Number of bots whose task has ended.
    pub gone: u32,
    /// The first error while connecting and joining.
    pub trouble: Option<String>,
    /// True if a bot was refused for good.
    pub refused: bool,
}

/// State of a bot.
#[derive(Clone, Debug, Default)]
pub(super) struct Bot {
    /// Wakes the bot's task.
    pub waker: Option<Waker>,
    /// True if the bot was in its room at least once.
    pub arrived: bool,
    pub connected: bool,
}

impl BattleState {
    pub(super) fn new(options: Options) -> Self {
        let shared = SharedBattle {
            stage: BattleStage::Gather,
            stats: Stats::new(),
            checker: Checker::new(options.players, options.room_size),
            bots: vec![Bot::default(); options.players as usize],
            arrived: 0,
            connected: 0,
            outstanding: 0,
            gone: 0,
            trouble: None,
            refused: false,
        };
        Self { options, shared: Mutex::new(shared) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SharedBattle> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the next stage and wakes every bot.
    pub(super) fn enter(&self, stage: BattleStage) {
        let wakers: Vec<Waker> = {
            let mut shared = self.lock();
            shared.stage = stage;
            shared.bots.iter().filter_map(|bot| bot.waker.clone()).collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

impl SharedBattle {
    /// Returns true if every expected delivery has arrived: every bot is connected, every message
    /// has its outcome, and no bot is behind.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding == 0 && self.unsettled() == 0
    }

    /// Returns the number of players that are away or behind.
    pub(super) fn unsettled(&self) -> u32 {
        let open =
            |(player, bot): (u32, &Bot)| bot.arrived && (!bot.connected || self.checker.is_behind(player));
        u32::try_from((0..).zip(&self.bots).filter(|bot| open(*bot)).count()).unwrap_or(u32::MAX)
    }
}
