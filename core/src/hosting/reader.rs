//! Cursors of other nodes in a room.

use alloc::vec::Vec;

use crate::base::slab::Key;

/// Cursors of the node at the other end of a link: in the whole of a room that this node leads;
/// in the state only of a room that this node follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reader {
    /// Number of the last entry that was sent.
    pub(crate) seq: u64,
    /// Version of the last latest message that was sent.
    pub(crate) latest: u64,
    /// Last change of the state that was sent.
    pub(crate) change: u64,
    /// Number of the node's `Attach`.
    pub(crate) attach: u64,
    /// True if the node stores ops, and reads no entries.
    pub(crate) stores: bool,
}

/// The readers of a room, by link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers(Vec<(Key, Reader)>);

impl Readers {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = Key> + '_ {
        self.0.iter().map(|(link, _)| *link)
    }

    pub(super) fn get(&self, link: Key) -> Option<&Reader> {
        self.0.iter().find(|(reads, _)| *reads == link).map(|(_, reader)| reader)
    }

    pub(super) fn get_mut(&mut self, link: Key) -> Option<&mut Reader> {
        self.0.iter_mut().find(|(reads, _)| *reads == link).map(|(_, reader)| reader)
    }

    pub(super) fn iter(&self) -> core::slice::Iter<'_, (Key, Reader)> {
        self.0.iter()
    }

    /// Begins to read after entry `seq`, or the ops if the node `stores` them, and the whole of the
    /// state, for the `Attach` of a number.
    pub(super) fn begin(&mut self, link: Key, seq: u64, attach: u64, stores: bool) {
        let reader = Reader { seq, attach, stores, ..Reader::default() };
        match self.get_mut(link) {
            Some(old) => *old = reader,
            None => self.0.push((link, reader)),
        }
    }

    /// Ends the reading over a link. Returns true if the room was read over it.
    pub(super) fn end(&mut self, link: Key) -> bool {
        let before = self.0.len();
        self.0.retain(|(reads, _)| *reads != link);
        self.0.len() < before
    }

    /// Ends the reading over every link.
    pub(super) fn take(&mut self) -> Vec<Key> {
        core::mem::take(&mut self.0).into_iter().map(|(link, _)| link).collect()
    }
}
