//! Decoding of frames from a byte stream.

use bytes::{Bytes, BytesMut};

use super::frame::Header;
use super::{Frame, HEADER_LEN, WireError};

/// Incremental decoder for a byte stream. Any chunking gives the same frames. A fatal error becomes
/// the state of the decoder.
///
/// The caller pushes a chunk, polls until no frame is left, and then pushes the next chunk. A frame
/// that lies wholly in one chunk is a slice of the chunk; only a frame that spans chunks is copied.
/// Every field of a header is checked as soon as its bytes have arrived. The allocated memory is
/// bounded by the received bytes (at most twice as many, and at most twice `max_frame`), never by
/// an announced length.
#[derive(Debug)]
pub struct Decoder {
    max_frame: usize,
    /// Unread rest of the last chunk.
    chunk: Bytes,
    /// Front of a frame that began in an earlier chunk.
    partial: BytesMut,
    failed: Option<WireError>,
}

impl Decoder {
    /// Creates a decoder at the start of a stream of frames of at most `max_frame` bytes each.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self { max_frame, chunk: Bytes::new(), partial: BytesMut::new(), failed: None }
    }

    /// Accepts the next bytes of the stream.
    ///
    /// # Errors
    /// The fatal error, if there was one; [`WireError::NotDrained`] if [`Self::poll_frame`] has not
    /// returned `None` since the last push: then the decoder refuses the chunk, and does not
    /// change.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !self.chunk.is_empty() {
            return Err(WireError::NotDrained);
        }
        self.chunk = chunk;
        Ok(())
    }

    /// Returns the next whole frame; `None` if more bytes are needed.
    ///
    /// # Errors
    /// If the next bytes are not a frame; see [`Frame::decode`]. Then the frame boundaries of the
    /// stream are lost, so every later call returns the same error.
    pub fn poll_frame(&mut self) -> Result<Option<Frame>, WireError> {
        self.poll(Frame::cut)
    }

    /// Returns the bytes of the next frame. Only the header is checked; [`Frame::decode`] checks
    /// the rest.
    ///
    /// # Errors
    /// As for [`Self::poll_frame`].
    pub fn poll_bytes(&mut self) -> Result<Option<Bytes>, WireError> {
        self.poll(|bytes, _| Ok(bytes))
    }

    fn poll<T>(
        &mut self,
        cut: impl FnOnce(Bytes, &Header) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let next = self.next();
        let result = next.and_then(|next| next.map(|(bytes, header)| cut(bytes, &header)).transpose());
        if let Err(error) = result {
            self.failed = Some(error);
            self.chunk = Bytes::new();
            self.partial = BytesMut::new();
        }
        result
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// The fatal error, if there was one; [`WireError::Truncated`] in the middle of a frame.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.chunk.is_empty() && self.partial.is_empty() => Ok(()),
            None => Err(WireError::Truncated),
        }
    }

    fn next(&mut self) -> Result<Option<(Bytes, Header)>, WireError> {
        if self.partial.is_empty()
            && let Some(header) = Header::check(&self.chunk, self.max_frame)?
            && self.chunk.len() >= header.frame_len()
        {
            return Ok(Some((self.chunk.split_to(header.frame_len()), header)));
        }
        self.gather(HEADER_LEN);
        let Some(header) = Header::check(&self.partial, self.max_frame)? else { return Ok(None) };
        self.gather(header.frame_len());
        if self.partial.len() < header.frame_len() {
            return Ok(None);
        }
        Ok(Some((core::mem::take(&mut self.partial).freeze(), header)))
    }

    /// Moves bytes from the chunk to the partial frame until the partial frame has `len` bytes.
    fn gather(&mut self, len: usize) {
        let missing = len.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk.split_to(missing));
    }
}

#[cfg(test)]
mod tests {
    use skirmish_proto::v1::Kind;

    use super::*;
    use crate::wire::frame::Header as Head;

    #[test]
    fn memory_follows_the_bytes_that_came_and_not_the_length_announced() {
        let mut decoder = Decoder::new(64 * 1024);
        decoder.push(Bytes::copy_from_slice(&Head::write(Kind::Say as u16, 0, 0, 60_000))).unwrap();
        assert!(decoder.poll_frame().unwrap().is_none());
        for came in 17..2_000 {
            decoder.push(Bytes::from_static(b"x")).unwrap();
            assert!(decoder.poll_frame().unwrap().is_none());
            assert_eq!(decoder.partial.len(), came);
            assert!(decoder.partial.capacity() <= 2 * came.max(64));
        }
    }

    #[test]
    fn a_wrong_header_is_refused_before_anything_is_kept() {
        let good = Head::write(Kind::Say as u16, 0, 0, 0);
        // Index of a byte of the header, a wrong value for it, and the number of bytes after which
        // the error is found.
        for (byte, value, at) in [
            (1, 0, 2),      // magic
            (4, 1, 6),      // version
            (6, 0x80, 8),   // flags
            (8, 0x05, 10),  // metadata length
            (13, 0x01, 16), // payload length
        ] {
            let mut header = good;
            header[byte] = value;
            let mut decoder = Decoder::new(1024);
            for (index, byte) in header.iter().enumerate() {
                decoder.push(Bytes::copy_from_slice(&[*byte])).unwrap();
                if index + 1 == at {
                    assert!(decoder.poll_frame().is_err());
                    break;
                }
                assert!(decoder.poll_frame().unwrap().is_none());
            }
            assert_eq!(decoder.partial.capacity(), 0);
        }
    }
}
