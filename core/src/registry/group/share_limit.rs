//! Adapts the size of shared bundles to their failures.

use super::bundle::WIDTH;

/// Answered groups before sharing is tried again.
pub(super) const RETRY: u32 = 32;

/// Maximum number of members of a shared bundle. Halved if more than a quarter of a group's shared bundles
/// fail, doubled if none fails.
#[derive(Debug)]
pub(super) struct ShareLimit {
    size: usize,
    /// Answered groups since sharing was given up.
    unshared: u32,
}

impl Default for ShareLimit {
    fn default() -> Self {
        Self { size: WIDTH, unshared: 0 }
    }
}

impl ShareLimit {
    /// Returns the maximum number of members of a shared bundle; below 2 there is no sharing.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Handles the answer to a group with `shared` shared bundles, of which `failed` failed.
    pub(super) fn handle_answered(&mut self, shared: usize, failed: usize) {
        if self.size < 2 {
            self.unshared += 1;
            if self.unshared >= RETRY {
                *self = Self { size: 2, unshared: 0 };
            }
        } else if failed * 4 > shared {
            *self = Self { size: self.size / 2, unshared: 0 };
        } else if shared > 0 && failed == 0 {
            self.size = (self.size * 2).min(WIDTH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_is_given_up_where_it_fails_and_tried_again() {
        let mut limit = ShareLimit::default();
        assert_eq!(limit.size(), WIDTH);
        limit.handle_answered(8, 1);
        assert_eq!(limit.size(), WIDTH, "it pays nevertheless");
        limit.handle_answered(8, 3);
        assert_eq!(limit.size(), WIDTH / 2);
        limit.handle_answered(0, 0);
        assert_eq!(limit.size(), WIDTH / 2, "nothing was learnt");
        limit.handle_answered(8, 0);
        assert_eq!(limit.size(), WIDTH);
        while limit.size() > 1 {
            limit.handle_answered(1, 1);
        }
        for _ in 1..RETRY {
            limit.handle_answered(0, 0);
            assert_eq!(limit.size(), 1);
        }
        limit.handle_answered(0, 0);
        assert_eq!(limit.size(), 2);
        limit.handle_answered(4, 0);
        assert_eq!(limit.size(), 4);
    }
}
