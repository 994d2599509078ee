//! Bytes to messages and back: frames, compression, sealing (rows W2 to W5).
//!
//! A received buffer becomes a [`Frame`] ([`Frame::decode`] for a buffer that is
//! one frame, [`Decoder`] for a byte stream), is opened ([`seal::Seal::open`]) and
//! inflated ([`Zstd::inflate`]) if its flags say so, and is decoded by its kind
//! ([`ToServer`], [`ToClient`]). A sent message takes the way back: [`encode()`],
//! [`Zstd::deflate`], [`seal::Seal::seal`]. The payload of a plain frame, and every
//! `bytes` field in it, stays a slice of the buffer that was received.
//!
//! The layout of a frame is the head of `proto/skirmish/v1/frame.proto`.

mod checksum;
mod compress;
mod decoder;
mod encode;
mod error;
mod frame;
pub(crate) mod items;
mod link;
mod message;
pub mod seal;
#[cfg(test)]
mod tests;
mod trace;

pub use compress::Zstd;
pub use decoder::Decoder;
pub use encode::{encode, encode_bytes};
pub use error::{FaultSide, WireError};
pub use frame::{FLAG_SEALED, FLAG_ZSTD, Frame, HEADER_LEN, MAGIC, MAX_METADATA, TRAILER_LEN, VERSION};
pub use link::{RoomMessage, ToNode};
pub(crate) use message::MAX_JOINS;
pub use message::{MAX_TYPE_URL, ToClient, ToServer};
pub use trace::Trace;
pub(crate) use trace::plain_trace;
