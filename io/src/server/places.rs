//! A bounded number of tasks, of which the newest always has a place.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::{AbortHandle, yield_now};

/// Tasks that strangers can make slow. One beyond the bound ends the oldest: a peer that takes
/// its time loses its own place, and nobody else waits for it.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    tasks: VecDeque<AbortHandle>,
    /// Tasks ended for newer ones.
    ended: u64,
}

impl Places {
    /// Places for so many tasks.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, tasks: VecDeque::new(), ended: 0 }
    }

    /// Starts a task, and lets it run once before there can be another: one that has all that
    /// it needs does not lose its place to a crowd behind it.
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

    /// Whether one more task ends the oldest.
    pub(super) fn is_full(&mut self) -> bool {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.len() >= self.most
    }

    /// Ends the task that has run for the longest. Whether there was one.
    pub(super) fn end_oldest(&mut self) -> bool {
        let oldest = std::iter::from_fn(|| self.tasks.pop_front()).find(|task| !task.is_finished());
        let Some(oldest) = oldest else { return false };
        oldest.abort();
        self.ended += 1;
        true
    }

    /// Tasks ended for newer ones.
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
            let alive = Told(number, alive.clone());
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

    /// Says its number when it is dropped.
    struct Told(u32, mpsc::UnboundedSender<u32>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }
}
