//! Numbers and open requests of machines that share one connection to a registry.

use alloc::collections::{BTreeMap, VecDeque};

use super::{CallId, RegistryCommand, RegistryEvent, Request, Watch, WatchId};

/// Machine of a node that has made a call to the registry. The machines share the node's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOrigin {
    Registrar = 0,
    PlayerTickets = 1,
    Matcher = 2,
}

impl CallOrigin {
    const COUNT: u64 = 3;

    /// Returns the machine that an event is for. Only the registrar handles new connections.
    pub(crate) const fn of(event: &RegistryEvent) -> Self {
        let number = match event {
            RegistryEvent::Reply { id, .. } => id.0,
            RegistryEvent::Watched(watched) => watched.id.0,
            RegistryEvent::Connected { .. } => return Self::Registrar,
        };
        match number % Self::COUNT {
            0 => Self::Registrar,
            1 => Self::PlayerTickets,
            _ => Self::Matcher,
        }
    }

    /// Returns all numbers of the machine. Must be called once for each machine of a node.
    pub(crate) const fn numbers(self) -> CallNumbers {
        CallNumbers::new(self as u64, Self::COUNT)
    }
}

/// Numbers of the requests and watches of one machine. No other machine with the same connection to the
/// registry has any of them.
#[derive(Debug)]
pub struct CallNumbers {
    next: u64,
    step: u64,
}

impl CallNumbers {
    /// Creates the numbers `first`, `first + step` and so on.
    #[must_use]
    pub const fn new(first: u64, step: u64) -> Self {
        Self { next: first, step }
    }

    /// Splits the numbers among this many parts of the machine.
    pub(crate) fn split(self, parts: u64) -> impl Iterator<Item = Self> {
        (0..parts).map(move |part| Self::new(self.next + part * self.step, self.step * parts))
    }

    const fn take(&mut self) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(self.step);
        number
    }
}

/// Requests of one machine: the open ones in the order of their sending, each with its purpose, and the
/// commands that wait to be polled.
#[derive(Debug)]
pub(crate) struct Calls<T> {
    numbers: CallNumbers,
    open: BTreeMap<CallId, T>,
    queue: VecDeque<RegistryCommand>,
}

impl<T> Calls<T> {
    /// Creates an empty set. The requests and watches get these numbers.
    pub(crate) const fn new(numbers: CallNumbers) -> Self {
        Self { numbers, open: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// Sends a request. The request is open until its purpose is [taken](Self::take).
    pub(crate) fn send(&mut self, request: Request, purpose: T) {
        let id = CallId(self.numbers.take());
        self.open.insert(id, purpose);
        self.queue.push_back(RegistryCommand::Request { id, request });
    }

    /// Starts a watch.
    pub(crate) fn watch(&mut self, watch: Watch) -> WatchId {
        let id = WatchId(self.numbers.take());
        self.queue.push_back(RegistryCommand::Watch { id, watch });
        id
    }

    /// Ends a watch.
    pub(crate) fn unwatch(&mut self, id: WatchId) {
        self.queue.push_back(RegistryCommand::Unwatch(id));
    }

    /// Closes an answered request and returns its purpose; `None` if the request is not open or belongs to
    /// another machine.
    pub(crate) fn take(&mut self, id: CallId) -> Option<T> {
        self.open.remove(&id)
    }

    /// Returns the purpose of the oldest open request.
    pub(crate) fn oldest(&self) -> Option<&T> {
        self.open.first_key_value().map(|(_, purpose)| purpose)
    }

    /// Gives up the oldest open request if the condition holds for its purpose; its answer will be ignored.
    pub(crate) fn take_oldest_if(&mut self, is_over: impl FnOnce(&T) -> bool) -> Option<T> {
        let oldest = self.open.first_entry()?;
        is_over(oldest.get()).then(|| oldest.remove())
    }

    /// Gives up all requests. The registry may execute them nevertheless.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }

    /// Returns the number of open requests.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns the next command for the registry.
    pub(crate) fn poll(&mut self) -> Option<RegistryCommand> {
        self.queue.pop_front()
    }

    /// Returns true if a command waits to be polled.
    pub(crate) fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::super::{Failure, News, Watched};
    use super::*;

    #[test]
    fn requests_are_given_up_in_the_order_in_which_they_were_sent() {
        let mut calls = Calls::new(CallNumbers::new(7, 3));
        for purpose in ["first", "second", "third"] {
            calls.send(Request::Compact { revision: 1 }, purpose);
        }
        assert_eq!((calls.oldest(), calls.len()), (Some(&"first"), 3));
        assert_eq!(calls.take_oldest_if(|_| false), None);
        assert_eq!(calls.take_oldest_if(|oldest| *oldest == "first"), Some("first"));
        assert!(calls.take(CallId(7)).is_none(), "it is given up for good");
        assert_eq!(calls.take(CallId(10)), Some("second"));
        calls.forget();
        assert_eq!((calls.len(), calls.take(CallId(13))), (0, None));
        let ids = core::iter::from_fn(|| calls.poll()).filter_map(|call| match call {
            RegistryCommand::Request { id, .. } => Some(id.0),
            RegistryCommand::Watch { .. } | RegistryCommand::Unwatch(_) => None,
        });
        assert!(ids.eq([7, 10, 13]));
    }

    #[test]
    fn an_answer_finds_the_machine_that_asked_and_no_number_is_given_twice() {
        let askers = [CallOrigin::Registrar, CallOrigin::PlayerTickets, CallOrigin::Matcher];
        let mut given = BTreeSet::new();
        for asker in askers {
            for mut numbers in asker.numbers().split(4) {
                for _ in 0..5 {
                    let number = numbers.take();
                    assert!(given.insert(number), "{number}");
                    let outcome = Err(Failure::Unavailable);
                    let reply = RegistryEvent::Reply { id: CallId(number), outcome };
                    let (id, revision, news) = (WatchId(number), 1, News::Progress);
                    let report = RegistryEvent::Watched(Watched { id, revision, news });
                    assert_eq!([CallOrigin::of(&reply), CallOrigin::of(&report)], [asker; 2]);
                }
            }
        }
        assert_eq!(given.len(), 60);
    }
}
