//! Bounds on repeated fields, checked before the payload is decoded.
//!
//! An element of two bytes on the wire takes up to two hundred bytes in memory, so a cap on the
//! size of a frame alone would not bound the memory that decoding allocates.

/// Maximum number of elements of a repeated field of messages. With more, the message is refused
/// with [`TooManyItems`](super::WireError::TooManyItems).
pub(crate) const MAX_ITEMS: usize = 4096;

/// Counts the occurrences of the field at the end of `path` in an encoded message. The earlier
/// fields of the path are messages, and the first of them is in `message`. Returns `None` if the
/// encoding is malformed, or has groups, which proto3 does not have.
pub(super) fn count(mut message: &[u8], path: &[u64]) -> Option<usize> {
    let (wanted, rest) = path.split_first()?;
    let mut count = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let content = match key & 7 {
            0 => varint(&mut message).map(|_| &[][..])?,
            1 => take(&mut message, 8)?,
            2 => {
                let len = varint(&mut message)?;
                take(&mut message, len)?
            }
            5 => take(&mut message, 4)?,
            _ => return None,
        };
        if key >> 3 == *wanted {
            count += if rest.is_empty() { 1 } else { self::count(content, rest)? };
        }
    }
    Some(count)
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(front)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Only the lowest bit of a tenth byte fits; the decoder checks the other bits.
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
