//! Interruptions, such as Ctrl-C, which end the current work gracefully.

use std::future::Future;
use std::pin::pin;

use skirmish_core::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Interval of the checks while waiting for a condition.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// End of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    Done,
    Interrupted,
}

/// Source of interruptions: the program's signals.
pub trait Interrupts: Send + 'static {
    /// Waits for the next interruption. Never ready if none can be received.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

/// The interruptions that have not ended any work yet: one at most.
#[derive(Debug, Default)]
pub(super) struct Interruption(Notify);

impl Interruption {
    /// Notes interruptions for as long as the future is polled.
    pub(super) async fn hear(&self, mut interrupts: impl Interrupts) {
        loop {
            interrupts.next().await;
            self.0.notify_one();
        }
    }
}

/// Waits for `work`, or for an interruption.
pub(super) async fn interruptible(interruption: &Interruption, work: impl Future<Output = ()>) -> WaitEnd {
    let work = pin!(work);
    tokio::select! {
        biased;
        () = interruption.0.notified() => WaitEnd::Interrupted,
        () = work => WaitEnd::Done,
    }
}

/// Waits until `done` returns true, with a call every [`TICK`].
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(TICK).await;
    }
}
