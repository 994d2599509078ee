//! Bounds on repeated fields, checked before anything is decoded.
//!
//! An element that takes two bytes on the wire takes up to two hundred in memory, so a
//! cap on the size of a frame alone would not bound what decoding it allocates.

/// Most elements that a repeated field of messages may have.
pub(crate) const MAX_ITEMS: usize = 4096;

/// How often the field at the end of `path` occurs in an encoded message; the fields
/// before it are messages, the first of them in `message`. `None` if the encoding is
/// malformed, or has groups (which proto3 has not).
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
        // Of a tenth byte only the lowest bit fits; the decoder judges the rest of it.
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
