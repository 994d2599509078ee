//! An interruption, such as Ctrl-C, ends what is going on, gracefully.

use std::future::Future;
use std::pin::pin;

use skirmish_core::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How often a condition is looked at while waiting.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Done,
    Interrupted,
}

/// Hears of interruptions: the program's signals.
pub trait Interrupts: Send + 'static {
    /// Waits for the next one. Never ready if none can be heard.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

/// Interruptions that nothing has been ended by yet: one at most.
#[derive(Debug, Default)]
pub(super) struct Interruption(Notify);

impl Interruption {
    /// Takes note of interruptions for as long as it is polled.
    pub(super) async fn hear(&self, mut interrupts: impl Interrupts) {
        loop {
            interrupts.next().await;
            self.0.notify_one();
        }
    }
}

/// Waits for `work`, or for an interruption.
pub(super) async fn interruptible(interruption: &Interruption, work: impl Future<Output = ()>) -> Waited {
    let work = pin!(work);
    tokio::select! {
        biased;
        () = interruption.0.notified() => Waited::Interrupted,
        () = work => Waited::Done,
    }
}

/// Waits until `done` says so, looking every [`TICK`].
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(TICK).await;
    }
}
