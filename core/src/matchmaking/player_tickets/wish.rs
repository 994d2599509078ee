//! Wishes of a player, and the ends of earlier searches.

use alloc::boxed::Box;
use alloc::string::String;

use skirmish_proto::v1;

/// Current wish of a player.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    Nothing,
    Queue {
        queue: Box<v1::Queue>,
        /// Start of the waiting time, in Unix milliseconds.
        queued_ms: u64,
    },
    Cancel {
        mode: String,
        /// Number of the search, or 0 for any.
        search: u64,
        /// True if there is a search to cancel: its `Queue` was accepted, or a ticket of the search
        /// was seen.
        found: bool,
    },
}

/// End of a search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    /// Message about the end. If the search ended with a match, it is sent once the match is over.
    pub(super) queued: v1::Queued,
    /// Name of the match.
    pub(super) match_id: Option<String>,
}

impl Wish {
    /// Returns the number of the search that the wish concerns; 0 for a search without a number.
    pub(super) fn search(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Queue { queue, .. } => Some(queue.search),
            Self::Cancel { search, .. } => Some(*search),
        }
    }

    /// Returns true if the wish concerns another search than that of a ticket. A `Cancel` of any
    /// search concerns every ticket.
    pub(super) fn is_of_other(&self, ticket: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Queue { queue, .. } => queue.search != ticket,
            Self::Cancel { search, .. } => *search != 0 && *search != ticket,
        }
    }
}

impl Ended {
    /// Returns true if this is the end of the search with this number.
    pub(super) const fn is_of(&self, search: u64) -> bool {
        self.queued.search == search
    }
}
