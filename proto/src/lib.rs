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
