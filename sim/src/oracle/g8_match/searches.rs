//! Searches of clients, and their ends as clients were notified.

use std::collections::BTreeMap;

use skirmish_core::id::Name;
use skirmish_proto::v1::TicketState;

use super::super::Verdict;
use super::unlike;

/// All searches.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// All searches that clients have begun, by player and number.
    all: BTreeMap<(Name, u64), ObservedSearch>,
    /// The search of each client that has no reported end.
    open: BTreeMap<usize, u64>,
}

/// A search of a player.
#[derive(Debug)]
struct ObservedSearch {
    /// Client that began the search.
    client: usize,
    /// End of the search, as the client was notified.
    end: Option<SearchEnd>,
}

/// End of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SearchEnd {
    Ticket(TicketState),
    /// The search has ended with this match.
    Match(String),
}

impl Searches {
    /// Observes that a client begins a search.
    pub(super) fn begin(&mut self, client: usize, player: &Name, number: u64) -> Verdict {
        if let Some(open) = self.open.insert(client, number) {
            return unlike(format_args!("client {client} begins search {number} while {open} goes on"));
        }
        match self.all.insert((player.clone(), number), ObservedSearch { client, end: None }) {
            Some(_) => unlike(format_args!("client {client} begins search {number} of {player} once more")),
            None => Ok(()),
        }
    }

    /// Forgets the open search of a client, since its new process does not know that search.
    pub(super) fn restarted(&mut self, client: usize) {
        self.open.remove(&client);
    }

    /// Observes that a client was notified of the end of one of its player's searches.
    pub(super) fn end(&mut self, client: usize, player: &Name, number: u64, end: SearchEnd) -> Verdict {
        if let Some(open) = self.open.get(&client).filter(|open| **open != number) {
            return unlike(format_args!(
                "client {client} was told of search {number} that it has ended, {end:?}, and searches by {open}"
            ));
        }
        self.open.remove(&client);
        let Some(search) = self.all.get_mut(&(player.clone(), number)) else {
            return unlike(format_args!(
                "client {client} was told of search {number} that it has ended, {end:?}, which {player} never had"
            ));
        };
        // This message may reach another client of the player late: a match that the searching
        // client has given up since, or the end of a ticket of which the searching client was
        // notified only that the ticket is gone.
        let is_late = search.client != client
            && match &search.end {
                Some(SearchEnd::Ticket(TicketState::GivenUp)) => matches!(end, SearchEnd::Match(_)),
                Some(SearchEnd::Ticket(TicketState::None)) => {
                    matches!(end, SearchEnd::Ticket(TicketState::TimedOut | TicketState::PartyLost))
                }
                _ => false,
            };
        match &search.end {
            Some(_) if is_late => Ok(()),
            Some(known) if *known != end => unlike(format_args!(
                "client {client} was told of search {number} that it has ended, {end:?}, after it had as {known:?}"
            )),
            Some(_) => Ok(()),
            None => {
                // If another client began the search, that client does not know of the end and may
                // go on searching.
                search.end = Some(end).filter(|_| search.client == client);
                Ok(())
            }
        }
    }

    /// Returns true if the client that began the search was notified of an end.
    pub(super) fn has_ended(&self, player: &Name, number: u64) -> bool {
        self.all.get(&(player.clone(), number)).is_some_and(|search| search.end.is_some())
    }

    /// Checks a search whose ticket waits or is consumed: a client must have begun the search, and
    /// must not have been notified of an end.
    pub(super) fn goes_on(
        &self,
        player: &Name,
        number: u64,
        description: std::fmt::Arguments<'_>,
    ) -> Verdict {
        match self.all.get(&(player.clone(), number)) {
            None => unlike(format_args!("{description} by search {number}, which {player} never had")),
            Some(ObservedSearch { client, end: Some(end) }) => unlike(format_args!(
                "{description} by search {number}, of which client {client} was told that it has ended: \
                 {end:?}"
            )),
            Some(_) => Ok(()),
        }
    }
}
