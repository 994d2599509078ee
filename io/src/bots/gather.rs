//! Starts the players one after the other, so that never too many are on their way in.

use std::sync::Arc;

use skirmish_core::rng::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use super::interrupt::{Waited, interruptible, until};
use super::progress::Progress;
use super::swarm::Swarm;
use crate::client::Driver;

/// How far the players are.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// Players who are there.
    pub arrived: u32,
    /// One was refused for good.
    pub refused: bool,
    /// The first thing that went wrong.
    pub trouble: Option<String>,
}

/// Starts all players with `start`, which holds the permit until the player is there.
///
/// # Errors
/// If not all came: one was refused, or nobody has come for long.
pub(super) async fn gather(
    swarm: &Swarm,
    progress: &Progress,
    mut start: impl FnMut(u32, Driver, Rng, OwnedSemaphorePermit),
    arrivals: impl Fn() -> Arrivals,
) -> Result<(), Error> {
    let options = &swarm.options;
    progress.stage("gather", u64::from(options.players));
    let doors = Arc::new(Semaphore::new(options.connect_inflight as usize));
    let start = async {
        for index in 0..options.players {
            let Ok(permit) = Arc::clone(&doors).acquire_owned().await else { return };
            let mut rng = swarm.rng(u64::from(index));
            let driver = swarm.driver(index, &mut rng);
            start(index, driver, rng, permit);
        }
        std::future::pending::<()>().await;
    };
    // Over when all are there, when one is refused for good, or when nobody has come for long.
    let watch = async {
        let (mut arrived, mut since) = (0, swarm.clock.now().instant);
        until(|| {
            let arrivals = arrivals();
            let now = swarm.clock.now().instant;
            if arrivals.arrived > arrived {
                (arrived, since) = (arrivals.arrived, now);
            }
            progress.show(u64::from(arrived), arrivals.trouble.unwrap_or_default());
            arrived >= options.players || arrivals.refused || now.since(since) > options.patience
        })
        .await;
    };
    let waited = interruptible(&swarm.interruption, async {
        tokio::select! {
            biased;
            () = start => {}
            () = watch => {}
        }
    })
    .await;
    if waited == Waited::Interrupted {
        return Err(Error::Interrupted);
    }
    let Arrivals { arrived, trouble, .. } = arrivals();
    if arrived < options.players {
        return Err(Error::NotGathered { arrived, players: options.players, trouble });
    }
    Ok(())
}
