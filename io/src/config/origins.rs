//! Origins whose pages may connect, in the notation of browsers (RFC 6454): scheme, host, and the
//! port unless it is the scheme's default.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An entry of `auth.origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OriginPattern {
    /// `*`: every origin.
    Any,
    /// `null`: pages without an origin, such as files and sandboxed frames.
    Null,
    /// One origin, in its serialised form.
    Exact(String),
    /// `https://*.example.org`: every host below a domain, but not the domain.
    Below {
        /// The scheme, with `://`.
        scheme: String,
        /// The domain with a dot before it, and the port if there is one.
        rest: String,
    },
    /// `http://localhost:*`: any port of this machine. Has the scheme and the host.
    AnyPort(String),
}

impl OriginPattern {
    /// Parses an entry.
    ///
    /// # Errors
    /// The reason for which no browser's `Origin` could match, with a proposal.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            // Sent by some web views for pages that are files.
            "file://" => return Ok(Self::Exact(text.to_owned())),
            _ => {}
        }
        let example = "must be an origin such as `https://game.example`";
        if !text.is_ascii() {
            return Err(format!("{example}: browsers send other scripts as Punycode, `xn--...`"));
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, authority)) = lower.split_once("://") else {
            return Err(format!("{example}, with its scheme, or `*`"));
        };
        let good = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(good) {
            return Err(format!("{example}: the scheme is none"));
        }
        if matches!(scheme, "ws" | "wss") {
            let page = if scheme == "ws" { "http" } else { "https" };
            return Err(format!("is where the page comes from, not where it connects: write `{page}://...`"));
        }
        if let Some(at) = authority.find(['/', '?', '#']) {
            let host = authority.get(..at).unwrap_or_default();
            return Err(format!("an origin ends with the host and port: write `{scheme}://{host}`"));
        }
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(format!("an origin has no user: write `{scheme}://{host}`"));
        }
        let (host, port) = split_port(authority);
        if port == Some("*") {
            return match is_loopback(host) {
                true => Ok(Self::AnyPort(format!("{scheme}://{}", canonical_host(host)?))),
                false => Err("a port `*` is for this machine only, such as `http://localhost:*`: write the port, or none".to_owned()),
            };
        }
        let port = port.map(|port| canonical_port(scheme, port)).transpose()?.unwrap_or_default();
        if let Some(domain) = host.strip_prefix("*.") {
            let domain = canonical_host(domain)?;
            if domain.parse::<Ipv4Addr>().is_ok() {
                return Err("an address has no hosts below it: write the address".to_owned());
            }
            return Ok(Self::Below { scheme: format!("{scheme}://"), rest: format!(".{domain}{port}") });
        }
        if host.contains('*') {
            return Err(format!(
                "`*` stands for whole labels at the beginning, as in `{scheme}://*.game.example`; alone, `*`, it is every origin"
            ));
        }
        Ok(Self::Exact(format!("{scheme}://{}{port}", canonical_host(host)?)))
    }

    /// Returns true if the entry allows the `Origin` of a request.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        match self {
            Self::Any => true,
            Self::Null => origin == "null",
            Self::Exact(exact) => *exact == without_own_port(&origin),
            Self::Below { scheme, rest } => {
                let origin = without_own_port(&origin);
                let labels = origin.strip_prefix(scheme).and_then(|host| host.strip_suffix(rest));
                labels.is_some_and(|labels| canonical_host(labels).is_ok())
            }
            Self::AnyPort(host) => origin.strip_prefix(host).is_some_and(|port| {
                let digits = port.strip_prefix(':').unwrap_or("80");
                (port.is_empty() || port.starts_with(':')) && digits.parse::<u16>().is_ok_and(|port| port > 0)
            }),
        }
    }
}

/// Splits an authority into host and port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Returns the port with its colon; nothing if the port is the scheme's default.
fn canonical_port(scheme: &str, port: &str) -> Result<String, String> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(80) if scheme == "http" => Ok(String::new()),
        Ok(443) if scheme == "https" => Ok(String::new()),
        Ok(port @ 1..) if digits => Ok(format!(":{port}")),
        _ => Err("the port must be a number from 1 to 65535".to_owned()),
    }
}

/// Removes the scheme's default port from an origin: browsers leave it out.
fn without_own_port(origin: &str) -> &str {
    let own = [("http://", ":80"), ("https://", ":443")];
    let stripped = own
        .iter()
        .find_map(|(scheme, port)| origin.strip_suffix(port).filter(|rest| rest.starts_with(scheme)));
    stripped.unwrap_or(origin)
}

/// Returns a host in the notation of browsers.
fn canonical_host(host: &str) -> Result<String, String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| "the address in brackets is none".to_owned())?;
        return Ok(match address.to_ipv4_mapped() {
            None => format!("[{address}]"),
            Some(_) => {
                let [.., high, low] = address.segments();
                format!("[::ffff:{high:x}:{low:x}]")
            }
        });
    }
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if !host.split('.').all(label) {
        return Err(
            "the host is none: names and numbers with single dots between, no dot at the end".to_owned()
        );
    }
    // Browsers write IPv4 addresses with four decimal numbers.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit()) || label.starts_with("0x");
    if host.rsplit('.').next().is_some_and(numeric) && host.parse::<Ipv4Addr>().is_err() {
        return Err("an address has four decimal numbers, such as 192.0.2.1".to_owned());
    }
    Ok(host.to_owned())
}

fn is_loopback(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host.ends_with(".localhost") && !host.starts_with('*')
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_taken_matches_what_browsers_send() {
        for (pattern, matches, others) in [
            ("*", &["https://a.example", "null"][..], &[][..]),
            ("null", &["null"], &["https://null", "file://"]),
            ("file://", &["file://"], &["null", "file:///tmp"]),
            (
                "https://a.example",
                &["https://a.example", "https://A.example", "https://a.example:443"],
                &[
                    "http://a.example",
                    "https://a.example:444",
                    "https://a.example.evil",
                    "https://xa.example",
                    "null",
                ],
            ),
            ("https://a.example:443", &["https://a.example"], &["https://a.example:80"]),
            ("http://a.example:80", &["http://a.example"], &["https://a.example"]),
            ("http://a.example:443", &["http://a.example:443"], &["http://a.example", "https://a.example"]),
            ("HTTPS://A.Example:8443", &["https://a.example:8443"], &["https://a.example"]),
            ("https://a.example:08443", &["https://a.example:8443"], &[]),
            (
                "https://*.example.org",
                &["https://a.example.org", "https://a.b.example.org", "https://a.example.org:443"],
                &[
                    "https://example.org",
                    "https://.example.org",
                    "http://a.example.org",
                    "https://a.example.org:8443",
                    "https://aexample.org",
                    "https://evil/.example.org",
                    "https://user@a.example.org",
                    "https://a..example.org",
                ],
            ),
            ("https://*.example.org:8443", &["https://a.example.org:8443"], &["https://a.example.org"]),
            ("https://*.x", &["https://a.x"], &["https://x", "https://a.y"]),
            (
                "http://localhost:*",
                &["http://localhost", "http://localhost:3000"],
                &[
                    "https://localhost:3000",
                    "http://localhost.evil:3000",
                    "http://localhost:",
                    "http://localhost:x",
                    "http://localhost:99999",
                    "http://localhost:80@evil",
                ],
            ),
            ("http://127.0.0.1:*", &["http://127.0.0.1:5173"], &["http://127.0.0.2:5173"]),
            ("http://[::1]:*", &["http://[::1]:5173", "http://[::1]"], &["http://[::2]:1"]),
            ("http://[0:0::1]:8080", &["http://[::1]:8080"], &[]),
            ("http://[::ffff:127.0.0.1]", &["http://[::ffff:7f00:1]"], &[]),
            ("https://xn--mnchen-3ya.example", &["https://xn--mnchen-3ya.example"], &[]),
            ("chrome-extension://abcdef", &["chrome-extension://abcdef"], &["https://abcdef"]),
            ("capacitor://localhost", &["capacitor://localhost"], &[]),
        ] {
            let parsed = OriginPattern::parse(pattern).unwrap();
            for origin in matches {
                assert!(parsed.matches(origin), "{pattern} {origin}");
            }
            for origin in others {
                assert!(!parsed.matches(origin), "{pattern} {origin}");
            }
        }
    }

    #[test]
    fn what_could_never_match_is_refused_with_what_to_write() {
        for (pattern, says) in [
            ("", "scheme"),
            ("game.example", "scheme"),
            ("*.game.example", "scheme"),
            ("://game.example", "scheme is none"),
            ("wss://game.example", "write `https://...`"),
            ("https://game.example/", "write `https://game.example`"),
            ("https://game.example:8443/play?x#y", "write `https://game.example:8443`"),
            ("https://user:secret@game.example", "write `https://game.example`"),
            ("https://münchen.example", "Punycode"),
            ("https://", "the host is none"),
            ("https://game.example.", "no dot at the end"),
            ("https://game..example", "the host is none"),
            ("https://game example", "the host is none"),
            ("https://*", "every origin"),
            ("https://a.*.example", "at the beginning"),
            ("https://game*.example", "at the beginning"),
            ("https://*.192.0.2.1", "no hosts below"),
            ("https://game.example:*", "write the port"),
            ("https://*.localhost:*", "write the port"),
            ("https://game.example:0", "from 1 to 65535"),
            ("https://game.example:", "from 1 to 65535"),
            ("https://game.example:65536", "from 1 to 65535"),
            ("https://game.example:https", "from 1 to 65535"),
            ("http://127.1", "four decimal numbers"),
            ("http://[::1", "the host is none"),
            ("http://[localhost]", "brackets"),
            ("file:///page.html", "write `file://`"),
        ] {
            let error = OriginPattern::parse(pattern).expect_err(pattern);
            assert!(error.contains(says), "{pattern}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_exact_ones_match_themselves(pattern in "[ -~é]{0,40}", origin in "[ -~é]{0,40}") {
            if let Ok(parsed) = OriginPattern::parse(&pattern) {
                parsed.matches(&origin);
                if let OriginPattern::Exact(exact) = &parsed {
                    prop_assert!(parsed.matches(exact));
                }
            }
        }
    }
}
