//! Compressed payloads (row W3).

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use zstd_safe::{CCtx, DCtx};

use super::frame::Header;
use super::{FLAG_SEALED, FLAG_ZSTD, Frame, TRAILER_LEN, WireError, encode};

/// Compression level: zstd's fastest regular one. A higher level would save little, since payloads
/// are small.
const LEVEL: i32 = 1;

/// Compression contexts, shared by all connections of a node. Each context is created on first use,
/// and kept. No state passes from one frame to the next.
#[derive(Default)]
pub struct Zstd {
    deflate: Option<CCtx<'static>>,
    inflate: Option<DCtx<'static>>,
    /// Buffer for a compressed payload whose size is not known yet.
    scratch: Vec<u8>,
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd")
            .field("deflate", &self.deflate.is_some())
            .field("inflate", &self.inflate.is_some())
            .finish_non_exhaustive()
    }
}

impl Zstd {
    /// Returns the frame with its payload compressed, or `None` if that would not make the frame
    /// smaller. `frame` is the result of [`super::encode()`]; a frame that is already compressed or
    /// sealed gives `None`. Equal frames give equal bytes.
    #[must_use]
    pub fn deflate(&mut self, frame: &Bytes) -> Option<Bytes> {
        let header = Header::of_encoded(frame).filter(|header| header.flags == 0)?;
        let payload = frame.get(header.payload_start()..header.payload_end())?;
        let context = self.deflate.get_or_insert_with(CCtx::create);
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(payload.len()));
        let len = context.compress(&mut self.scratch, payload, LEVEL).ok()?;
        if len >= payload.len() {
            return None;
        }
        let metadata_field = u16::try_from(header.metadata_len).ok()?;
        let payload_field = u32::try_from(len).ok()?;
        let front = Header::write(header.kind, FLAG_ZSTD, metadata_field, payload_field);
        let mut buffer = Vec::with_capacity(header.payload_start() + len + TRAILER_LEN);
        buffer.extend_from_slice(&front);
        buffer.extend_from_slice(&frame[front.len()..header.payload_start()]);
        buffer.extend_from_slice(&self.scratch);
        Some(encode::finish(buffer))
    }

    /// Inflates the payload if the flag is set. Returns any other frame unchanged.
    ///
    /// The zstd frame states the size of its content. The size is compared with `max_payload`
    /// before any allocation, and the content is written into a buffer of exactly that size. So a
    /// false size, a large window or a decompression bomb cannot cause an allocation above
    /// `max_payload`.
    ///
    /// # Errors
    /// If the payload is still sealed, is not exactly one zstd frame with its content size, needs a
    /// dictionary, has a window larger than `max_payload` allows, or would be larger than
    /// `max_payload`.
    pub fn inflate(&mut self, frame: Frame, max_payload: usize) -> Result<Frame, WireError> {
        if frame.flags & FLAG_SEALED != 0 {
            return Err(WireError::StillSealed);
        }
        if frame.flags & FLAG_ZSTD == 0 {
            return Ok(frame);
        }
        let source = &frame.payload[..];
        let head = Head::of(source)?;
        let announced = zstd_safe::get_frame_content_size(source)
            .map_err(|_| WireError::BadCompression)?
            .ok_or(WireError::NoContentSize)?;
        let len = match usize::try_from(announced) {
            Ok(len) if len <= max_payload => len,
            _ => return Err(WireError::InflatedTooLong(announced)),
        };
        head.check(max_payload)?;
        // Only one frame is allowed: further frames could be many, without content.
        match zstd_safe::find_frame_compressed_size(source) {
            Ok(len) if len == source.len() => {}
            Ok(_) => return Err(WireError::TrailingCompression),
            Err(_) => return Err(WireError::BadCompression),
        }
        let mut content = Vec::with_capacity(len);
        let context = self.inflate.get_or_insert_with(DCtx::create);
        if context.decompress(&mut content, source) != Ok(len) {
            return Err(WireError::BadCompression);
        }
        frame.with_payload(Bytes::from(content), FLAG_ZSTD)
    }
}

/// First four bytes of a zstd frame.
const MAGIC: u32 = 0xFD2F_B528;
/// First four bytes of a skippable frame, without the last four bits.
const SKIPPABLE: u32 = 0x184D_2A50;
/// Smallest window of zstd, in bytes.
const MIN_WINDOW: u64 = 1024;

/// Fields of the head of a zstd frame, without the content size (RFC 8878, section 3.1.1.1).
struct Head {
    dictionary: bool,
    /// Size of the window, in bytes; `None` if the window is the content.
    window: Option<u64>,
}

impl Head {
    fn of(source: &[u8]) -> Result<Self, WireError> {
        let [m0, m1, m2, m3, descriptor, rest @ ..] = source else { return Err(WireError::BadCompression) };
        match u32::from_le_bytes([*m0, *m1, *m2, *m3]) {
            MAGIC => {}
            magic if magic & !0xF == SKIPPABLE => return Err(WireError::SkippableCompression),
            _ => return Err(WireError::BadCompression),
        }
        // Two bits state the length of a dictionary's number, and one bit states that the window is
        // the content.
        let dictionary = descriptor & 0b11 != 0;
        if descriptor & 0b10_0000 != 0 {
            return Ok(Self { dictionary, window: None });
        }
        let window = rest.first().ok_or(WireError::BadCompression)?;
        let base = 1u64 << (10 + (window >> 3));
        Ok(Self { dictionary, window: Some(base + base / 8 * u64::from(window & 0b111)) })
    }

    fn check(&self, max_payload: usize) -> Result<(), WireError> {
        let most = (max_payload as u64).max(MIN_WINDOW).next_power_of_two();
        match self.window {
            _ if self.dictionary => Err(WireError::CompressionDictionary),
            Some(window) if window > most => Err(WireError::CompressionWindow(window)),
            _ => Ok(()),
        }
    }
}
