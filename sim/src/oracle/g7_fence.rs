//! G7: after a take-over, nothing that arrives over the old connection is written.

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
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_behind_the_fence_is_caught() {
        assert!(FenceOracle.observe(&Observation::Fenced { client: 1, written: (4, 4) }).is_ok());
        assert!(FenceOracle.observe(&Observation::Fenced { client: 1, written: (4, 5) }).is_err());
    }
}
