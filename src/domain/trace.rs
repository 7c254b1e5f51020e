//! W3C trace context: to which trace something belongs, as a `traceparent` says it.

use std::fmt;

use uuid::Uuid;

/// What the gateway says in `tracestate` of a trace that it has begun: nobody before it was in one.
pub(crate) const BEGUN_BY_GATEWAY: &str = "dms=gateway";
/// The longest `tracestate` that is passed on.
pub(crate) const TRACE_STATE_BYTES_MAX: usize = 512;
/// What a trace context takes in a record.
pub(crate) const STORED_BYTES: usize = 25;

/// `{version}-{trace id}-{span id}-{flags}`
const TEXT_BYTES: usize = 55;
/// The only flag that all know; the standard has the others set to zero.
const SAMPLED: u8 = 1;

/// A trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span of a trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// A span and its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    flags: u8,
}

impl TraceContext {
    /// The first span of a new trace.
    pub fn begin(sampled: bool) -> Self {
        // Random, and not zero: a UUID has its version and variant in it.
        let trace_id = TraceId(Uuid::new_v4().into_bytes());
        Self { trace_id, span_id: SpanId::random(), flags: if sampled { SAMPLED } else { 0 } }
    }

    /// Whether those in the trace are asked to keep their spans.
    pub(crate) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: SpanId::random(), ..self }
    }

    /// The same span, of which nothing is kept.
    #[must_use]
    pub(crate) fn unsampled(self) -> Self {
        Self { flags: 0, ..self }
    }

    /// Reads a `traceparent`; `None` when the standard has it ignored. Later versions begin like this one.
    pub fn parse(text: impl AsRef<[u8]>) -> Option<Self> {
        let (text, more) = text.as_ref().split_at_checked(TEXT_BYTES)?;
        let [version] = unhex(&text[..2])?;
        let [flags] = unhex(&text[53..])?;
        let dashes = [2, 35, 52].iter().all(|at| text[*at] == b'-');
        let ended = if version == 0 { more.is_empty() } else { more.first().is_none_or(|next| *next == b'-') };
        if version == 0xff || !dashes || !ended {
            return None;
        }
        Self::checked(unhex(&text[3..35])?, unhex(&text[36..52])?, flags & SAMPLED)
    }

    /// Reads the values of a `traceparent` header. Nobody can say which one is meant when there are several.
    pub(crate) fn of_header<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value) }
    }

    /// As a record keeps it.
    pub fn to_bytes(self) -> [u8; STORED_BYTES] {
        let mut bytes = [0; STORED_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.0);
        bytes[16..24].copy_from_slice(&self.span_id.0);
        bytes[24] = self.flags;
        bytes
    }

    /// Reads what [`TraceContext::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk::<16>()?;
        let (span_id, [flags]) = rest.split_first_chunk::<8>()? else { return None };
        Self::checked(*trace_id, *span_id, *flags)
    }

    fn checked(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Self> {
        let named = trace_id != [0; 16] && span_id != [0; 8];
        named.then_some(Self { trace_id: TraceId(trace_id), span_id: SpanId(span_id), flags })
    }
}

impl TraceId {
    /// As it goes over the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// As it goes over the wire.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    fn random() -> Self {
        // Not zero: the variant of the UUID stands in this half.
        let (_, half) = Uuid::new_v4().as_u64_pair();
        Self(half.to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0, &mut [0; 32])
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0, &mut [0; 16])
    }
}

/// A `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.fmt(f)?;
        f.write_str("-")?;
        self.span_id.fmt(f)?;
        f.write_str(if self.is_sampled() { "-01" } else { "-00" })
    }
}

/// Writes hex digits; `digits` has two bytes for each. Every call writes several ids, and `{:x}` takes ten times as long.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8], digits: &mut [u8]) -> fmt::Result {
    hex::encode_to_slice(bytes, digits).map_err(|_| fmt::Error)?;
    f.write_str(str::from_utf8(digits).map_err(|_| fmt::Error)?)
}

/// Lower-case hex digits of so many bytes.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !digits.iter().any(u8::is_ascii_uppercase);
    (lower && hex::decode_to_slice(digits, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn changed(at: usize, to: &str) -> String {
        format!("{}{to}{}", &GIVEN[..at], &GIVEN[at + to.len()..])
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(GIVEN).unwrap();
        assert_eq!(context.to_string(), GIVEN);
        assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id.to_string(), "b7ad6b7169203331");
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        let malformed = [
            String::new(),
            GIVEN[..54].to_owned(),
            format!("{GIVEN} "),
            format!("{GIVEN}-x"),
            GIVEN.to_uppercase(),
            changed(0, "ff"),
            changed(0, "0x"),
            changed(2, "_"),
            changed(35, "0"),
            changed(52, "+"),
            changed(3, "A"),
            changed(10, "g"),
            changed(53, "-1"),
            changed(3, &"0".repeat(32)),
            changed(36, &"0".repeat(16)),
            "é".repeat(30),
        ];
        for text in malformed {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_this_one() {
        for text in [changed(0, "01"), format!("{}-more", changed(0, "fe"))] {
            assert_eq!(TraceContext::parse(&text).unwrap().to_string(), GIVEN, "{text}");
        }
        assert_eq!(TraceContext::parse(format!("{}more", changed(0, "01"))), None);
    }

    #[test]
    fn flags_that_are_not_known_are_cleared() {
        for (given, kept) in [("00", "00"), ("01", "01"), ("02", "00"), ("ff", "01")] {
            assert_eq!(TraceContext::parse(changed(53, given)).unwrap().to_string(), changed(53, kept));
        }
    }

    #[test]
    fn only_one_header_counts() {
        let of = |values: &[&str]| TraceContext::of_header(values.iter().map(|value| value.as_bytes()));
        assert_eq!(of(&[GIVEN]), TraceContext::parse(GIVEN));
        assert_eq!((of(&[]), of(&[GIVEN, GIVEN])), (None, None));
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let (first, other) = (TraceContext::begin(false), TraceContext::begin(true));
        assert_ne!(first.trace_id, other.trace_id);
        let child = first.child();
        assert_eq!((child.trace_id, child.is_sampled()), (first.trace_id, false));
        assert!(other.child().is_sampled());
        assert_ne!(child.span_id, first.span_id);
        for context in [first, child] {
            assert_eq!(TraceContext::parse(context.to_string()), Some(context));
        }
    }

    #[test]
    fn bytes_come_back_and_others_are_none() {
        let context = TraceContext::parse(GIVEN).unwrap();
        let bytes = context.to_bytes();
        assert_eq!(TraceContext::from_bytes(&bytes), Some(context));
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        for bad in [Vec::new(), bytes[..24].to_vec(), longer, vec![0; STORED_BYTES]] {
            assert_eq!(TraceContext::from_bytes(&bad), None, "{bad:?}");
        }
    }
}
