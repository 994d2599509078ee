//! The address of the client of a connection, with trusted proxies in between.
//!
//! A trusted proxy names the client by a header of the PROXY protocol before everything else, by a
//! header of the upgrade request, or by both. Headers of any other peer are ignored. A trusted
//! proxy's header that cannot be parsed names no client: then the last known address counts.

mod forwarded;
#[cfg_attr(madsim, allow(dead_code, reason = "the PROXY protocol is not simulated"))]
mod proxy_protocol;

use std::net::IpAddr;

use httparse::{EMPTY_HEADER, Request};

use super::http::MAX_HEADERS;
use crate::config::{ForwardedHeader, Listen, Network, ProxyProtocol};

#[cfg(not(madsim))]
pub(super) use proxy_protocol::{HeaderError, ProxyHeader, read_header};

/// The trusted proxies, and the headers by which they name clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    trusted: Vec<Network>,
    pub(super) protocol: ProxyProtocol,
    header: ForwardedHeader,
}

impl Proxies {
    pub(super) fn new(listen: &Listen) -> Self {
        Self {
            trusted: listen.trusted_proxies.clone(),
            protocol: listen.proxy_protocol,
            header: listen.forwarded,
        }
    }

    /// Returns true if a peer is a trusted proxy.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// Returns true if a peer is a trusted proxy and may name a client.
    pub(super) fn names_clients(&self, peer: IpAddr) -> bool {
        let asked = self.protocol != ProxyProtocol::Off || self.header != ForwardedHeader::Off;
        asked && self.trusts(peer)
    }

    /// Returns true if a request from a peer may name the client in its head.
    pub(super) fn reads_head_of(&self, peer: IpAddr) -> bool {
        self.header != ForwardedHeader::Off && self.trusts(peer)
    }

    /// Returns the address of the client that sent a request through `peer`, by the request's head.
    pub(super) fn client(&self, peer: IpAddr, head: &[u8]) -> IpAddr {
        let name = match self.header {
            ForwardedHeader::Off => return peer,
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        if !self.trusts(peer) {
            return peer;
        }
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut headers);
        if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
            return peer;
        }
        // Headers of one name are one list, in their order.
        let lines = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let mut client = peer;
        for line in lines.rev() {
            let line = String::from_utf8_lossy(line.value);
            for element in forwarded::elements_from_the_right(&line) {
                if !self.trusts(client) {
                    return client;
                }
                let named = match self.header {
                    ForwardedHeader::Forwarded => forwarded::named_by_element(element),
                    _ => forwarded::node(element),
                };
                match named {
                    Some(address) => client = address,
                    // Hidden, unknown or garbage: nothing to the left of it can be trusted.
                    None => return client,
                }
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        Proxies { trusted: trusted.to_vec(), protocol: ProxyProtocol::Off, header }
    }

    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        proxies(header).client(peer.parse().unwrap(), head.as_bytes()).to_string()
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right() {
        let client = |peer, lines: &[&str]| client(ForwardedHeader::XForwardedFor, peer, lines);
        for (lines, expected) in [
            (&["X-Forwarded-For: 192.0.2.1"][..], "192.0.2.1"),
            (&["x-forwarded-for: 192.0.2.1:4711"], "192.0.2.1"),
            (&["X-Forwarded-For: 2001:db8::1"], "2001:db8::1"),
            (&["X-Forwarded-For: [2001:db8::1]:4711"], "2001:db8::1"),
            (&["X-Forwarded-For: [2001:db8::1]"], "2001:db8::1"),
            (&["X-Forwarded-For: ::ffff:192.0.2.1"], "192.0.2.1"),
            // Text that the client sent itself is on the left.
            (&["X-Forwarded-For: 198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["X-Forwarded-For: 10.0.0.1, 192.0.2.1"], "192.0.2.1"),
            (&["X-Forwarded-For: rubbish\", 192.0.2.1"], "192.0.2.1"),
            // Other trusted proxies are skipped.
            (&["X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.2.2.2, fd00::2"], "192.0.2.1"),
            (&["X-Forwarded-For: 10.9.9.9, 10.2.2.2"], "10.9.9.9"),
            (&["X-Forwarded-For: 198.51.100.9", "X-Forwarded-For: 192.0.2.1"], "192.0.2.1"),
            (&["X-Forwarded-For: 198.51.100.9, 192.0.2.1", "X-Forwarded-For: 10.2.2.2"], "192.0.2.1"),
            // Garbage names no client: the last known proxy counts.
            (&["X-Forwarded-For: 192.0.2.1, rubbish"], "10.0.0.7"),
            (&["X-Forwarded-For: 192.0.2.1, rubbish, 10.2.2.2"], "10.2.2.2"),
            (&["X-Forwarded-For: 192.0.2.1, unknown"], "10.0.0.7"),
            (&["X-Forwarded-For: 192.0.2.1,"], "192.0.2.1"),
            (&["X-Forwarded-For: ,,"], "10.0.0.7"),
            (&["X-Forwarded-For:"], "10.0.0.7"),
            (&["X-Forwarded-For: 300.0.2.1"], "10.0.0.7"),
            (&["X-Forwarded-For: [2001:db8::1"], "10.0.0.7"),
            (&["X-Forwarded-For: fe80::1%eth0"], "10.0.0.7"),
            (&["X-Forwarded-For: 192.0.2.1:99999"], "10.0.0.7"),
            (&["Forwarded: for=192.0.2.1"], "10.0.0.7"),
            (&[], "10.0.0.7"),
        ] {
            assert_eq!(client("10.0.0.7", lines), expected, "{lines:?}");
            assert_eq!(client("198.51.100.77", lines), "198.51.100.77", "strangers are not believed");
        }
    }

    #[test]
    fn forwarded_is_read_as_the_rfc_says() {
        let client = |peer, lines: &[&str]| client(ForwardedHeader::Forwarded, peer, lines);
        for (lines, expected) in [
            (&["Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["Forwarded: For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["Forwarded: proto=http ; FOR=192.0.2.60"], "192.0.2.60"),
            (&["Forwarded: for=\"192.0.2.60:4711\";by=_proxy"], "192.0.2.60"),
            (&["Forwarded: for=\"192.0.2.60:_port\""], "192.0.2.60"),
            (&["Forwarded: for=\"192.0.2.\\60\""], "192.0.2.60"),
            (&["Forwarded: for=192.0.2.43, for=198.51.100.17;by=\"a, b; for=9.9.9.9\""], "198.51.100.17"),
            (&["Forwarded: for=192.0.2.43, for=10.1.1.1"], "192.0.2.43"),
            (&["Forwarded: for=192.0.2.43", "Forwarded: for=10.1.1.1"], "192.0.2.43"),
            // A client's own header, with an unclosed quote.
            (&["Forwarded: for=\"1.1.1.1, for=192.0.2.43"], "192.0.2.43"),
            (&["Forwarded: for=\"1.1.1.1", "Forwarded: for=192.0.2.43"], "192.0.2.43"),
            // No name, or a hidden one.
            (&["Forwarded: for=192.0.2.43, for=unknown"], "10.0.0.7"),
            (&["Forwarded: for=192.0.2.43, for=_hidden"], "10.0.0.7"),
            (&["Forwarded: for=192.0.2.43, for=\"_gazonk\", for=10.1.1.1"], "10.1.1.1"),
            (&["Forwarded: for=192.0.2.43, proto=https"], "10.0.0.7"),
            // Two addresses in one element, and an IPv6 address without brackets.
            (&["Forwarded: for=192.0.2.43;for=192.0.2.44"], "10.0.0.7"),
            (&["Forwarded: for=\"2001:db8::1\""], "10.0.0.7"),
            (&["Forwarded: for=192.0.2.43\""], "10.0.0.7"),
            (&["Forwarded: 192.0.2.43"], "10.0.0.7"),
            (&["X-Forwarded-For: 192.0.2.1"], "10.0.0.7"),
        ] {
            assert_eq!(client("10.0.0.7", lines), expected, "{lines:?}");
            assert_eq!(client("198.51.100.77", lines), "198.51.100.77", "strangers are not believed");
        }
    }

    proptest! {
        /// Checks that nothing that a client writes before the element of a trusted proxy changes
        /// the result.
        #[test]
        fn a_client_cannot_choose_its_address(
            lie in "[ -~]{0,60}",
            one_line in any::<bool>(),
            rfc in any::<bool>(),
        ) {
            let (header, name, added) = match rfc {
                true => (ForwardedHeader::Forwarded, "Forwarded", "for=\"[2001:db8::9]:1\";proto=https"),
                false => (ForwardedHeader::XForwardedFor, "X-Forwarded-For", "2001:db8::9"),
            };
            let lines = match one_line {
                true => vec![format!("{name}: {lie}, {added}")],
                false => vec![format!("{name}: {lie}"), format!("{name}: {added}")],
            };
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client(header, "10.0.0.7", &lines), "2001:db8::9");
        }

        #[test]
        fn no_head_makes_it_panic(head in prop::collection::vec(any::<u8>(), 0..200), rfc in any::<bool>()) {
            let header = if rfc { ForwardedHeader::Forwarded } else { ForwardedHeader::XForwardedFor };
            proxies(header).client("10.0.0.7".parse().unwrap(), &head);
            let mut request = b"GET / HTTP/1.1\r\nForwarded: ".to_vec();
            request.extend(head.iter().filter(|byte| !byte.is_ascii_control()));
            request.extend(b"\r\n\r\n");
            proxies(header).client("10.0.0.7".parse().unwrap(), &request);
        }
    }
}
