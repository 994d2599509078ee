//! Layout of a frame, and decoding of one whole frame.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use skirmish_proto::v1::{Kind, Metadata};

use super::{MAX_TYPE_URL, WireError, checksum};

/// The first four bytes of every frame.
pub const MAGIC: u32 = 0xF54B_524D;
/// The version of the protocol.
pub const VERSION: u16 = 1;
/// Flag: the payload is a zstd frame.
pub const FLAG_ZSTD: u16 = 1 << 0;
/// Flag: the payload is sealed.
pub const FLAG_SEALED: u16 = 1 << 1;
/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 16;
/// Length of the checksum at the end, in bytes.
pub const TRAILER_LEN: usize = 4;
/// Maximum size of the metadata, in bytes. A longer one is refused with
/// [`WireError::MetadataTooLong`].
pub const MAX_METADATA: usize = 1024;

/// Frame whose header, length and checksum are right. The payload may still be sealed or
/// compressed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Number of the [`Kind`] of the payload's message; see [`Self::message`].
    pub kind: u16,
    /// [`FLAG_ZSTD`] and [`FLAG_SEALED`], as far as they still apply to `payload`.
    pub flags: u16,
    /// Encoded `Metadata`; at most [`MAX_METADATA`] bytes, empty if there is none.
    pub metadata: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// Header of this frame. Opening and inflating rewrite the header, so that it always describes
    /// `payload` as it is now.
    pub header: [u8; HEADER_LEN],
}

impl Frame {
    /// Decodes a buffer that holds exactly one frame (a WebSocket message) of at most `max_frame`
    /// bytes. Metadata and payload are slices of the buffer; nothing is copied.
    ///
    /// # Errors
    /// If the header is malformed or not of this version, the frame is too long, the buffer is
    /// shorter or longer than the frame, or the checksum is wrong. The first error in the order of
    /// the bytes is reported.
    pub fn decode(bytes: Bytes, max_frame: usize) -> Result<Self, WireError> {
        let Some(header) = Header::check(&bytes, max_frame)? else { return Err(WireError::Truncated) };
        match bytes.len().cmp(&header.frame_len()) {
            core::cmp::Ordering::Less => Err(WireError::Truncated),
            core::cmp::Ordering::Equal => Self::cut(bytes, &header),
            core::cmp::Ordering::Greater => Err(WireError::TrailingBytes),
        }
    }

    /// Checks the checksum of one whole frame, and splits the frame into its parts. `bytes` has the
    /// length that `header` states.
    pub(super) fn cut(mut bytes: Bytes, header: &Header) -> Result<Self, WireError> {
        let Some((summed, trailer)) = bytes.split_last_chunk::<TRAILER_LEN>() else {
            return Err(WireError::Truncated);
        };
        if checksum::crc32c(summed) != u32::from_be_bytes(*trailer) {
            return Err(WireError::BadChecksum);
        }
        bytes.truncate(bytes.len() - TRAILER_LEN);
        bytes.advance(HEADER_LEN);
        let metadata =
            if header.metadata_len == 0 { Bytes::new() } else { bytes.split_to(header.metadata_len) };
        Ok(Self { kind: header.kind, flags: header.flags, metadata, payload: bytes, header: header.bytes })
    }

    /// Returns the kind of the payload's message.
    ///
    /// # Errors
    /// If this side does not know the kind.
    pub fn message(&self) -> Result<Kind, WireError> {
        Kind::try_from(i32::from(self.kind)).map_err(|_| WireError::UnknownKind(self.kind))
    }

    /// Returns the decoded metadata; all fields are empty if the frame has no metadata. A malformed
    /// trace is dropped: a trace is only for observation, and is no reason to refuse a frame.
    ///
    /// # Errors
    /// If the bytes are not a `Metadata`, or the `type_url` is too long.
    pub fn metadata(&self) -> Result<Metadata, WireError> {
        if self.metadata.is_empty() {
            return Ok(Metadata::default());
        }
        let mut metadata = Metadata::decode(self.metadata.clone()).map_err(|_| WireError::BadMetadata)?;
        if !matches!((metadata.trace_id.len(), metadata.span_id.len()), (0 | 16, 0 | 8)) {
            (metadata.trace_id, metadata.span_id, metadata.trace_flags) = (Bytes::new(), Bytes::new(), 0);
        }
        if metadata.type_url.len() > MAX_TYPE_URL {
            return Err(WireError::BadFieldLength("Metadata.type_url"));
        }
        Ok(metadata)
    }

    /// Returns the frame with another payload and without `flag`, after the payload was opened or
    /// inflated.
    pub(super) fn with_payload(mut self, payload: Bytes, flag: u16) -> Result<Self, WireError> {
        let len = u32::try_from(payload.len()).map_err(|_| WireError::FrameTooLong(payload.len() as u64))?;
        self.flags &= !flag;
        let (_, rest) = self.header.split_at_mut(OFFSET_FLAGS);
        rest[..2].copy_from_slice(&self.flags.to_be_bytes());
        self.header[OFFSET_PAYLOAD_LEN..].copy_from_slice(&len.to_be_bytes());
        self.payload = payload;
        Ok(self)
    }
}

const OFFSET_VERSION: usize = 4;
const OFFSET_FLAGS: usize = 6;
const OFFSET_METADATA_LEN: usize = 8;
const OFFSET_KIND: usize = 10;
const OFFSET_PAYLOAD_LEN: usize = 12;

/// Header that has passed the checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) metadata_len: usize,
    pub(super) payload_len: usize,
    pub(super) bytes: [u8; HEADER_LEN],
}

impl Header {
    /// Checks the part of a header at the front of `bytes`, field by field. Returns `None` if this
    /// part is right and more bytes are needed.
    ///
    /// A header that passes describes a frame of at most `max_frame` bytes.
    #[inline]
    pub(super) fn check(bytes: &[u8], max_frame: usize) -> Result<Option<Self>, WireError> {
        match bytes.first_chunk::<HEADER_LEN>() {
            Some(header) => Self::check_whole(*header, max_frame).map(Some),
            None => Self::check_part(bytes).map(|()| None),
        }
    }

    /// Returns the header of one whole frame that this side has encoded; `None` if the bytes are
    /// something else. The checksum is not checked.
    pub(super) fn of_encoded(frame: &[u8]) -> Option<Self> {
        Self::check(frame, frame.len()).ok().flatten().filter(|header| header.frame_len() == frame.len())
    }

    #[inline]
    fn check_whole(bytes: [u8; HEADER_LEN], max_frame: usize) -> Result<Self, WireError> {
        let [m0, m1, m2, m3, v0, v1, f0, f1, d0, d1, k0, k1, p0, p1, p2, p3] = bytes;
        if u32::from_be_bytes([m0, m1, m2, m3]) != MAGIC {
            return Err(WireError::BadMagic);
        }
        check_version(u16::from_be_bytes([v0, v1]))?;
        let flags = check_flags(u16::from_be_bytes([f0, f1]))?;
        let metadata_len = check_metadata_len(u16::from_be_bytes([d0, d1]))?;
        let kind = u16::from_be_bytes([k0, k1]);
        let payload_len = u32::from_be_bytes([p0, p1, p2, p3]);
        let frame_len = (HEADER_LEN + metadata_len + TRAILER_LEN) as u64 + u64::from(payload_len);
        if frame_len > max_frame as u64 {
            return Err(WireError::FrameTooLong(frame_len));
        }
        Ok(Self { kind, flags, metadata_len, payload_len: payload_len as usize, bytes })
    }

    fn check_part(bytes: &[u8]) -> Result<(), WireError> {
        if !bytes.iter().zip(MAGIC.to_be_bytes()).all(|(byte, magic)| *byte == magic) {
            return Err(WireError::BadMagic);
        }
        let field = |at| bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u16::from_be_bytes);
        field(OFFSET_VERSION).map_or(Ok(()), check_version)?;
        field(OFFSET_FLAGS).map_or(Ok(0), check_flags)?;
        field(OFFSET_METADATA_LEN).map_or(Ok(0), check_metadata_len)?;
        Ok(())
    }

    /// Returns the header of a frame to be sent.
    pub(super) fn write(kind: u16, flags: u16, metadata_len: u16, payload_len: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..OFFSET_VERSION].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[OFFSET_VERSION..OFFSET_FLAGS].copy_from_slice(&VERSION.to_be_bytes());
        bytes[OFFSET_FLAGS..OFFSET_METADATA_LEN].copy_from_slice(&flags.to_be_bytes());
        bytes[OFFSET_METADATA_LEN..OFFSET_KIND].copy_from_slice(&metadata_len.to_be_bytes());
        bytes[OFFSET_KIND..OFFSET_PAYLOAD_LEN].copy_from_slice(&kind.to_be_bytes());
        bytes[OFFSET_PAYLOAD_LEN..].copy_from_slice(&payload_len.to_be_bytes());
        bytes
    }

    /// Returns the offset at which the payload begins.
    pub(super) const fn payload_start(&self) -> usize {
        HEADER_LEN + self.metadata_len
    }

    /// Returns the offset at which the payload ends.
    pub(super) const fn payload_end(&self) -> usize {
        self.payload_start() + self.payload_len
    }

    /// Returns the length of the whole frame.
    pub(super) const fn frame_len(&self) -> usize {
        self.payload_end() + TRAILER_LEN
    }
}

#[inline]
fn check_version(version: u16) -> Result<(), WireError> {
    if version == VERSION { Ok(()) } else { Err(WireError::UnknownVersion(version)) }
}

#[inline]
fn check_flags(flags: u16) -> Result<u16, WireError> {
    if flags & !(FLAG_ZSTD | FLAG_SEALED) == 0 { Ok(flags) } else { Err(WireError::ReservedFlags(flags)) }
}

#[inline]
fn check_metadata_len(len: u16) -> Result<usize, WireError> {
    if usize::from(len) <= MAX_METADATA { Ok(len.into()) } else { Err(WireError::MetadataTooLong(len)) }
}
