use bytes::Bytes;

use super::*;

/// The public SDK for Python signs these two requests so, with access key `AccessKey` and secret `SecretKey`.
const GET_SIGNATURE: &str = "cfb4171acec81de07d50e53d57eb77edd537414d66ddb1d7d780f128e12cd842";
const POST_SIGNATURE: &str = "436b1ac0a1ae03705934bb70ef2f2e09f7bfed2117d731a38235053199323a1f";
/// Their date, 20200608T023900Z.
const SIGNED_AT: u64 = 1_591_583_940;

fn keys() -> AccessKeys {
    let grant = r#""projects":["p"],"roles":["admin"]"#;
    let json = format!(r#"{{"keys":[{{"access":"AccessKey","secret":"SecretKey","name":"sdk",{grant}}}]}}"#);
    AccessKeys::parse(json.as_bytes()).unwrap()
}

fn request(method: &str, body: &'static str) -> SignedRequest {
    SignedRequest {
        method: method.into(),
        path: "/resources".into(),
        query: "size=1".into(),
        headers: vec![
            ("host".into(), b"service.endpoint.myhuaweicloud.com".to_vec()),
            ("accept".into(), b"*/*".to_vec()),
            ("x-sdk-date".into(), b"20200608T023900Z".to_vec()),
        ],
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn get() -> SignedRequest {
    request("GET", "")
}

fn authorization(signature: &str) -> String {
    format!("SDK-HMAC-SHA256 Access=AccessKey, SignedHeaders=host;x-sdk-date, Signature={signature}")
}

fn signatures() -> Signatures {
    Signatures::new(Duration::from_secs(900), Duration::from_secs(5))
}

fn received(seconds_later: i64) -> Received {
    let wall = UNIX_EPOCH + Duration::from_secs(SIGNED_AT.checked_add_signed(seconds_later).unwrap());
    Received { wall, steady: Instant::now() }
}

fn refusal(authorization: &str, request: &SignedRequest) -> Option<ErrorKind> {
    signatures().verify(&keys(), authorization, request, received(0)).err().map(|error| error.kind())
}

#[test]
fn requests_of_the_public_sdk_are_accepted() {
    let owner = signatures().verify(&keys(), &authorization(GET_SIGNATURE), &get(), received(0)).unwrap();
    assert_eq!(owner.name(), "sdk");
    assert_eq!(refusal(&authorization(POST_SIGNATURE), &request("POST", r#"{"name":"test","id":1}"#)), None);
}

#[test]
fn whatever_is_signed_cannot_be_changed() {
    let header = authorization(GET_SIGNATURE);
    let changes: [fn(&mut SignedRequest); 7] = [
        |request| request.method = "DELETE".into(),
        |request| request.path = "/resources/1".into(),
        |request| request.query = "size=2".into(),
        |request| request.query.clear(),
        |request| request.headers[0].1 = b"elsewhere".to_vec(),
        |request| request.headers[2].1 = b"20200608T023901Z".to_vec(),
        |request| request.body = Bytes::from_static(b"{}"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = get();
        change(&mut changed);
        assert_eq!(refusal(&header, &changed), Some(ErrorKind::TokenInvalid), "{index}");
    }
    let mut other = get();
    other.headers[1].1 = b"text/plain".to_vec();
    assert_eq!(refusal(&header, &other), None, "a header that is not signed does not matter");
}

#[test]
fn an_unsigned_body_is_refused_whatever_a_header_says() {
    let mut request = request("POST", "{}");
    request.headers.push(("x-sdk-content-sha256".into(), b"UNSIGNED-PAYLOAD".to_vec()));
    assert_eq!(refusal(&authorization(POST_SIGNATURE), &request), Some(ErrorKind::TokenInvalid));
}

#[test]
fn malformed_headers_are_refused() {
    let good = authorization(GET_SIGNATURE);
    let wrong = [
        "SDK-HMAC-SHA256".to_owned(),
        "SDK-HMAC-SHA256 ".to_owned(),
        good.replace("SDK-HMAC-SHA256", "SDK-HMAC-SM3"),
        good.replace("AccessKey", "accesskey"),
        good.replace("host;x-sdk-date", "x-sdk-date"),
        good.replace("host;x-sdk-date", "host"),
        good.replace("host;x-sdk-date", "Host;X-Sdk-Date"),
        good.replace("host;x-sdk-date", "host;x-sdk-date;absent"),
        good.replace("host;x-sdk-date", &format!("host;x-sdk-date{}", ";accept".repeat(63))),
        good.replace("Signature=", "Signature=0"),
        good.replace(", Signature", ", Access=AccessKey, Signature"),
        good.replace(", Signature", ", Other=1, Signature"),
        authorization(&GET_SIGNATURE.replace('c', "d")),
        authorization(""),
    ];
    for header in wrong {
        assert_eq!(refusal(&header, &get()), Some(ErrorKind::TokenInvalid), "{header}");
    }
    for date in ["", "yesterday", "20200608"] {
        let mut request = get();
        request.headers[2].1 = date.as_bytes().to_vec();
        assert_eq!(refusal(&good, &request), Some(ErrorKind::TokenInvalid), "{date}");
    }
}

#[test]
fn a_date_is_good_for_a_quarter_of_an_hour_either_way() {
    let header = authorization(GET_SIGNATURE);
    for (seconds_later, expected) in [(-901, false), (-900, true), (900, true), (901, false)] {
        let verified = signatures().verify(&keys(), &header, &get(), received(seconds_later));
        let kind = verified.err().map(|error| error.kind());
        assert_eq!(kind, (!expected).then_some(ErrorKind::TokenExpired), "{seconds_later}");
    }
    // Without the secret nobody learns what time it is here.
    let forged = signatures().verify(&keys(), &header.replace('8', "9"), &get(), received(5000));
    assert_eq!(forged.unwrap_err().kind(), ErrorKind::TokenInvalid);
}

#[test]
fn a_recorded_request_cannot_be_sent_again_later() {
    let signatures = signatures();
    let first = received(0);
    let again = |seconds| {
        let now = Received { steady: first.steady + Duration::from_secs(seconds), ..first };
        signatures.verify(&keys(), &authorization(GET_SIGNATURE), &get(), now).map(drop)
    };
    assert_eq!((again(0), again(5)), (Ok(()), Ok(())));
    assert_eq!(again(6).unwrap_err().kind(), ErrorKind::TokenInvalid);
}
