//! The bounded queue of events between a client's task and its application.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use skirmish_core::client::Event;

use super::error::DialError;

/// The events of a client, in order. Reading them lets the client read on from its socket.
#[derive(Debug)]
pub struct Events(Arc<SharedEvents>);

/// The task's end of the queue.
#[derive(Debug)]
pub(super) struct Feed(Arc<SharedEvents>);

#[derive(Debug)]
struct SharedEvents(Mutex<EventQueue>);

#[derive(Debug)]
struct EventQueue {
    events: VecDeque<Event>,
    capacity: usize,
    /// Waker of the task that waits for an event.
    reader: Option<Waker>,
    /// Waker of the client's task, while that task waits for a place.
    writer: Option<Waker>,
    /// True if the application has dropped its end.
    unread: bool,
    /// True if the client's task has ended, with `error` if there was one.
    ended: bool,
    error: Option<DialError>,
}

/// Creates a queue that is full at `capacity` events.
pub(super) fn event_queue(capacity: usize) -> (Feed, Events) {
    let queue = EventQueue {
        events: VecDeque::new(),
        capacity: capacity.max(1),
        reader: None,
        writer: None,
        unread: false,
        ended: false,
        error: None,
    };
    let shared = Arc::new(SharedEvents(Mutex::new(queue)));
    (Feed(Arc::clone(&shared)), Events(shared))
}

impl SharedEvents {
    fn lock(&self) -> MutexGuard<'_, EventQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// Returns the next event; `None` once the client has ended and every event was read.
    /// Cancel-safe: an event is removed only when it is returned.
    pub async fn next_event(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        let mut queue = self.0.lock();
        let event = queue.events.pop_front();
        queue.make_place();
        event
    }

    /// Polls for the next event, like [`Self::next_event`].
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = self.0.lock();
        if let Some(event) = queue.events.pop_front() {
            queue.make_place();
            return Poll::Ready(Some(event));
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns, once, the error that has ended the client: its server has refused the client.
    pub fn take_error(&mut self) -> Option<DialError> {
        self.0.lock().error.take()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.unread = true;
        queue.events = VecDeque::new();
        queue.make_place();
    }
}

impl Feed {
    /// Adds an event. Dropped if the application has dropped its end.
    pub(super) fn push(&self, event: Event) {
        let mut queue = self.0.lock();
        if queue.unread {
            return;
        }
        queue.events.push_back(event);
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }

    /// Ready while the queue is not full.
    pub(super) fn poll_place(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.unread || queue.events.len() < queue.capacity {
            return Poll::Ready(());
        }
        queue.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the queue: no more events follow.
    pub(super) fn end(&self, error: Option<DialError>) {
        let mut queue = self.0.lock();
        queue.ended = true;
        queue.error = error;
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.ended = true;
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }
}

impl EventQueue {
    /// Wakes the task once half of the queue is free, so that the task reads in batches.
    fn make_place(&mut self) {
        if self.events.len() <= self.capacity / 2
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(room: &str) -> Event {
        Event::State { room: room.to_owned() }
    }

    #[test]
    fn a_full_queue_has_no_place_until_half_of_it_was_read() {
        let (feed, mut events) = event_queue(4);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..4 {
            assert!(feed.poll_place(&mut cx).is_ready());
            feed.push(event("a"));
        }
        assert!(feed.poll_place(&mut cx).is_pending());
        assert!(events.try_next().is_some());
        assert!(feed.0.lock().writer.is_some(), "woken too early");
        assert!(events.try_next().is_some());
        assert!(feed.0.lock().writer.is_none(), "not woken");
        assert!(feed.poll_place(&mut cx).is_ready());
    }

    #[test]
    fn events_come_in_order_then_the_end() {
        let (feed, mut events) = event_queue(4);
        let mut cx = Context::from_waker(Waker::noop());
        feed.push(event("a"));
        feed.push(event("b"));
        feed.end(Some(DialError::Forbidden));
        drop(feed);
        assert_eq!(events.poll_event(&mut cx), Poll::Ready(Some(event("a"))));
        assert_eq!(events.poll_event(&mut cx), Poll::Ready(Some(event("b"))));
        assert_eq!(events.poll_event(&mut cx), Poll::Ready(None));
        assert!(matches!(events.take_error(), Some(DialError::Forbidden)));
    }

    #[test]
    fn without_a_reader_events_are_forgotten_and_never_block() {
        let (feed, events) = event_queue(1);
        let mut cx = Context::from_waker(Waker::noop());
        feed.push(event("a"));
        assert!(feed.poll_place(&mut cx).is_pending());
        drop(events);
        feed.push(event("b"));
        assert!(feed.poll_place(&mut cx).is_ready());
        assert!(feed.0.lock().events.is_empty());
    }
}
