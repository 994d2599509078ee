//! Trace context from the upgrade's headers: W3C `traceparent`, or B3 (row T1).

use skirmish_core::node::Trace;
use skirmish_core::rng::Rng;

/// A header that is only for observation. No error in it makes the request be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hint<'a> {
    /// The header is missing.
    #[default]
    None,
    /// The header occurs once, and is text.
    One(&'a str),
    /// The header occurs several times, or is no text. Counts as missing.
    Unclear,
}

impl<'a> Hint<'a> {
    /// Adds an occurrence of the header.
    pub(super) fn put(&mut self, value: &'a [u8]) {
        *self = match (*self, std::str::from_utf8(value)) {
            (Self::None, Ok(text)) => Self::One(text.trim()),
            _ => Self::Unclear,
        };
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Self::One(text) => Some(text),
            Self::None | Self::Unclear => None,
        }
    }
}

/// The headers that can carry a trace context. The related headers `tracestate`,
/// `X-B3-ParentSpanId` and `X-B3-Flags` are not read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TraceHeaders<'a> {
    /// `traceparent`.
    pub(super) traceparent: Hint<'a>,
    /// `b3`.
    pub(super) b3: Hint<'a>,
    /// `X-B3-TraceId`.
    pub(super) b3_trace_id: Hint<'a>,
    /// `X-B3-SpanId`.
    pub(super) b3_span_id: Hint<'a>,
    /// `X-B3-Sampled`.
    pub(super) b3_sampled: Hint<'a>,
}

impl TraceHeaders<'_> {
    /// Returns the context that the headers carry. W3C is preferred. A malformed or repeated header
    /// counts as missing, as the specifications demand.
    pub(super) fn parse(&self) -> Option<Trace> {
        let several = || b3(self.b3_trace_id.text()?, self.b3_span_id.text(), self.b3_sampled.text());
        self.traceparent.text().and_then(w3c).or_else(|| self.b3.text().and_then(b3_single)).or_else(several)
    }
}

/// Returns a new trace, not sampled.
pub(super) fn fresh(rng: &mut Rng) -> Trace {
    Trace { trace_id: rng.bytes(), span_id: rng.bytes(), flags: 0 }
}

/// Parses `version-traceid-spanid-flags`. A version after 00 may have more after the flags.
fn w3c(header: &str) -> Option<Trace> {
    let header = header.trim();
    let mut parts = header.split('-');
    let version = parts.next()?;
    let [version_number]: [u8; 1] = hex(version)?;
    let trace_id = hex(parts.next()?)?;
    let span_id = hex(parts.next()?)?;
    let [flags] = hex(parts.next()?)?;
    if version_number == 0xff || (version_number == 0 && parts.next().is_some()) {
        return None;
    }
    valid(Trace { trace_id, span_id, flags: flags & 1 })
}

/// Parses `traceid-spanid[-sampled[-parentspanid]]`.
fn b3_single(header: &str) -> Option<Trace> {
    let mut parts = header.trim().split('-');
    let trace_id = parts.next()?;
    let span_id = parts.next()?;
    b3(trace_id, Some(span_id), parts.next())
}

fn b3(trace_id: &str, span_id: Option<&str>, sampled: Option<&str>) -> Option<Trace> {
    let trace_id = trace_id.trim();
    let trace_id = match trace_id.len() {
        16 => {
            let mut wide = [0; 16];
            wide[8..].copy_from_slice(&hex::<8>(trace_id)?);
            wide
        }
        _ => hex(trace_id)?,
    };
    let span_id = hex(span_id?.trim())?;
    let flags = u8::from(matches!(sampled.map(str::trim), Some("1" | "d" | "true")));
    valid(Trace { trace_id, span_id, flags })
}

fn valid(trace: Trace) -> Option<Trace> {
    (trace.trace_id != [0; 16] && trace.span_id != [0; 8]).then_some(trace)
}

/// Parses exactly `N` bytes from lower or upper case hexadecimal digits.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn trace(flags: u8) -> Trace {
        Trace { trace_id: hex(ID).unwrap(), span_id: hex(SPAN).unwrap(), flags }
    }

    #[test]
    fn w3c_traceparent() {
        let parse =
            |header: &str| TraceHeaders { traceparent: Hint::One(header), ..Default::default() }.parse();
        assert_eq!(parse(&format!("00-{ID}-{SPAN}-01")), Some(trace(1)));
        assert_eq!(parse(&format!("00-{ID}-{SPAN}-00")), Some(trace(0)));
        assert_eq!(parse(&format!("cc-{ID}-{SPAN}-01-what-is-next")), Some(trace(1)), "a later version");
        for bad in [
            String::new(),
            format!("ff-{ID}-{SPAN}-01"),
            format!("00-{ID}-{SPAN}-01-more"),
            format!("00-{ID}-{SPAN}"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{ID}-{}-01", "0".repeat(16)),
            format!("00-{ID}x-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "g".repeat(32)),
            format!("0-{ID}-{SPAN}-01"),
            "é".repeat(30),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn b3_in_one_header_and_in_several() {
        let single = |header: &str| TraceHeaders { b3: Hint::One(header), ..Default::default() }.parse();
        assert_eq!(single(&format!("{ID}-{SPAN}-1")), Some(trace(1)));
        assert_eq!(single(&format!("{ID}-{SPAN}-d-{SPAN}")), Some(trace(1)));
        assert_eq!(single(&format!("{ID}-{SPAN}")), Some(trace(0)));
        assert_eq!(single("0"), None, "only says: do not sample");
        let hint = |text: Option<&'static str>| text.map_or(Hint::None, Hint::One);
        let several = |id, span, sampled| {
            let (b3_trace_id, b3_span_id, b3_sampled) = (hint(id), hint(span), hint(sampled));
            TraceHeaders { b3_trace_id, b3_span_id, b3_sampled, ..Default::default() }.parse()
        };
        assert_eq!(several(Some(ID), Some(SPAN), Some("1")), Some(trace(1)));
        assert_eq!(several(Some(ID), Some(SPAN), None), Some(trace(0)));
        assert_eq!(several(Some(ID), None, None), None);
        let mut narrow = trace(0);
        narrow.trace_id[..8].fill(0);
        assert_eq!(several(Some(&ID[16..]), Some(SPAN), Some("0")), Some(narrow), "64 bits are widened");
    }

    #[test]
    fn w3c_wins_and_falls_back() {
        let b3 = format!("{ID}-{SPAN}-1");
        let other = format!("00-{}-{SPAN}-00", "1".repeat(32));
        let both = |w3c| {
            TraceHeaders { traceparent: Hint::One(w3c), b3: Hint::One(&b3), ..Default::default() }.parse()
        };
        assert_eq!(both(&other).unwrap().trace_id, [0x11; 16]);
        assert_eq!(both("malformed"), Some(trace(1)));
    }
}
