//! Open requests of a machine to a registry that several machines share.

use alloc::collections::{BTreeMap, VecDeque};

use super::{CallId, RegistryCommand, Request, Watch, WatchId};

/// Requests of one machine: the open ones in the order of their sending, each with its purpose, and the
/// commands that wait to be polled.
#[derive(Debug)]
pub(crate) struct Calls<T> {
    next: u64,
    step: u64,
    open: BTreeMap<CallId, T>,
    queue: VecDeque<RegistryCommand>,
}

impl<T> Calls<T> {
    /// Creates an empty set. The requests get the identifiers `first`, `first + step` and so on, which no
    /// other machine of the node uses.
    pub(crate) fn new(first: u64, step: u64) -> Self {
        Self { next: first, step: step.max(1), open: BTreeMap::new(), queue: VecDeque::new() }
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(self.step);
        number
    }

    /// Sends a request. The request is open until its purpose is [taken](Self::take).
    pub(crate) fn send(&mut self, request: Request, purpose: T) {
        let id = CallId(self.number());
        self.open.insert(id, purpose);
        self.queue.push_back(RegistryCommand::Request { id, request });
    }

    /// Starts a watch.
    pub(crate) fn watch(&mut self, watch: Watch) -> WatchId {
        let id = WatchId(self.number());
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
    use super::*;

    #[test]
    fn requests_are_given_up_in_the_order_in_which_they_were_sent() {
        let mut calls = Calls::new(7, 3);
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
}
