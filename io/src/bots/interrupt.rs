//! Ctrl-C ends what is going on, gracefully.

use std::future::Future;
use std::pin::pin;

use skirmish_core::time::Duration;
use tokio::time::sleep;

/// How often a condition is looked at while waiting.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Done,
    Interrupted,
}

/// Waits for `work`, or for Ctrl-C.
pub(super) async fn interruptible(work: impl Future<Output = ()>) -> Waited {
    let work = pin!(work);
    tokio::select! {
        biased;
        interrupt = tokio::signal::ctrl_c() => {
            if let Err(error) = interrupt {
                tracing::warn!(%error, "Ctrl-C cannot be heard");
                // Without signals, wait for ever: the process can only be killed.
                std::future::pending::<()>().await;
            }
            Waited::Interrupted
        }
        () = work => Waited::Done,
    }
}

/// Waits until `done` says so, looking every [`TICK`].
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(TICK).await;
    }
}
