//! The match mode: players queue for matches, are matched, battle in the match's room,
//! leave, and queue again.
//!
//! Each player acts on its own. Only the players of one match wait for each other, at the end of
//! their battle, until all of them have delivered every acknowledged message: so G1 to G5 can be
//! checked to the end in every room. The `ledger` checks G8 across all matches. At the end of the
//! run every player that still searches takes its ticket back, and must be notified of the outcome.

mod battle;
mod ledger;
mod options;
mod player;
mod report;
mod stay;
mod world;

use std::future::poll_fn;
use std::sync::Arc;

use skirmish_core::time::Duration;
use tokio::time::sleep;

pub use options::MatchOptions;
pub use report::MatchReport;

use super::gather::{Arrivals, gather};
use super::interrupt::{TICK, WaitEnd, interruptible, until};
use super::process::{MonitoredServer, own_cpu};
use super::progress::Progress;
use super::report::{Report, Usage};
use super::swarm::Swarm;
use super::world::BattleStage;
use super::{Error, FAREWELL};
use crate::client::Driver;
use player::MatchPlayer;
use world::MatchModeState;

/// Runs the match mode.
pub(super) async fn run(swarm: &Swarm) -> Result<Report, Error> {
    let options = &swarm.options;
    let world = Arc::new(MatchModeState::new(options.clone()));
    let progress = Progress::new(0);
    let start = |index, mut driver: Driver, rng, permit| {
        let mut player = MatchPlayer::new(index, Arc::clone(&world), rng, permit);
        tokio::spawn(async move {
            let result = poll_fn(|cx| driver.poll(cx, &mut player)).await;
            player.gone(result);
        });
    };
    let arrivals = || {
        let shared = world.lock();
        Arrivals { arrived: shared.arrived, refused: shared.refused, trouble: shared.trouble.clone() }
    };
    gather(swarm, &progress, start, arrivals).await?;

    let usage = play(swarm, &world, &progress).await;
    let waiting = world.lock().ledger.searching();
    world.enter(BattleStage::Settle);
    progress.stage("settle", u64::from(options.players));
    let settled = until(|| {
        let busy = world.lock().busy();
        progress.show(u64::from(options.players - busy), "went home".to_owned());
        busy == 0
    });
    // A battle that does not settle is ended after `patience`, and then has to be left.
    let _ = interruptible(&swarm.interruption, async {
        let _ = tokio::time::timeout(options.patience + FAREWELL, settled).await;
    })
    .await;

    let report = report::report(options, &mut world.lock(), &usage, waiting);
    world.enter(BattleStage::Leave);
    let left = until(|| world.lock().gone >= options.players);
    let _ = interruptible(&swarm.interruption, async {
        let _ = tokio::time::timeout(FAREWELL, left).await;
    })
    .await;
    Ok(report)
}

/// Plays for the warm-up and the duration. Measures the part of the duration that passed.
async fn play(swarm: &Swarm, world: &MatchModeState, progress: &Progress) -> Usage {
    let options = &swarm.options;
    let start = swarm.clock.now().instant;
    let from = start + options.warmup;
    let to = from + options.duration;
    let measure = |until| {
        let mut shared = world.lock();
        shared.stats.window = Some((from, until));
        shared.ledger.tally.window = Some((from, until));
    };
    measure(to);
    world.enter(BattleStage::Play { from: start, to });
    progress.stage("play", (options.warmup + options.duration).as_secs());
    let mut usage = Usage::default();
    let mut before = None;
    let waited = interruptible(&swarm.interruption, async {
        loop {
            let now = swarm.clock.now().instant;
            if now >= from && before.is_none() {
                before = Some((swarm.watched.and_then(MonitoredServer::cpu), own_cpu()));
            }
            let next = if now < from { from } else { to };
            let left = next - now;
            if left.is_zero() {
                return;
            }
            sleep(left.min(TICK * 10)).await;
            let shared = world.lock();
            let tally = &shared.ledger.tally;
            progress.show(
                swarm.clock.now().instant.since(start).as_secs(),
                format!(
                    "s, {}/{} connected, {} search, {} matches live, {} formed, all told p99 {:.1} ms",
                    shared.connected,
                    options.players,
                    shared.ledger.searching(),
                    shared.ledger.live(),
                    tally.formed,
                    Duration::from_micros(tally.all_told.value_at_quantile(0.99)).as_secs_f64() * 1e3,
                ),
            );
        }
    })
    .await;
    let now = swarm.clock.now().instant;
    usage.measured = now.since(from);
    usage.interrupted = waited == WaitEnd::Interrupted;
    if let Some((cpu, own)) = before {
        usage.server_cpu = swarm
            .watched
            .and_then(MonitoredServer::cpu)
            .zip(cpu)
            .map(|(end, begin)| end.saturating_sub(begin));
        usage.bots_cpu = own_cpu().saturating_sub(own);
    }
    if let Some(full) = swarm.watched.and_then(MonitoredServer::resident) {
        usage.resident_per_connection = Some(full / u64::from(options.players));
    }
    measure(now.min(to));
    usage
}
