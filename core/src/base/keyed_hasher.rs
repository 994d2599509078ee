//! Hashers of tables whose keys strangers choose.

use core::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use super::rng::Seed;

/// Hasher keyed from the node's seed, so that strangers cannot choose names that collide.
#[derive(Clone, Debug)]
pub(crate) struct KeyedHasher([u8; 16]);

impl KeyedHasher {
    pub(crate) fn new(seed: Seed) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&seed[..16]);
        Self(key)
    }
}

impl BuildHasher for KeyedHasher {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}
