//! Parsers for `X-Forwarded-For` and `Forwarded` (RFC 7239), which proxies write.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Returns the elements of a list, the last first, without empty ones. A comma within quotes does
/// not separate elements. Text further left, perhaps written by a client, does not change the
/// reading of an element.
pub(super) fn elements_from_the_right(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let element = last_element(text);
            rest = text.len().checked_sub(element.len() + 1).and_then(|before| text.get(..before));
            let element = element.trim();
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// Returns the text after the last comma that is followed by an even number of quotes. If no such
/// comma exists, returns the text after the last comma.
fn last_element(list: &str) -> &str {
    let commas = list.match_indices(',').rev().map(|(at, _)| at + 1).chain([0]);
    let mut candidates = commas.filter_map(|from| list.get(from..));
    let whole = |element: &&str| quotes(element).is_multiple_of(2);
    candidates.find(whole).unwrap_or_else(|| list.rsplit(',').next().unwrap_or(list))
}

/// Counts the quotes that are not escaped.
fn quotes(text: &str) -> usize {
    let mut escaped = false;
    let counts = |c: char| {
        let quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        quote
    };
    text.chars().map(counts).filter(|quote| *quote).count()
}

/// Returns the address in the `for` of an element of `Forwarded`, if there is one.
pub(super) fn named_by_element(element: &str) -> Option<IpAddr> {
    let mut named = None;
    let mut rest = element;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        if name.trim().eq_ignore_ascii_case("for") {
            // An element with two addresses names none.
            if named.is_some() {
                return None;
            }
            named = Some(bracketed_node(&value)?);
        }
        let after = after.trim();
        match after.strip_prefix(';') {
            Some(next) if !next.trim().is_empty() => rest = next,
            Some(_) => return named,
            None if after.is_empty() => return named,
            None => return None,
        }
    }
}

/// Splits off a token or a quoted string from the rest.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t', '"']).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return Some((token.to_owned(), rest));
    };
    let mut unquoted = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return Some((unquoted, quoted.get(at + 1..)?)),
            '\\' if !escaped => escaped = true,
            c => {
                escaped = false;
                unquoted.push(c);
            }
        }
    }
    None
}

/// Parses an address in the form of RFC 7239: IPv6 in brackets, with an optional port or `_port`.
fn bracketed_node(text: &str) -> Option<IpAddr> {
    let without_hidden_port = match text.rsplit_once(":_") {
        Some((address, port)) if port.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) => {
            address
        }
        _ => text,
    };
    if without_hidden_port.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    node(without_hidden_port)
}

/// Parses an address in the form that proxies write: with or without a port, IPv6 with or without
/// brackets.
pub(super) fn node(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    let address = address.or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip()))?;
    Some(address.to_canonical())
}
