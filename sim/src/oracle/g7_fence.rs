//! G7: after a take-over, nothing that arrives over the old connection is written. The newest connection
//! of a client is not taken over by an older one.

use super::{Guarantee, Observation, Verdict, broken};

/// Oracle without memory, since the world says which connections were taken over.
#[derive(Debug, Default)]
pub(super) struct FenceOracle;

impl FenceOracle {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Fenced { client, written: (before, after) } if before != after => broken(
                Guarantee::Fence,
                format_args!(
                    "a frame of client {client} was written although its connection had been taken over"
                ),
            ),
            Observation::TakenOver { client_life, by_another: false } => broken(
                Guarantee::Fence,
                format_args!(
                    "the connection of {client_life} was taken over, but it is the newest, and the player has no \
                     other client"
                ),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::ClientLife;

    #[test]
    fn a_write_behind_the_fence_is_caught() {
        assert!(FenceOracle.observe(&Observation::Fenced { client: 1, written: (4, 4) }).is_ok());
        assert!(FenceOracle.observe(&Observation::Fenced { client: 1, written: (4, 5) }).is_err());
    }

    #[test]
    fn a_take_over_by_an_older_connection_is_caught() {
        let client_life = ClientLife { client: 1, life: 0 };
        let taken_over = |by_another| Observation::TakenOver { client_life, by_another };
        assert!(FenceOracle.observe(&taken_over(true)).is_ok());
        assert!(FenceOracle.observe(&taken_over(false)).is_err());
    }
}
