//! Errors of frames.

use core::fmt;

use skirmish_proto::v1::Kind;

/// Side that is at fault for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultSide {
    /// The peer broke the protocol, or the bytes were changed between the peers.
    Misbehaved,
    /// The peer speaks a version of the protocol, or uses a feature of it, that this
    /// side does not know.
    Incompatible,
    /// The caller on this side used the module against its documentation.
    Caller,
}

/// Error of a frame, or of its decoding or encoding; one variant for each cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The first four bytes are not the magic number.
    BadMagic,
    /// The version is not [`super::VERSION`].
    UnknownVersion(u16),
    /// Flags without a meaning are set; the value is all flags.
    ReservedFlags(u16),
    /// The metadata is longer than [`super::MAX_METADATA`].
    MetadataTooLong(u16),
    /// The protocol has no such kind.
    UnknownKind(u16),
    /// The whole frame would have this length, which is more than this side accepts.
    FrameTooLong(u64),
    /// The bytes end before the frame ends.
    Truncated,
    /// Bytes follow the frame in a buffer that should hold exactly one.
    TrailingBytes,
    /// The checksum does not fit the bytes.
    BadChecksum,
    /// The metadata is not a `Metadata`.
    BadMetadata,
    /// The payload is not the message that the kind names.
    BadPayload(Kind),
    /// A field of fixed or limited size has another size. The value names the message and the
    /// field.
    BadFieldLength(&'static str),
    /// A repeated field has more elements than a message may carry. The value names the message and
    /// the field.
    TooManyItems(&'static str),
    /// An application message does not state its type.
    NoTypeUrl,
    /// A message of this kind is never sent in this direction.
    WrongDirection(Kind),
    /// The payload is sealed where it must not be: no seal was agreed, or the frame was not opened
    /// before.
    StillSealed,
    /// The payload is compressed where it must not be, or must not be any more.
    StillCompressed,
    /// The payload is not one intact zstd frame.
    BadCompression,
    /// The payload is a skippable zstd frame, which has no content.
    SkippableCompression,
    /// Bytes follow the zstd frame, such as another one.
    TrailingCompression,
    /// The zstd frame needs a dictionary.
    CompressionDictionary,
    /// The zstd frame has a window of this many bytes, which is more than this side accepts.
    CompressionWindow(u64),
    /// The zstd frame does not state the size of its content.
    NoContentSize,
    /// The payload would inflate to this many bytes, which is more than this side accepts.
    InflatedTooLong(u64),
    /// A seal was agreed, but the frame is not sealed.
    NotSealed,
    /// The sealed payload, the header or the metadata was changed; or the frame was lost, repeated
    /// or moved; or another key has sealed it.
    NotAuthentic,
    /// A public key is not 32 bytes long.
    BadPublicKey,
    /// A public key is a point of small order: the shared secret would not depend on the other key.
    WeakPublicKey,
    /// All the nonces of this direction are used up.
    SealExhausted,
    /// The input of compression or sealing is not a frame that this side has encoded, or was
    /// compressed or sealed already in an order that does not work.
    NotAFrame,
    /// More bytes were pushed before all frames of the last push were polled.
    NotDrained,
}

impl WireError {
    /// Returns the side that is at fault.
    #[must_use]
    pub const fn fault(&self) -> FaultSide {
        match self {
            Self::UnknownVersion(_) | Self::ReservedFlags(_) | Self::UnknownKind(_) => {
                FaultSide::Incompatible
            }
            Self::SealExhausted | Self::NotAFrame | Self::NotDrained => FaultSide::Caller,
            Self::BadMagic
            | Self::MetadataTooLong(_)
            | Self::FrameTooLong(_)
            | Self::Truncated
            | Self::TrailingBytes
            | Self::BadChecksum
            | Self::BadMetadata
            | Self::BadPayload(_)
            | Self::BadFieldLength(_)
            | Self::TooManyItems(_)
            | Self::NoTypeUrl
            | Self::WrongDirection(_)
            | Self::StillSealed
            | Self::StillCompressed
            | Self::BadCompression
            | Self::SkippableCompression
            | Self::TrailingCompression
            | Self::CompressionDictionary
            | Self::CompressionWindow(_)
            | Self::NoContentSize
            | Self::InflatedTooLong(_)
            | Self::NotSealed
            | Self::NotAuthentic
            | Self::BadPublicKey
            | Self::WeakPublicKey => FaultSide::Misbehaved,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic => f.write_str("the bytes are not a frame: wrong magic number"),
            Self::UnknownVersion(version) => write!(f, "version {version} of the protocol is not known"),
            Self::ReservedFlags(flags) => write!(f, "reserved flags are set: {flags:#06x}"),
            Self::MetadataTooLong(len) => write!(f, "{len} bytes of metadata are too many"),
            Self::UnknownKind(kind) => write!(f, "message kind {kind} is not known"),
            Self::FrameTooLong(len) => write!(f, "a frame of {len} bytes is too long"),
            Self::Truncated => f.write_str("the frame is cut off"),
            Self::TrailingBytes => f.write_str("bytes follow the frame"),
            Self::BadChecksum => f.write_str("the checksum is wrong"),
            Self::BadMetadata => f.write_str("the metadata is malformed"),
            Self::BadPayload(kind) => write!(f, "the payload is not a valid {}", kind.as_str_name()),
            Self::BadFieldLength(field) => write!(f, "the length of {field} is not allowed"),
            Self::TooManyItems(field) => write!(f, "{field} has too many elements"),
            Self::NoTypeUrl => f.write_str("an application message without a type_url"),
            Self::WrongDirection(kind) => write!(f, "{} is not sent in this direction", kind.as_str_name()),
            Self::StillSealed => f.write_str("the payload is sealed"),
            Self::StillCompressed => f.write_str("the payload is compressed"),
            Self::BadCompression => f.write_str("the payload is not one valid zstd frame"),
            Self::SkippableCompression => f.write_str("the payload is a skippable zstd frame"),
            Self::TrailingCompression => f.write_str("bytes follow the zstd frame"),
            Self::CompressionDictionary => f.write_str("the zstd frame needs a dictionary"),
            Self::CompressionWindow(len) => write!(f, "a zstd window of {len} bytes is too large"),
            Self::NoContentSize => f.write_str("the zstd frame does not state its content size"),
            Self::InflatedTooLong(len) => write!(f, "a payload of {len} bytes inflated is too long"),
            Self::NotSealed => f.write_str("the frame is not sealed"),
            Self::NotAuthentic => f.write_str("the seal does not fit the frame"),
            Self::BadPublicKey => f.write_str("a public key is not 32 bytes long"),
            Self::WeakPublicKey => f.write_str("a public key has small order"),
            Self::SealExhausted => f.write_str("no nonces are left"),
            Self::NotAFrame => f.write_str("not an encoded frame that can be compressed or sealed"),
            Self::NotDrained => f.write_str("pushed before the last push was drained"),
        }
    }
}

impl core::error::Error for WireError {}
