//! Proxies between players and the server, and the headers in which they name clients.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Listen;
use super::validate::check;

/// A network in CIDR notation, such as `10.0.0.0/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Returns true if an address is in the network. An IPv4 address that is mapped into IPv6
    /// counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(|_| {
                format!("`{text}` is not a network: write an address and its length, such as `10.0.0.0/8`, or one address")
            })?,
        };
        let network = match network {
            IpNet::V6(v6) => unmapped(v6)?,
            v4 @ IpNet::V4(_) => v4,
        };
        if network.prefix_len() == 0 {
            return Err(format!("`{text}` is everybody: name the networks that the proxies connect from"));
        }
        if network.trunc() != network {
            return Err(format!("`{text}` is an address within a network: write `{}`", network.trunc()));
        }
        Ok(Self(network))
    }
}

/// Converts an IPv6 network of mapped addresses to its IPv4 network: peers are compared by their
/// IPv4 address.
fn unmapped(network: Ipv6Net) -> Result<IpNet, String> {
    let mapped = Ipv6Net::new_assert(Ipv6Addr::from_bits(0xffff_0000_0000), 96);
    let (Some(v4), Some(length)) = (
        network.addr().to_ipv4_mapped().filter(|_| mapped.contains(&network)),
        network.prefix_len().checked_sub(96),
    ) else {
        return Ok(IpNet::V6(network));
    };
    Ipv4Net::new(v4, length).map(IpNet::V4).map_err(|error| error.to_string())
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Header of the PROXY protocol, version 1 or 2, at the beginning of trusted proxies' connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// No connection has a header. A header is no HTTP request, and is refused with 400.
    #[default]
    Off,
    /// Connections of trusted proxies may have a header.
    Accept,
    /// Every connection has a header. A connection without it, or from a peer that is no trusted
    /// proxy, is refused.
    Require,
}

/// Header of upgrade requests in which trusted proxies name the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// No header.
    #[default]
    Off,
    /// `X-Forwarded-For`: a list of addresses, to which each proxy adds the address of its own
    /// peer.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the same as `for=`.
    Forwarded,
}

impl Listen {
    /// Returns true if trusted proxies name clients.
    pub(crate) fn learns_clients(&self) -> bool {
        self.proxy_protocol != ProxyProtocol::Off || self.forwarded != ForwardedHeader::Off
    }

    /// Checks for settings that do not go together.
    ///
    /// # Errors
    /// The first key with a value that makes no sense, and the problem.
    pub(super) fn validate_proxies(&self) -> Result<(), (String, String)> {
        let trusts = !self.trusted_proxies.is_empty();
        check(
            trusts || self.proxy_protocol == ProxyProtocol::Off,
            "listen.proxy_protocol",
            "is believed of `listen.trusted_proxies` only: name their networks there",
        )?;
        check(
            trusts || self.forwarded == ForwardedHeader::Off,
            "listen.forwarded",
            "is believed of `listen.trusted_proxies` only: name their networks there",
        )?;
        check(
            !trusts || self.learns_clients(),
            "listen.trusted_proxies",
            "is of no use unless `listen.proxy_protocol` or `listen.forwarded` says how they name a client",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_have_the_addresses_that_they_say() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            let network = network(text);
            assert!(network.contains(inside.parse().unwrap()), "{text}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}");
            assert_eq!(network.to_string().parse(), Ok(network));
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        for (text, says) in [
            ("", "is not a network"),
            ("proxy.example", "is not a network"),
            ("10.0.0.0/33", "is not a network"),
            ("10.0.0/8", "is not a network"),
            ("10.0.0.0/8, fd00::/8", "is not a network"),
            ("10.1.2.3/8", "write `10.0.0.0/8`"),
            ("fd00::1/8", "write `fd00::/8`"),
            ("::ffff:10.1.2.3/104", "write `10.0.0.0/8`"),
            ("0.0.0.0/0", "is everybody"),
            ("::/0", "is everybody"),
            ("::ffff:0.0.0.0/96", "is everybody"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let wrong = |listen: Listen| listen.validate_proxies().map_err(|(key, _)| key);
        let trusted_proxies = vec![network("10.0.0.0/8")];
        assert_eq!(wrong(Listen::default()), Ok(()));
        let idle = Listen { trusted_proxies: trusted_proxies.clone(), ..Listen::default() };
        assert_eq!(wrong(idle), Err("listen.trusted_proxies".to_owned()));
        let protocol = Listen { proxy_protocol: ProxyProtocol::Accept, ..Listen::default() };
        assert_eq!(wrong(protocol.clone()), Err("listen.proxy_protocol".to_owned()));
        let header = Listen { forwarded: ForwardedHeader::Forwarded, ..Listen::default() };
        assert_eq!(wrong(header.clone()), Err("listen.forwarded".to_owned()));
        for listen in [protocol, header] {
            assert_eq!(wrong(Listen { trusted_proxies: trusted_proxies.clone(), ..listen }), Ok(()));
        }
    }
}
