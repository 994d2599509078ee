//! A bounded number of tasks, of which the newest always has a place.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::{AbortHandle, yield_now};

/// Tasks that strangers can make slow. A task above the bound ends the oldest one: a slow peer
/// loses its own place, and delays no other peer.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    tasks: VecDeque<AbortHandle>,
    /// Tasks ended for newer ones.
    ended: u64,
}

impl Places {
    /// Creates places for `most` tasks.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, tasks: VecDeque::new(), ended: 0 }
    }

    /// Starts a task, and lets it run once before the next one can start: a task that has all its
    /// input does not lose its place to a crowd of later ones.
    #[cfg_attr(madsim, allow(dead_code, reason = "the admin listener is not simulated"))]
    pub(super) async fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.start(task);
        yield_now().await;
    }

    /// Starts a task.
    pub(super) fn start(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        if self.is_full() {
            self.end_oldest();
        }
        self.tasks.push_back(tokio::spawn(task).abort_handle());
    }

    /// Returns true if one more task would end the oldest.
    pub(super) fn is_full(&mut self) -> bool {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.len() >= self.most
    }

    /// Ends the oldest task. Returns true if there was one.
    pub(super) fn end_oldest(&mut self) -> bool {
        let oldest = std::iter::from_fn(|| self.tasks.pop_front()).find(|task| !task.is_finished());
        let Some(oldest) = oldest else { return false };
        oldest.abort();
        self.ended += 1;
        true
    }

    /// Returns the number of tasks that were ended for newer ones.
    #[cfg_attr(madsim, allow(dead_code, reason = "the admin listener is not simulated"))]
    pub(super) const fn ended(&self) -> u64 {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_newest_has_a_place_and_the_oldest_loses_it() {
        let mut places = Places::new(2);
        let (alive, mut ends) = mpsc::unbounded_channel::<u32>();
        for number in 0..5 {
            let alive = Alive(number, alive.clone());
            places
                .spawn(async move {
                    let _alive = alive;
                    pending().await
                })
                .await;
        }
        assert_eq!((places.tasks.len(), places.ended()), (2, 3));
        assert_eq!((ends.recv().await, ends.recv().await, ends.recv().await), (Some(0), Some(1), Some(2)));
        assert!(ends.try_recv().is_err());
    }

    #[tokio::test]
    async fn tasks_that_are_done_take_no_place() {
        let mut places = Places::new(2);
        places.spawn(pending()).await;
        for _ in 0..10 {
            places.spawn(async {}).await;
        }
        assert_eq!(places.ended(), 0);
        assert!(places.end_oldest() && !places.end_oldest());
    }

    /// Sends its number when it is dropped.
    struct Alive(u32, mpsc::UnboundedSender<u32>);

    impl Drop for Alive {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }
}
