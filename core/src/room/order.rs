//! The order of a member's reliable messages.

/// The place of a reliable message in the sequence of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SayOrder {
    /// The message is the next.
    Next,
    /// The message was taken before.
    Duplicate,
    /// Messages before this one are missing.
    Gap {
        /// The `client_seq` expected.
        expected: u64,
    },
}

impl SayOrder {
    /// Compares the number of a message with that of the last one taken. No other code decides which
    /// `client_seq` is the next.
    pub(crate) const fn of(taken: u64, client_seq: u64) -> Self {
        let expected = taken.saturating_add(1);
        if client_seq > expected {
            Self::Gap { expected }
        } else if client_seq < expected {
            Self::Duplicate
        } else {
            Self::Next
        }
    }
}
