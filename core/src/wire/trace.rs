//! Traces: the part of a frame's metadata that goes on to others.

use skirmish_proto::v1;

/// A trace (row T1), in the form of W3C Trace Context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Identifier of the trace; all zeros for none.
    pub trace_id: [u8; 16],
    /// Identifier of the span that is the parent of the work on this node.
    pub span_id: [u8; 8],
    /// Flags; bit 0: sampled.
    pub flags: u8,
}

impl Trace {
    /// The trace that a frame names, if it names one.
    #[must_use]
    pub fn from_metadata(metadata: &v1::Metadata) -> Option<Self> {
        Some(Self {
            trace_id: metadata.trace_id.as_ref().try_into().ok()?,
            span_id: metadata.span_id.as_ref().try_into().ok()?,
            flags: u8::try_from(metadata.trace_flags).ok()?,
        })
    }
}

/// Metadata with nothing but the trace of a frame, if the frame names one.
pub(crate) fn plain_trace(metadata: &v1::Metadata) -> v1::Metadata {
    match Trace::from_metadata(metadata) {
        Some(_) => v1::Metadata {
            trace_id: metadata.trace_id.clone(),
            span_id: metadata.span_id.clone(),
            trace_flags: metadata.trace_flags,
            ..v1::Metadata::default()
        },
        None => v1::Metadata::default(),
    }
}
