//! Searches of clients, and how they ended as that was told.

use std::collections::BTreeMap;

use skirmish_core::id::Name;
use skirmish_proto::v1::TicketState;

use super::super::Verdict;
use super::unlike;

/// All searches.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// Every one that a client has begun, by player and number.
    all: BTreeMap<(Name, u64), ObservedSearch>,
    /// The one of each client that it was not told an end of.
    open: BTreeMap<usize, u64>,
}

/// A search of a player.
#[derive(Debug)]
struct ObservedSearch {
    /// Who has begun it.
    client: usize,
    /// How it ended, as that was told.
    end: Option<SearchEnd>,
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SearchEnd {
    Ticket(TicketState),
    /// With this match.
    Match(String),
}

impl Searches {
    /// A client begins one.
    pub(super) fn begin(&mut self, client: usize, player: &Name, number: u64) -> Verdict {
        if let Some(open) = self.open.insert(client, number) {
            return unlike(format_args!("client {client} begins search {number} while {open} goes on"));
        }
        match self.all.insert((player.clone(), number), ObservedSearch { client, end: None }) {
            Some(_) => unlike(format_args!("client {client} begins search {number} of {player} once more")),
            None => Ok(()),
        }
    }

    /// A client knows nothing any more.
    pub(super) fn restarted(&mut self, client: usize) {
        self.open.remove(&client);
    }

    /// A client was told how a search of its player has ended.
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
        // Another client of the player may hear only now of the match that this one has given up,
        // or how the ticket ended which this one was told is gone.
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
                // Whoever else has begun it does not know, and may go on with it.
                search.end = Some(end).filter(|_| search.client == client);
                Ok(())
            }
        }
    }

    /// Whether the client that has begun it was told an end of it.
    pub(super) fn has_ended(&self, player: &Name, number: u64) -> bool {
        self.all.get(&(player.clone(), number)).is_some_and(|search| search.end.is_some())
    }

    /// A ticket of this search waits, or is consumed: a client has begun it, and was not told
    /// an end.
    pub(super) fn goes_on(&self, player: &Name, number: u64, what: std::fmt::Arguments<'_>) -> Verdict {
        match self.all.get(&(player.clone(), number)) {
            None => unlike(format_args!("{what} by search {number}, which {player} never had")),
            Some(ObservedSearch { client, end: Some(end) }) => unlike(format_args!(
                "{what} by search {number}, of which client {client} was told that it has ended: {end:?}"
            )),
            Some(_) => Ok(()),
        }
    }
}
