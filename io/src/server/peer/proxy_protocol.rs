//! The PROXY protocol, versions 1 and 2: a header before everything else that a proxy sends,
//! with the address of its client.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First bytes of a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the signature, the version and command, the family and protocol, and the length field,
/// in bytes.
const FIXED: usize = 16;
/// Longest header of version 1, with its line end, in bytes.
const LONGEST_V1: usize = 107;
/// Longest rest of a header of version 2, in bytes. A proxy may add its knowledge of TLS.
const LONGEST_V2: usize = 4 * 1024;

/// Content of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// The address of the client.
    Client(IpAddr),
    /// No client: the proxy speaks for itself, or does not know its client.
    Nobody,
}

/// The reason for a missing header.
#[derive(Debug)]
#[cfg_attr(madsim, allow(dead_code, reason = "the PROXY protocol is not simulated"))]
pub(crate) enum HeaderError {
    /// The connection has failed or ended.
    Io(io::Error),
    /// The received bytes are no header.
    Malformed(&'static str),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Malformed(what) => write!(f, "not a PROXY protocol header: {what}"),
        }
    }
}

/// Reads a header of version 1, with its line end.
fn version_1(line: &[u8]) -> Result<ProxyHeader, &'static str> {
    let line = line.strip_suffix(b"\r\n").ok_or("the line does not end")?;
    let line = std::str::from_utf8(line).map_err(|_| "it is not text")?;
    let line = line.strip_prefix("PROXY ").ok_or("it does not begin with `PROXY `")?;
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(ProxyHeader::Nobody);
    }
    let (Some(source), Some(target), Some(from), Some(to), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err("it must have two addresses and two ports");
    };
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if !port(from) || !port(to) {
        return Err("a port is none");
    }
    let both = match family {
        Some("TCP4") => source.parse().map(IpAddr::V4).ok().zip(target.parse().map(IpAddr::V4).ok()),
        Some("TCP6") => source.parse().map(IpAddr::V6).ok().zip(target.parse().map(IpAddr::V6).ok()),
        _ => return Err("the protocol must be TCP4, TCP6 or UNKNOWN"),
    };
    let (source, _) = both.ok_or("an address is none")?;
    Ok(ProxyHeader::Client(source.to_canonical()))
}

/// Returns the number of bytes after the fixed part of a header of version 2.
fn length_of_version_2(fixed: &[u8; FIXED]) -> Result<usize, &'static str> {
    let (signature, rest) = fixed.split_at(SIGNATURE.len());
    if signature != SIGNATURE {
        return Err("it does not begin with the signature of version 2");
    }
    let [version_and_command, _, high, low] = rest else { return Err("it is too short") };
    if version_and_command >> 4 != 2 {
        return Err("the version must be 2");
    }
    match usize::from(u16::from_be_bytes([*high, *low])) {
        length if length <= LONGEST_V2 => Ok(length),
        _ => Err("it is longer than 4096 bytes"),
    }
}

/// Reads a header of version 2: the fixed part, and the rest. Ignores everything after the
/// addresses.
fn version_2(fixed: &[u8; FIXED], rest: &[u8]) -> Result<ProxyHeader, &'static str> {
    let [.., version_and_command, family, _, _] = fixed;
    match version_and_command & 0xf {
        // LOCAL: a check by the proxy itself.
        0 => return Ok(ProxyHeader::Nobody),
        1 => {}
        _ => return Err("the command must be LOCAL or PROXY"),
    }
    let short = "the addresses are missing";
    match family {
        // TCP over IPv4: two addresses and two ports.
        0x11 => {
            let source: [u8; 4] = *rest.first_chunk().filter(|_| rest.len() >= 12).ok_or(short)?;
            Ok(ProxyHeader::Client(Ipv4Addr::from(source).into()))
        }
        0x21 => {
            let source: [u8; 16] = *rest.first_chunk().filter(|_| rest.len() >= 36).ok_or(short)?;
            Ok(ProxyHeader::Client(IpAddr::from(Ipv6Addr::from(source)).to_canonical()))
        }
        // Unspecified, UDP, and sockets of Unix.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(ProxyHeader::Nobody),
        _ => Err("the address family is none"),
    }
}

#[cfg(not(madsim))]
pub(crate) use reading::read_header;

#[cfg(not(madsim))]
mod reading {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;

    impl From<io::Error> for HeaderError {
        fn from(error: io::Error) -> Self {
            Self::Io(error)
        }
    }

    impl From<&'static str> for HeaderError {
        fn from(what: &'static str) -> Self {
            Self::Malformed(what)
        }
    }

    /// Reads a header, and no byte after it. Returns `None`, and has read nothing, if the peer
    /// sends anything else: neither TLS nor a request that could be an upgrade begins like a
    /// header. Waits as long as the peer does: the caller has the deadline.
    pub(crate) async fn read_header(stream: &mut TcpStream) -> Result<Option<ProxyHeader>, HeaderError> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match first {
            [b'P'] => read_version_1(stream).await.map(Some),
            [b'\r'] => read_version_2(stream).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn read_version_1(stream: &mut TcpStream) -> Result<ProxyHeader, HeaderError> {
        let mut line = Vec::with_capacity(LONGEST_V1);
        while line.len() < LONGEST_V1 {
            let mut ahead = [0; LONGEST_V1];
            let room = LONGEST_V1 - line.len();
            let there = stream.peek(ahead.get_mut(..room).unwrap_or_default()).await?;
            if there == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let end = ahead.iter().take(there).position(|byte| *byte == b'\n');
            let from = line.len();
            line.resize(from + end.map_or(there, |end| end + 1), 0);
            stream.read_exact(line.get_mut(from..).unwrap_or_default()).await?;
            if end.is_some() {
                return Ok(version_1(&line)?);
            }
        }
        Err(HeaderError::Malformed("the line is longer than 107 bytes"))
    }

    async fn read_version_2(stream: &mut TcpStream) -> Result<ProxyHeader, HeaderError> {
        let mut fixed = [0; FIXED];
        stream.read_exact(&mut fixed).await?;
        let mut rest = vec![0; length_of_version_2(&fixed)?];
        stream.read_exact(&mut rest).await?;
        Ok(version_2(&fixed, &rest)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Result<ProxyHeader, &'static str> {
        Ok(ProxyHeader::Client(address.parse().unwrap()))
    }

    #[test]
    fn version_1_is_read() {
        for (line, said) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n", client("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", client("2001:db8::1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n", client("192.0.2.1")),
            ("PROXY UNKNOWN\r\n", Ok(ProxyHeader::Nobody)),
            ("PROXY UNKNOWN ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n", Ok(ProxyHeader::Nobody)),
        ] {
            assert_eq!(version_1(line.as_bytes()), said, "{line}");
        }
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 host 198.51.100.1 1 2\r\n",
            "POST / HTTP/1.1\r\n",
        ] {
            assert!(version_1(line.as_bytes()).is_err(), "{line}");
        }
    }

    fn header_2(command: u8, family: u8, rest: &[u8]) -> ([u8; FIXED], Vec<u8>) {
        let mut fixed = [0; FIXED];
        fixed[..12].copy_from_slice(&SIGNATURE);
        (fixed[12], fixed[13]) = (command, family);
        fixed[14..].copy_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        (fixed, rest.to_vec())
    }

    fn read_2(command: u8, family: u8, rest: &[u8]) -> Result<ProxyHeader, &'static str> {
        let (fixed, rest) = header_2(command, family, rest);
        assert_eq!(length_of_version_2(&fixed)?, rest.len());
        version_2(&fixed, &rest)
    }

    #[test]
    fn version_2_is_read() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(read_2(0x21, 0x11, &v4), client("192.0.2.1"));
        assert_eq!(read_2(0x21, 0x21, &v6), client("2001:db8::1"));
        let with_more = [&v4[..], &[0xee, 0, 2, 1, 2, 0x20, 0, 99]].concat();
        assert_eq!(read_2(0x21, 0x11, &with_more), client("192.0.2.1"), "whatever follows is left out");
        assert_eq!(read_2(0x20, 0x11, &v4), Ok(ProxyHeader::Nobody), "LOCAL");
        assert_eq!(read_2(0x20, 0x00, &[]), Ok(ProxyHeader::Nobody), "LOCAL");
        assert_eq!(read_2(0x21, 0x00, &[]), Ok(ProxyHeader::Nobody), "unspecified");
        assert_eq!(read_2(0x21, 0x31, &[0; 216]), Ok(ProxyHeader::Nobody), "Unix");
        for (command, family, rest) in [
            (0x21, 0x11, &v4[..11]),
            (0x21, 0x21, &v6[..35]),
            (0x22, 0x11, &v4),
            (0x11, 0x11, &v4),
            (0x21, 0x41, &v4),
            (0x21, 0x11, &[0; 4097]),
        ] {
            assert!(read_2(command, family, rest).is_err(), "{command:x} {family:x}");
        }
        let (mut fixed, _) = header_2(0x21, 0x11, &v4);
        fixed[3] = b'x';
        assert!(length_of_version_2(&fixed).is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            fixed in any::<[u8; FIXED]>(),
            signed in any::<bool>(),
            rest in prop::collection::vec(any::<u8>(), 0..300),
            line in "PROXY [ -~]{0,100}\r\n",
        ) {
            let mut fixed = fixed;
            if signed {
                fixed[..12].copy_from_slice(&SIGNATURE);
            }
            let _ = length_of_version_2(&fixed);
            let _ = version_2(&fixed, &rest);
            let _ = version_1(&rest);
            let _ = version_1(line.as_bytes());
        }
    }
}
