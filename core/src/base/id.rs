//! Identifiers: names and numbers.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use subtle::ConstantTimeEq as _;

/// Maximum length of the name of a player or a room, in bytes.
pub const MAX_NAME: usize = 64;

/// Reason why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The text is empty.
    Empty,
    /// The text is longer than [`MAX_NAME`] bytes.
    TooLong,
    /// The text has a character that is none of `A-Z a-z 0-9 . _ : -`.
    BadCharacter,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the name is empty",
            Self::TooLong => "the name is longer than 64 bytes",
            Self::BadCharacter => "the name has a character other than A-Z a-z 0-9 . _ : -",
        })
    }
}

impl core::error::Error for NameError {}

/// Valid name: 1 to [`MAX_NAME`] bytes of `A-Z a-z 0-9 . _ : -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Creates a name from a valid text.
    ///
    /// # Errors
    /// If the text is empty, is too long, or has a character that names must not have.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-')) {
            return Err(NameError::BadCharacter);
        }
        Ok(Self(name.into()))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        Self::from(name.as_str())
    }
}

/// Connection of a node. An identifier is never used twice, so a late event of a closed connection
/// cannot reach the connection that has its slot now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// Returns the connection's slot in the node's table, as an index of tables that are kept
    /// beside the node. Slots are small and dense, and are reused once a connection is gone.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn{}.{}", self.slot, self.generation)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Number of a connection among those that one client process has dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialNumber {
    /// The process.
    pub client: u64,
    /// Number of the dial, from 1; 0 if the client does not number its connections.
    pub dial: u64,
}

impl DialNumber {
    /// Returns true if the other connection is a newer one of the same process. Other connections
    /// cannot be compared: no counter is common to them.
    #[must_use]
    pub const fn is_behind(self, other: Self) -> bool {
        self.dial > 0 && self.client == other.client && self.dial < other.dial
    }

    /// Returns true if the client numbers its connections.
    #[must_use]
    pub const fn is_numbered(self) -> bool {
        self.dial > 0
    }
}

/// Node of a cluster: a number that no other start of any node has ever had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Link of a node to another node. An identifier is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link{}.{}", self.slot, self.generation)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Identifier of a session: 16 unguessable bytes. It resumes the session, together with the
/// player's token. So it is never logged, and comparisons take constant time.
#[derive(Clone, Copy)]
pub struct SessionId(pub(crate) [u8; 16]);

impl SessionId {
    /// Returns an identifier from the wire; `None` if it is not 16 bytes long.
    #[must_use]
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes, for the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SessionId {}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// Network address to which caps apply: an IPv6 address, or an IPv4 address mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// Returns the part of an address to which caps apply. This is a whole IPv4 address in any form
    /// (mapped, or behind the NAT64 prefix of RFC 6052), or the leading bits of an IPv6 address,
    /// since a subscriber owns all addresses that begin with these bits.
    #[must_use]
    pub fn counted(self, ipv6_prefix: u8) -> Self {
        let address = Ipv6Addr::from(self.0);
        let nat64 = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
        if address.to_ipv4_mapped().is_some() {
            return self;
        }
        if let Some(last) = self.0.strip_prefix(&nat64).and_then(|rest| <[u8; 4]>::try_from(rest).ok()) {
            return Self(Ipv4Addr::from(last).to_ipv6_mapped().octets());
        }
        let mask = u128::MAX.checked_shl(128_u32.saturating_sub(ipv6_prefix.into())).unwrap_or(0);
        Self((address.to_bits() & mask).to_be_bytes())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).to_canonical().fmt(f)
    }
}

/// Position of an entry in a room's log: the epoch of the room, and the number of the entry in that
/// epoch, from 1. Cursors are ordered, and a cursor names the same entry for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// Epoch of the room.
    pub epoch: u64,
    /// Number of the entry in the epoch; 0 is before the first entry.
    pub seq: u64,
}
