//! Conversion of bytes to messages and back: frames, compression, sealing (rows W2 to W5).
//!
//! A received buffer is converted in these steps:
//!
//! 1. [`Frame::decode`] makes a [`Frame`] of a buffer with one frame; [`Decoder`] makes frames of a
//!    byte stream.
//! 2. [`seal::Seal::open`] opens a sealed frame, and [`Zstd::inflate`] inflates a compressed one.
//! 3. [`ToServer`], [`ToClient`] or [`ToNode`] decodes the payload by the frame's kind.
//!
//! A message that is sent takes the reverse steps: [`encode()`], [`Zstd::deflate`],
//! [`seal::Seal::seal`]. The payload of a plain frame, and every `bytes` field in the payload,
//! stays a slice of the received buffer.
//!
//! The layout of a frame is described at the head of `proto/skirmish/v1/frame.proto`.

mod checksum;
mod compress;
mod decoder;
mod encode;
mod error;
mod frame;
mod link;
mod message;
pub(crate) mod repeated_fields;
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
