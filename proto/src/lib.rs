//! The messages of Skirmish, as prost makes them from `skirmish/v1/*.proto`.
//!
//! The `.proto` files are the documentation of the protocol, message by message;
//! what stands around a payload is described at the top of `frame.proto`. Every
//! `bytes` field is a [`bytes::Bytes`]: decoded from a `Bytes`, it is a slice of
//! the buffer that was received and copies nothing.
#![no_std]

extern crate alloc;

/// Package `skirmish.v1`.
#[allow(missing_docs, clippy::all, unused_qualifications, reason = "generated from documented .proto files")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skirmish.v1.rs"));
}

impl core::fmt::Debug for v1::Queue {
    /// Shows everything but the party's key.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Queue")
            .field("mode", &self.mode)
            .field("party", &self.party)
            .field("party_size", &self.party_size)
            .field("party_key", &if self.party_key.is_empty() { "none" } else { "secret" })
            .field("rating", &self.rating)
            .field("latencies", &self.latencies)
            .field("attributes", &self.attributes)
            .field("conditions", &self.conditions)
            .field("search", &self.search)
            .field("session_epoch", &self.session_epoch)
            .finish()
    }
}
