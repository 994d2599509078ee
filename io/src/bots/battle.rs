//! Conducts a battle, or players that only stay: gathers them, plays, settles, leaves.

use std::future::poll_fn;
use std::sync::Arc;

use skirmish_core::time::Duration;
use tokio::time::sleep;

use super::gather::{Arrivals, gather};
use super::interrupt::{TICK, WaitEnd, interruptible, until};
use super::options::Mode;
use super::player::BattlePlayer;
use super::process::{MonitoredServer, own_cpu};
use super::progress::Progress;
use super::report::{Report, Usage};
use super::swarm::Swarm;
use super::world::{BattleStage, BattleState};
use super::{Error, FAREWELL};
use crate::client::Driver;

/// Time from the last arrival to the first message.
const LEAD: Duration = Duration::from_millis(200);

/// Runs a battle.
pub(super) async fn run(swarm: &Swarm) -> Result<Report, Error> {
    let options = &swarm.options;
    let world = Arc::new(BattleState::new(options.clone()));
    let progress = Progress::new(0);
    let empty = swarm.watched.and_then(MonitoredServer::resident);

    let start = |index, mut driver: Driver, rng, permit| {
        let mut player = BattlePlayer::new(index, Arc::clone(&world), rng, permit);
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

    let mut usage = Usage::default();
    play(swarm, &world, &progress, &mut usage).await;
    if options.mode == Mode::Idle {
        usage.resident_per_connection = swarm
            .watched
            .and_then(MonitoredServer::resident)
            .zip(empty)
            .map(|(full, empty)| full.saturating_sub(empty) / u64::from(options.players));
    } else if let Some(full) = swarm.watched.and_then(MonitoredServer::resident) {
        usage.resident_per_connection = Some(full / u64::from(options.players));
    }

    world.enter(BattleStage::Settle);
    progress.stage("settle", u64::from(options.players));
    let settled = until(|| {
        let shared = world.lock();
        let open = shared.unsettled();
        progress
            .show(u64::from(options.players - open), format!("{} messages under way", shared.outstanding));
        shared.is_settled()
    });
    let _ = interruptible(&swarm.interruption, async {
        let _ = tokio::time::timeout(options.patience, settled).await;
    })
    .await;

    let report = Report::of_battle(options, &mut world.lock(), &usage);
    world.enter(BattleStage::Leave);
    let left = until(|| {
        let shared = world.lock();
        progress.show(u64::from(shared.gone), "gone".to_owned());
        shared.gone >= options.players
    });
    let _ = interruptible(&swarm.interruption, async {
        let _ = tokio::time::timeout(FAREWELL, left).await;
    })
    .await;
    Ok(report)
}

/// Sends for the warm-up and the duration, or only waits for the duration. Measures the processes
/// over the part of the duration that passed.
async fn play(swarm: &Swarm, world: &Arc<BattleState>, progress: &Progress, usage: &mut Usage) {
    let options = &swarm.options;
    let start = swarm.clock.now().instant + LEAD;
    let from = start + options.warmup;
    let to = from + options.duration;
    if options.mode == Mode::Battle {
        world.lock().stats.window = Some((from, to));
        world.enter(BattleStage::Play { from: start, to });
        progress.stage("warm up", 1);
        if interruptible(&swarm.interruption, sleep(from - swarm.clock.now().instant)).await
            == WaitEnd::Interrupted
        {
            world.lock().stats.window = Some((from, from));
            return;
        }
    }

    let begin = swarm.clock.now().instant;
    let cpu = swarm.watched.and_then(MonitoredServer::cpu);
    let own = own_cpu();
    progress.stage("play", options.duration.as_secs());
    let end = begin + options.duration;
    let mut last = world.lock().stats.delivered_ever;
    let waited = interruptible(&swarm.interruption, async {
        loop {
            let left = end - swarm.clock.now().instant;
            if left.is_zero() {
                return;
            }
            sleep(left.min(TICK * 10)).await;
            let passed = swarm.clock.now().instant.since(begin);
            let shared = world.lock();
            let ever = shared.stats.delivered_ever;
            let counts = shared.checker.counts();
            progress.show(
                passed.as_secs(),
                format!(
                    "s, {}/{} connected, {} deliveries/s, p99 {:.1} ms, {} duplicates, {} out of order",
                    shared.connected,
                    options.players,
                    ever - last,
                    Duration::from_micros(shared.stats.latency.value_at_quantile(0.99)).as_secs_f64() * 1e3,
                    counts.duplicates,
                    counts.out_of_order,
                ),
            );
            last = ever;
        }
    })
    .await;

    let now = swarm.clock.now().instant;
    usage.measured = now.since(begin);
    usage.interrupted = waited == WaitEnd::Interrupted;
    usage.server_cpu =
        swarm.watched.and_then(MonitoredServer::cpu).zip(cpu).map(|(end, begin)| end.saturating_sub(begin));
    usage.bots_cpu = own_cpu().saturating_sub(own);
    if usage.interrupted && options.mode == Mode::Battle {
        world.lock().stats.window = Some((from, now));
    }
}
