//! What a player wants, and how what it wanted before has ended.

use alloc::boxed::Box;
use alloc::string::String;

use skirmish_proto::v1;

/// What the player wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    Nothing,
    Queue {
        queue: Box<v1::Queue>,
        /// Unix milliseconds.
        queued_ms: u64,
    },
    Cancel {
        mode: String,
        /// The number of the search, or 0 for any.
        search: u64,
        /// There is something to take back: its `Queue` was taken, or a ticket of it was seen.
        found: bool,
    },
}

/// How a search has ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    /// What is told of it; if it ended with a match, once that is over.
    pub(super) queued: v1::Queued,
    /// The match.
    pub(super) pair: Option<String>,
}

impl Wish {
    /// The number of the search that it is about, 0 if that has none.
    pub(super) fn search(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Queue { queue, .. } => Some(queue.search),
            Self::Cancel { search, .. } => Some(*search),
        }
    }

    /// Whether it is about another search than that of a ticket; to take back whichever there
    /// is, is not.
    pub(super) fn is_of_other(&self, ticket: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Queue { queue, .. } => queue.search != ticket,
            Self::Cancel { search, .. } => *search != 0 && *search != ticket,
        }
    }
}

impl Ended {
    /// Whether it is how the search of this number ended.
    pub(super) const fn is_of(&self, search: u64) -> bool {
        self.queued.search == search
    }
}
