//! What every call passes through, in process and over the network alike: a bound on calls in flight, the request id,
//! the trace, who calls, the caller's deadline, error details, one log line.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span, field};
use uuid::Uuid;

use super::trace::CallTrace;
use super::traffic::Traffic;
use super::{access, arrival, compression, status};
use crate::auth::{Authenticator, rights};
use crate::domain::{Error, ErrorKind, text};
use crate::memory::{Answer, Arrival, Memory, Relayed, holding};
use crate::observe::log_limit::LogLimit;
use crate::observe::metrics::{Metrics, Refusal};
use crate::observe::spans;
use crate::observe::traceparent::{self, TRACEPARENT};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 64;
const GRPC_TIMEOUT: &str = "grpc-timeout";
const STATUS_DETAILS: &str = "grpc-status-details-bin";
/// The library cuts a call at its deadline with the wrong code, so ours comes a little earlier.
const CUT_EARLIER: Duration = Duration::from_millis(2);
/// What a long poll leaves of its deadline for the ways there and back: a tenth within these, at most half.
const ANSWER_MARGIN_MIN: Duration = Duration::from_millis(50);
const ANSWER_MARGIN_MAX: Duration = Duration::from_millis(500);

static FAILED: LogLimit = LogLimit::new();

/// What the layer knows.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// Bounds the calls in flight; beyond it they are refused at once (DMS.10240407).
    calls: Arc<Semaphore>,
    auth: Authenticator,
    traffic: Traffic,
    memory: Memory,
    metrics: Metrics,
}

impl Gate {
    /// A gate for so many calls at a time, of callers with good credentials.
    pub(super) fn new(
        calls_max: usize,
        auth: Authenticator,
        traffic: Traffic,
        memory: Memory,
        metrics: Metrics,
    ) -> Self {
        Self { calls: Arc::new(Semaphore::new(calls_max)), auth, traffic, memory, metrics }
    }
}

/// The layer.
pub(super) async fn around(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let trace = CallTrace::of(request.headers());
    let span = call_span(&request, &id, trace);
    spans::place(&span, trace.here, trace.parent);
    request.extensions_mut().insert(trace);
    let mut response = admit(&gate, request, next).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().insert(TRACEPARENT, traceparent::value(trace.here));
    response
}

/// At the level of errors, so that an error in the log always has the id and the trace of its call.
fn call_span(request: &Request, id: &HeaderValue, trace: CallTrace) -> Span {
    // A path has no control characters.
    tracing::error_span!(
        "call",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = %trace.here.trace_id,
        span_id = %trace.here.span_id,
        parent_span_id = trace.parent.map(|parent| field::display(parent.span_id)),
        path = request.uri().path(),
        caller = field::Empty
    )
}

async fn admit(gate: &Gate, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let relayed = request.extensions().get::<Relayed>().cloned();
    let method = rights::method(request.uri().path());
    let _in_flight = gate.metrics.calls().begun();
    let response = match gate.calls.try_acquire() {
        Ok(_held_until_answered) => match access::identify(&gate.auth, &gate.traffic, &mut request) {
            Ok(_held_too) => with_bounded_body(gate, request, next).await,
            Err(error) => {
                if error.kind() == ErrorKind::Overloaded {
                    gate.metrics.calls().refused(Refusal::Share);
                }
                refusal(error.into())
            }
        },
        Err(_) => {
            gate.metrics.calls().refused(Refusal::InFlight);
            refusal(Error::overloaded("too many calls in flight: retry later").into())
        }
    };
    let response = holding_memory(with_details(response), relayed);
    let (code, elapsed) = (code(&response), started.elapsed());
    if let Some(method) = method {
        gate.metrics.calls().ended(method, status::name(code), elapsed);
    }
    log(code, elapsed);
    response
}

/// What has come of the request is held until the answer, or until a handler says that it has let go of it.
async fn with_bounded_body(gate: &Gate, mut request: Request, next: Next) -> Response {
    if request.extensions().get::<Relayed>().is_some() {
        return within_deadline(request, next).await;
    }
    let wanted = match compression::wanted(request.headers()) {
        Ok(wanted) => wanted,
        Err(error) => return compression::refusal(error),
    };
    let owner = request.extensions().get::<access::Caller>().map(access::Caller::owner);
    let arrival = Arc::new(Arrival::new(&gate.memory, owner));
    if let Err(error) = arrival.begin(request.headers()) {
        gate.metrics.calls().refused(Refusal::Memory);
        return refusal(error.into());
    }
    request.extensions_mut().insert(Arc::clone(&arrival));
    let body = |body| arrival::bounded(body, Arc::clone(&arrival), gate.metrics.clone());
    match wanted.plain(request.map(body), &arrival).await {
        Ok(request) => wanted.answer(within_deadline(request, next).await),
        Err(status) => refusal(status),
    }
}

/// The memory of an answer is held until its last byte has left, and by whoever passes it on in the same process.
fn holding_memory(mut response: Response, relayed: Option<Relayed>) -> Response {
    let Some(answer) = response.extensions_mut().remove::<Answer>() else { return response };
    if let Some(relayed) = relayed {
        relayed.answered(answer.clone());
    }
    response.map(|body| holding(body, answer))
}

async fn within_deadline(mut request: Request, next: Next) -> Response {
    let Some(timeout) = grpc_timeout(request.headers()) else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(Deadline::after(timeout));
    let cut = timeout.saturating_sub(CUT_EARLIER.min(timeout / 10));
    let answer = tokio::time::timeout(cut, next.run(request)).await;
    answer.unwrap_or_else(|_elapsed| refusal(status::deadline_exceeded()))
}

/// When the caller stops waiting; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    margin: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        let margin = (timeout / 10).clamp(ANSWER_MARGIN_MIN, ANSWER_MARGIN_MAX).min(timeout / 2);
        Self { at: Instant::now() + timeout, margin }
    }

    /// The wait cut so that an empty answer still arrives in time.
    pub(super) fn shorten(self, wait: Duration) -> Duration {
        wait.min(self.at.saturating_duration_since(Instant::now()).saturating_sub(self.margin))
    }
}

/// At most 8 digits and a unit; anything else is no deadline.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = plain.then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The caller's id when it is plain, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|id| is_plain_id(id));
    given.cloned().unwrap_or_else(|| {
        let mut buffer = Uuid::encode_buffer();
        let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

fn is_plain_id(id: &HeaderValue) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.to_str().is_ok_and(text::is_plain)
}

fn refusal(status: Status) -> Response {
    status.into_http()
}

/// Gives the library's own errors the details that all of ours have.
fn with_details(response: Response) -> Response {
    let headers = response.headers();
    match Status::from_header_map(headers) {
        Some(bare) if bare.code() != Code::Ok && !headers.contains_key(STATUS_DETAILS) => {
            refusal(status::from_library(&bare))
        }
        _ => response,
    }
}

/// An error answers with its status in the headers; a success has it behind the body.
fn code(response: &Response) -> Code {
    let status = response.headers().get("grpc-status");
    status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

fn log(code: Code, elapsed: Duration) {
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    match code {
        Code::Internal | Code::Unavailable | Code::DataLoss | Code::Unknown => {
            spans::fail(&Span::current(), status::name(code));
            if let Some(left_out) = FAILED.admits() {
                tracing::info!(?code, elapsed_us, left_out, "call failed");
            }
        }
        _ => tracing::debug!(?code, elapsed_us, "call answered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TrafficLimits;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let cases = [
            ("100m", Some(Duration::from_millis(100))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("1M", Some(Duration::from_secs(60))),
            ("0S", Some(Duration::ZERO)),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789m", None),
            ("", None),
            ("m", None),
            ("+1m", None),
            ("-1m", None),
            ("1.5S", None),
            ("10", None),
        ];
        for (text, expected) in cases {
            assert_eq!(grpc_timeout(&headers(GRPC_TIMEOUT, text)), expected, "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn only_plain_request_ids_are_taken() {
        assert_eq!(request_id(&headers("x-request-id", "abc-123_X")), "abc-123_X");
        for bad in ["", "a b", "a;b", &"a".repeat(65)] {
            let id = request_id(&headers("x-request-id", bad));
            assert!(Uuid::try_parse(id.to_str().unwrap()).is_ok(), "{bad}: {id:?}");
        }
    }

    #[test]
    fn a_wait_ends_before_the_deadline() {
        let wait = Duration::from_secs(3);
        assert_eq!(Deadline::after(Duration::from_secs(4)).shorten(wait), wait);
        for (deadline_millis, wait_millis) in [(0, 0), (60, 30), (100, 50), (200, 150), (2000, 1800)] {
            let shortened = Deadline::after(Duration::from_millis(deadline_millis)).shorten(wait);
            let expected = Duration::from_millis(wait_millis);
            assert!((expected / 2..=expected).contains(&shortened), "{deadline_millis} ms: {shortened:?}");
        }
        let margin = |secs| Deadline::after(Duration::from_secs(secs)).margin;
        assert_eq!((margin(60), margin(99_999_999 * 3600)), (ANSWER_MARGIN_MAX, ANSWER_MARGIN_MAX));
    }

    /// What the layer makes of a call to a service that answers after a while.
    async fn answer(calls_max: usize, timeout: &str) -> Response {
        let metrics = Metrics::default();
        let traffic = Traffic::new(TrafficLimits::default(), calls_max, metrics.clone());
        let memory = Memory::of_gateway(1 << 27).unwrap();
        let gate = Gate::new(calls_max, Authenticator::open(), traffic, memory, metrics);
        let service = axum::Router::new()
            .fallback(async || tokio::time::sleep(Duration::from_millis(200)).await)
            .layer(axum::middleware::from_fn_with_state(gate, around));
        let mut request: Request = http::Request::default();
        *request.headers_mut() = headers(GRPC_TIMEOUT, timeout);
        request.headers_mut().insert(REQUEST_ID, HeaderValue::from_static("mine"));
        tower::ServiceExt::oneshot(service, request).await.unwrap()
    }

    #[tokio::test]
    async fn calls_in_process_are_cut_at_their_deadline() {
        assert_eq!(code(&answer(1, "10S").await), Code::Ok);
        let late = answer(1, "20m").await;
        assert_eq!(code(&late), Code::DeadlineExceeded);
        assert!(late.headers().contains_key(STATUS_DETAILS));
        assert_eq!(late.headers()[REQUEST_ID], "mine");
    }

    #[tokio::test]
    async fn calls_beyond_the_bound_are_refused() {
        let refused = answer(0, "10S").await;
        assert_eq!(code(&refused), Code::ResourceExhausted);
        assert_eq!(refused.headers()[REQUEST_ID], "mine");
    }
}
