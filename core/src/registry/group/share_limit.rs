//! The size of shared bundles, by how often they fail.

use super::bundle::WIDTH;

/// Groups answered until sharing is tried again after it was given up.
pub(super) const RETRY: u32 = 32;

/// Most members of a shared bundle: halved where more than a quarter of the shared bundles of
/// a group fail, doubled where none does.
#[derive(Debug)]
pub(super) struct ShareLimit {
    size: usize,
    /// Groups answered since nothing is shared.
    unshared: u32,
}

impl Default for ShareLimit {
    fn default() -> Self {
        Self { size: WIDTH, unshared: 0 }
    }
}

impl ShareLimit {
    /// Most members of a shared bundle; below 2 nothing is shared.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Notes that a group was answered, with so many shared bundles of which so many failed.
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
