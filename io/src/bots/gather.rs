//! Starts the players one after the other, so that only a limited number connects and joins at a
//! time.

use std::sync::Arc;

use skirmish_core::rng::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use super::interrupt::{WaitEnd, interruptible, until};
use super::progress::Progress;
use super::swarm::Swarm;
use crate::client::Driver;

/// Progress of the players' arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// Players that have arrived.
    pub arrived: u32,
    /// True if a player was refused for good.
    pub refused: bool,
    /// The first error.
    pub trouble: Option<String>,
}

/// Starts all players with `start`, which holds the permit until the player has arrived.
///
/// # Errors
/// If not all players arrive: one was refused for good, or none has arrived for the time of
/// `--patience`.
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
    // Ends when all have arrived, when one is refused for good, or when none has arrived for long.
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
    if waited == WaitEnd::Interrupted {
        return Err(Error::Interrupted);
    }
    let Arrivals { arrived, trouble, .. } = arrivals();
    if arrived < options.players {
        return Err(Error::NotGathered { arrived, players: options.players, trouble });
    }
    Ok(())
}
