//! The checksum of frames: CRC-32C (Castagnoli).

/// Returns the checksum of the bytes.
#[cfg(feature = "crc32c")]
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Returns the checksum of the bytes.
#[cfg(not(feature = "crc32c"))]
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    by_table(bytes)
}

#[cfg(any(test, not(feature = "crc32c")))]
fn by_table(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| TABLE[(sum as u8 ^ byte) as usize] ^ (sum >> 8))
}

/// Change of the checksum for each value of a byte.
#[cfg(any(test, not(feature = "crc32c")))]
static TABLE: [u32; 256] = table();

#[cfg(any(test, not(feature = "crc32c")))]
const fn table() -> [u32; 256] {
    /// Polynomial, least bit first.
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_is_met() {
        assert_eq!((crc32c(b"123456789"), by_table(b"123456789")), (0xE306_9283, 0xE306_9283));
    }

    proptest! {
        #[test]
        fn the_table_and_the_instruction_agree(bytes: Vec<u8>) {
            prop_assert_eq!(by_table(&bytes), crc32c(&bytes));
        }
    }
}
