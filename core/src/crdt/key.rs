//! Names of entries, in the canonical encoding that the Merkle tree hashes.

use alloc::sync::Arc;
use core::borrow::Borrow;

use skirmish_proto::v1;

use super::StateError;

/// Maximum length of an owner, and of the name of an entry, in bytes.
pub const MAX_STATE_NAME: usize = 64;

/// The canonical encoding of an entry's name: the domain (1 byte, the number in
/// `state.proto`), the length of the owner (1 byte), the owner, the name, and, for a
/// counter's share, its replica (8 bytes, big-endian).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StateKey(Arc<[u8]>);

impl From<&[u8]> for StateKey {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Borrow<[u8]> for StateKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl StateKey {
    /// Returns the key of an entry from the wire; `None` if the domain, the owner or the name is
    /// invalid.
    pub(crate) fn of(entry: &v1::StateEntry) -> Option<Self> {
        KeyBuf::of(entry).ok().map(|key| Self::from(key.as_bytes()))
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts::of(&self.0)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A key on the stack, for looking entries up.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyBuf {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl KeyBuf {
    const MAX: usize = 2 + 2 * MAX_STATE_NAME + 8;

    pub(super) fn presence(player: &str) -> Result<Self, StateError> {
        Self::new(v1::Domain::Presence, player, "")
    }

    pub(super) fn property(owner: &str, name: &str) -> Result<Self, StateError> {
        Self::new(v1::Domain::Property, owner, name)
    }

    pub(super) fn share(owner: &str, name: &str, replica: u64) -> Result<Self, StateError> {
        let mut key = Self::new(v1::Domain::Counter, owner, name)?;
        key.push(&replica.to_be_bytes());
        Ok(key)
    }

    pub(super) fn of(entry: &v1::StateEntry) -> Result<Self, StateError> {
        match entry.domain() {
            v1::Domain::Presence if entry.name.is_empty() => Self::presence(&entry.owner),
            v1::Domain::Property => Self::property(&entry.owner, &entry.name),
            v1::Domain::Counter => Self::share(&entry.owner, &entry.name, entry.replica),
            v1::Domain::Presence | v1::Domain::Unspecified => Err(StateError::Malformed),
        }
    }

    /// Returns the common prefix of the keys of an owner in a domain. Such keys are adjacent in
    /// their order.
    pub(super) fn owner(domain: v1::Domain, owner: &str) -> Result<Self, StateError> {
        Self::new(domain, owner, "")
    }

    /// Returns the common prefix of the keys of a domain.
    pub(super) fn domain(domain: v1::Domain) -> Self {
        let mut key = Self { bytes: [0; Self::MAX], len: 0 };
        key.push(&[domain as u8]);
        key
    }

    pub(super) fn is_share(&self) -> bool {
        self.bytes.first() == Some(&(v1::Domain::Counter as u8))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn new(domain: v1::Domain, owner: &str, name: &str) -> Result<Self, StateError> {
        if owner.is_empty() || owner.len() > MAX_STATE_NAME || name.len() > MAX_STATE_NAME {
            return Err(StateError::Malformed);
        }
        let mut key = Self::domain(domain);
        // The checks above bound the length, so the key fits.
        key.push(&[owner.len() as u8]);
        key.push(owner.as_bytes());
        key.push(name.as_bytes());
        Ok(key)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// Fields of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) domain: v1::Domain,
    pub(super) owner: &'a str,
    pub(super) name: &'a str,
    /// Replica of a counter's share; 0 for other entries.
    pub(super) replica: u64,
}

impl<'a> Parts<'a> {
    /// Splits a key into its fields. The key MUST NOT be that of a whole counter, which is the key
    /// of a share without its replica: the last 8 bytes would be taken for a replica.
    pub(super) fn of(key: &'a [u8]) -> Self {
        let domain = key.first().map_or(0, |&domain| i32::from(domain));
        let domain = v1::Domain::try_from(domain).unwrap_or_default();
        let (key, replica) = match (domain, key.split_last_chunk::<8>()) {
            (v1::Domain::Counter, Some((rest, replica))) => (rest, u64::from_be_bytes(*replica)),
            _ => (key, 0),
        };
        let (owner, name) = owner_and_name(key);
        Self { domain, owner, name, replica }
    }
}

/// Returns the owner and the name of a key without replica.
pub(super) fn owner_and_name(key: &[u8]) -> (&str, &str) {
    let text = |bytes| core::str::from_utf8(bytes).unwrap_or_default();
    match key {
        [_, len, rest @ ..] => {
            let (owner, name) = rest.split_at(rest.len().min(usize::from(*len)));
            (text(owner), text(name))
        }
        _ => ("", ""),
    }
}

/// Returns the key of the counter that a share belongs to.
pub(super) fn counter_of(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<8>().map_or(key, |(counter, _)| counter)
}

/// Checks that an entry has the fields that its domain requires, and no others.
pub(super) fn check_form(entry: &v1::StateEntry) -> Result<(), StateError> {
    let stamp_is_sound = entry.stamp.as_ref().is_some_and(|stamp| stamp.wall_ms <= super::MAX_WALL_MS);
    let sound = match entry.domain() {
        v1::Domain::Presence => stamp_is_sound && entry.value.is_empty(),
        v1::Domain::Property => {
            let longest = if entry.removed { 0 } else { super::MAX_VALUE };
            stamp_is_sound && entry.value.len() <= longest
        }
        v1::Domain::Counter => entry.stamp.is_none() && !entry.removed && entry.value.is_empty(),
        v1::Domain::Unspecified => false,
    };
    if sound { Ok(()) } else { Err(StateError::Malformed) }
}
