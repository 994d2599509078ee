//! The checks of the upgrade request (row W1): from the bytes of a request head to the player, or
//! to the refusal. Nothing here does IO.
//!
//! The checks run in this order, and the first failure is the answer: syntax of HTTP (400), path
//! (404), method (405), upgrade to a WebSocket (426, or 400 if malformed), `Origin` (403), token
//! (401).
//!
//! The token is in the header `X-Game-Token`. Browsers cannot set this header and offer the token
//! as a subprotocol: `Sec-WebSocket-Protocol: skirmish.v1, token.<JWT>`.

use bytes::Bytes;
use httparse::{EMPTY_HEADER, Request};
use skirmish_core::id::Name;
use skirmish_core::node::Trace;
use skirmish_core::time::Wall;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{MAX_HEADERS, RefusedRequest};
use super::trace::TraceHeaders;
use crate::config::{Config, OriginPattern};
use crate::token::Keys;

/// The subprotocol of this server.
pub const SUBPROTOCOL: &str = "skirmish.v1";
/// Prefix of a token that is offered as a subprotocol.
pub const TOKEN_PREFIX: &str = "token.";

/// Rules for upgrade requests.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) paths: Vec<String>,
    pub(super) origins: Vec<OriginPattern>,
    pub(super) keys: Keys,
}

/// A request that passed the checks.
#[derive(Debug)]
pub(super) struct AcceptedUpgrade {
    pub(super) player: Name,
    pub(super) token: Bytes,
    /// Trace context from the request's headers.
    pub(super) trace: Option<Trace>,
    /// The answer to send.
    pub(super) response: String,
}

impl Policy {
    pub(super) fn new(config: &Config, keys: Keys) -> Self {
        // An invalid origin was refused with the configuration.
        let origins = config.auth.origins.iter().filter_map(|origin| OriginPattern::parse(origin).ok());
        Self { paths: config.listen.paths.clone(), origins: origins.collect(), keys }
    }

    /// Checks a whole request head.
    ///
    /// # Errors
    /// The answer to send instead of the upgrade.
    pub(super) fn check(&self, head: &[u8], wall: Wall) -> Result<AcceptedUpgrade, RefusedRequest> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => {
                return Err(RefusedRequest::bad_request("the request has no end"));
            }
            Err(httparse::Error::TooManyHeaders) => {
                return Err(RefusedRequest::too_large("too many headers"));
            }
            Err(_) => return Err(RefusedRequest::bad_request("not an HTTP request")),
        }
        let path = request.path.and_then(|path| path.split(['?', '#']).next()).unwrap_or("");
        if !self.paths.iter().any(|known| known == path) {
            return Err(RefusedRequest::not_found());
        }
        if request.method != Some("GET") {
            return Err(RefusedRequest::method_not_allowed());
        }
        let headers = Headers::gather(&request)?;
        let accept_key = headers.check_websocket(request.version == Some(1))?;
        self.check_origin(headers.origin)?;
        let token = headers.token()?;
        let player =
            self.keys.verify(token, wall).map_err(|e| RefusedRequest::unauthorized(e.to_string()))?;
        let protocol = match headers.offers_subprotocol {
            true => "Sec-WebSocket-Protocol: skirmish.v1\r\n",
            false => "",
        };
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept_key}\r\n{protocol}\r\n"
        );
        let token = Bytes::copy_from_slice(token.as_bytes());
        Ok(AcceptedUpgrade { player, token, trace: headers.trace.parse(), response })
    }

    /// Denies by default: a request with an origin passes only if the origin is listed.
    fn check_origin(&self, origin: Option<&str>) -> Result<(), RefusedRequest> {
        let Some(origin) = origin else { return Ok(()) };
        let listed = self.origins.iter().any(|known| known.matches(origin));
        if listed {
            Ok(())
        } else {
            Err(RefusedRequest::forbidden_origin("this origin may not connect", origin))
        }
    }
}

/// The headers that matter. A request that repeats the version, key, origin or token is refused.
/// Errors in the trace headers never cause a refusal.
#[derive(Debug, Default)]
struct Headers<'a> {
    upgrades_connection: bool,
    upgrades_to_websocket: bool,
    version: Option<&'a str>,
    key: Option<&'a str>,
    origin: Option<&'a str>,
    game_token: Option<&'a str>,
    protocol_token: Option<&'a str>,
    offers_any: bool,
    offers_subprotocol: bool,
    has_body: bool,
    trace: TraceHeaders<'a>,
}

impl<'a> Headers<'a> {
    fn gather(request: &Request<'_, 'a>) -> Result<Self, RefusedRequest> {
        let mut all = Self::default();
        for header in request.headers.iter() {
            let name = header.name;
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let value = || {
                let text = std::str::from_utf8(header.value).map(str::trim);
                text.map_err(|_| RefusedRequest::bad_request("a header is not text"))
            };
            let hint = if is("traceparent") {
                Some(&mut all.trace.traceparent)
            } else if is("b3") {
                Some(&mut all.trace.b3)
            } else if is("x-b3-traceid") {
                Some(&mut all.trace.b3_trace_id)
            } else if is("x-b3-spanid") {
                Some(&mut all.trace.b3_span_id)
            } else if is("x-b3-sampled") {
                Some(&mut all.trace.b3_sampled)
            } else {
                None
            };
            if let Some(hint) = hint {
                hint.put(header.value);
                continue;
            }
            let slot = if is("sec-websocket-version") {
                &mut all.version
            } else if is("sec-websocket-key") {
                &mut all.key
            } else if is("origin") {
                &mut all.origin
            } else if is("x-game-token") {
                &mut all.game_token
            } else {
                if is("connection") {
                    all.upgrades_connection |=
                        list(value()?).any(|item| item.eq_ignore_ascii_case("upgrade"));
                } else if is("upgrade") {
                    all.upgrades_to_websocket |=
                        list(value()?).any(|item| item.eq_ignore_ascii_case("websocket"));
                } else if is("sec-websocket-protocol") {
                    list(value()?).try_for_each(|item| all.offer(item))?;
                } else if is("transfer-encoding") || (is("content-length") && value()? != "0") {
                    all.has_body = true;
                }
                continue;
            };
            if slot.replace(value()?).is_some() {
                return Err(RefusedRequest::bad_request(format!(
                    "the header {} stands twice",
                    name.to_lowercase()
                )));
            }
        }
        Ok(all)
    }

    /// Adds an offered subprotocol.
    fn offer(&mut self, item: &'a str) -> Result<(), RefusedRequest> {
        self.offers_any = true;
        if item == SUBPROTOCOL {
            self.offers_subprotocol = true;
        } else if let Some(token) = item.strip_prefix(TOKEN_PREFIX)
            && self.protocol_token.replace(token).is_some()
        {
            return Err(RefusedRequest::bad_request("two tokens are offered as subprotocols"));
        }
        Ok(())
    }

    /// Checks that the request asks correctly for a WebSocket. Returns the key of the answer.
    fn check_websocket(&self, http_1_1: bool) -> Result<String, RefusedRequest> {
        if !http_1_1 || !self.upgrades_connection || !self.upgrades_to_websocket {
            return Err(RefusedRequest::upgrade_required("this is a WebSocket endpoint"));
        }
        if self.version != Some("13") {
            return Err(RefusedRequest::upgrade_required("the WebSocket version must be 13"));
        }
        let key = self.key.unwrap_or("");
        // 16 bytes in base64.
        let is_key = key.len() == 24 && key.ends_with("==") && key.bytes().all(|b| !b.is_ascii_whitespace());
        if !is_key {
            return Err(RefusedRequest::bad_request("sec-websocket-key is missing or malformed"));
        }
        if self.has_body {
            return Err(RefusedRequest::bad_request("an upgrade request has no body"));
        }
        if self.offers_any && !self.offers_subprotocol {
            return Err(RefusedRequest::bad_request("of subprotocols, skirmish.v1 must be offered"));
        }
        Ok(derive_accept_key(key.as_bytes()))
    }

    fn token(&self) -> Result<&'a str, RefusedRequest> {
        match (self.game_token, self.protocol_token) {
            (Some(header), Some(protocol)) if header != protocol => {
                Err(RefusedRequest::bad_request("two tokens, and they differ"))
            }
            (Some(""), _) | (_, Some("")) | (None, None) => {
                Err(RefusedRequest::unauthorized("a token is missing: send it in x-game-token".to_owned()))
            }
            (Some(token), _) | (None, Some(token)) => Ok(token),
        }
    }
}

/// Returns the items of a header that is a list.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Wall = Wall(1_000_000_000_000);
    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn policy() -> Policy {
        let mut config = Config::default();
        config.auth.origins = vec!["https://game.example".to_owned()];
        Policy::new(&config, Keys::from_secret("a", &[1; 32]).unwrap())
    }

    fn token() -> String {
        policy().keys.sign(&Name::new("alice").unwrap(), Duration::from_secs(60), NOW, None).unwrap()
    }

    fn check(request: &str) -> Result<AcceptedUpgrade, RefusedRequest> {
        policy().check(request.as_bytes(), NOW)
    }

    #[test]
    fn a_good_request_is_answered_as_the_rfc_says() {
        let accepted =
            check(&format!("GET /ws?x=1 HTTP/1.1\r\n{UPGRADE}X-Game-Token: {}\r\n\r\n", token())).unwrap();
        assert_eq!(accepted.player.as_str(), "alice");
        assert_eq!(accepted.token, token().as_bytes());
        // The example of RFC 6455, section 1.3.
        assert!(accepted.response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!accepted.response.contains("Sec-WebSocket-Protocol"));
        assert!(accepted.response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn browsers_pass_the_token_as_a_subprotocol() {
        let token = token();
        for offer in [
            format!("Sec-WebSocket-Protocol: skirmish.v1, token.{token}\r\n"),
            format!("Sec-WebSocket-Protocol: token.{token}\r\nSec-WebSocket-Protocol: skirmish.v1\r\n"),
        ] {
            let request = format!("GET / HTTP/1.1\r\n{UPGRADE}Origin: https://GAME.example\r\n{offer}\r\n");
            let accepted = check(&request).unwrap();
            assert_eq!(accepted.player.as_str(), "alice");
            assert!(accepted.response.contains("Sec-WebSocket-Protocol: skirmish.v1\r\n"));
            assert!(!accepted.response.contains(&token), "the token is not sent back");
        }
    }

    #[test]
    fn what_only_observes_never_refuses() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let good = format!("00-{id}-01");
        let long = "x".repeat(4_000);
        let with = |headers: &[(&str, &[u8])]| {
            let mut request =
                format!("GET / HTTP/1.1\r\n{UPGRADE}X-Game-Token: {}\r\n", token()).into_bytes();
            for (name, value) in headers {
                request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
            request.extend(b"\r\n");
            policy().check(&request, NOW).expect("it is not refused").trace.map(|trace| trace.trace_id[0])
        };
        let good = good.as_bytes();
        for name in ["traceparent", "TraceParent", "b3", "X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled"] {
            for bad in [&b""[..], b"\xff\xfe", b"00-nonsense", "\u{e9}".as_bytes(), long.as_bytes()] {
                assert_eq!(with(&[(name, bad)]), None, "{name}");
                assert_eq!(with(&[(name, bad), (name, bad)]), None, "{name} twice");
            }
        }
        for name in ["tracestate", "X-B3-ParentSpanId", "X-B3-Flags", "baggage", "X-Request-Id"] {
            assert_eq!(with(&[("traceparent", good), (name, b"\xff"), (name, long.as_bytes())]), Some(0x4b));
        }
        assert_eq!(with(&[("traceparent", good), ("traceparent", good)]), None, "which of them is not known");
        assert_eq!(with(&[("traceparent", good); 3]), None);
        let b3 = id.as_bytes();
        assert_eq!(with(&[("traceparent", good), ("traceparent", b"x"), ("b3", b3)]), Some(0x4b));
        assert_eq!(with(&[("traceparent", b"\xff"), ("b3", b3)]), Some(0x4b));
        assert_eq!(with(&[("b3", b3), ("b3", b3)]), None);
    }

    #[test]
    fn the_trace_context_is_taken() {
        let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
        let request = format!("GET / HTTP/1.1\r\n{UPGRADE}{trace}X-Game-Token: {}\r\n\r\n", token());
        assert_eq!(check(&request).unwrap().trace.unwrap().trace_id[0], 0x4b);
    }

    #[test]
    fn refusals() {
        let good = format!("X-Game-Token: {}\r\n", token());
        let expired = policy().keys.sign(&Name::new("a").unwrap(), Duration::ZERO, Wall(0), None).unwrap();
        let forged = Keys::from_secret("a", &[2; 32]).unwrap();
        let forged = forged.sign(&Name::new("a").unwrap(), Duration::from_secs(60), NOW, None).unwrap();
        let header =
            |name: &str, value: &str| format!("GET / HTTP/1.1\r\n{UPGRADE}{good}{name}: {value}\r\n\r\n");
        let with_token = |token: &str| format!("GET / HTTP/1.1\r\n{UPGRADE}X-Game-Token: {token}\r\n\r\n");
        let without = |name: &str| {
            let lines = UPGRADE.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
            format!("GET / HTTP/1.1\r\n{}{good}\r\n", lines.collect::<String>())
        };
        let many: String = (0..MAX_HEADERS).map(|i| format!("x-{i}: 1\r\n")).collect();
        let cases = [
            ("not HTTP", "\x16\x03\x01\r\n\r\n".to_owned(), 400),
            ("cut off", "GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), 400),
            ("too many headers", format!("GET / HTTP/1.1\r\n{UPGRADE}{many}\r\n"), 431),
            ("other path", format!("GET /admin HTTP/1.1\r\n{UPGRADE}{good}\r\n"), 404),
            ("other method", format!("POST / HTTP/1.1\r\n{UPGRADE}{good}\r\n"), 405),
            ("HTTP/1.0", format!("GET / HTTP/1.0\r\n{UPGRADE}{good}\r\n"), 426),
            ("plain GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 426),
            ("no Connection", without("Connection"), 426),
            ("no Upgrade", without("Upgrade"), 426),
            ("no version", without("Sec-WebSocket-Version"), 426),
            ("no key", without("Sec-WebSocket-Key"), 400),
            ("version twice", header("Sec-WebSocket-Version", "13"), 400),
            ("key twice", header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), 400),
            ("body", header("Content-Length", "5"), 400),
            ("chunked body", header("Transfer-Encoding", "chunked"), 400),
            ("other subprotocol only", header("Sec-WebSocket-Protocol", "chat"), 400),
            ("two tokens that differ", header("Sec-WebSocket-Protocol", "skirmish.v1, token.x"), 400),
            ("token twice", header("X-Game-Token", "x"), 400),
            ("other origin", header("Origin", "https://evil.example"), 403),
            ("origin of a file", header("Origin", "null"), 403),
            ("origin as a prefix", header("Origin", "https://game.example.evil.example"), 403),
            ("bad origin and no token", "GET / HTTP/1.1\r\nOrigin: x\r\n".to_owned() + UPGRADE + "\r\n", 403),
            ("no token", format!("GET / HTTP/1.1\r\n{UPGRADE}\r\n"), 401),
            ("empty token", with_token(""), 401),
            ("malformed token", with_token("x.y.z"), 401),
            ("expired token", with_token(&expired), 401),
            ("forged token", with_token(&forged), 401),
        ];
        for (what, request, status) in cases {
            let refused = check(&request).map(|a| a.player).expect_err(what);
            assert_eq!(refused.status(), status, "{what}: {}", refused.body());
            for secret in [&expired, &forged, &token()] {
                assert!(!refused.response(0).contains(secret.as_str()), "{what}: shows the token");
            }
        }
    }
}
