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
    Signatures::new(SignatureRules::default())
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

/// Signs any request with any headers as the owner of `AccessKey` would.
fn signed(request: &SignedRequest, headers: &[&str]) -> String {
    let date = header(request, DATE).unwrap_or_default();
    let form = canonical(request, headers).unwrap();
    let text = [SIGNED_SCHEME.as_bytes(), b"\n", date, b"\n", sha256_hex(&form).as_bytes()].concat();
    let signature = hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"SecretKey"), &text));
    let headers = headers.join(";");
    format!("SDK-HMAC-SHA256 Access=AccessKey, SignedHeaders={headers}, Signature={signature}")
}

const USUAL: [&str; 2] = ["host", "x-sdk-date"];

#[test]
fn what_means_the_same_is_signed_alike_and_nothing_else_is() {
    type Change = fn(&mut SignedRequest);
    let same: [(&str, Change); 6] = [
        ("another order of headers", |request| request.headers.reverse()),
        ("spaces around a value", |request| request.headers[0].1 = b" service.endpoint.myhuaweicloud.com\t".to_vec()),
        ("a slash at the end, which only routing may judge", |request| request.path = "/resources/".into()),
        ("a letter escaped that need not be", |request| request.path = "/res%6Furces".into()),
        ("another order of parameters", |request| request.query = "tag=a&size=1".into()),
        ("a value escaped that need not be", |request| request.query = "size=%31&tag=%61".into()),
    ];
    let other: [(&str, Change); 14] = [
        ("the value of a header in another case", |request| request.headers[0].1.make_ascii_uppercase()),
        ("a header twice", |request| request.headers.push(request.headers[0].clone())),
        ("a second date", |request| request.headers.push((DATE.into(), b"20200608T023900Z".to_vec()))),
        ("a header that is gone", |request| drop(request.headers.remove(0))),
        ("a space inside of a value", |request| request.headers[0].1 = b"service. endpoint".to_vec()),
        ("an escape of an escape", |request| request.path = "/resources%2520".into()),
        ("dots are not resolved", |request| request.path = "/x/../resources".into()),
        ("slashes are not merged", |request| request.path = "//resources".into()),
        ("the path in another case", |request| request.path = "/Resources".into()),
        ("a value that becomes empty", |request| request.query = "size=&tag=a".into()),
        ("a parameter more", |request| request.query = "size=1&tag=a&x=".into()),
        ("a parameter in another case", |request| request.query = "Size=1&tag=a".into()),
        ("the method", |request| request.method = "POST".into()),
        ("white space in the body", |request| request.body = Bytes::from_static(b" ")),
    ];
    let original = SignedRequest { query: "size=1&tag=a".into(), ..get() };
    let header = signed(&original, &USUAL);
    for (what, change) in same {
        let mut changed = original.clone();
        change(&mut changed);
        assert_eq!(refusal(&header, &changed), None, "{what}");
    }
    for (what, change) in other {
        let mut changed = original.clone();
        change(&mut changed);
        assert_eq!(refusal(&header, &changed), Some(ErrorKind::TokenInvalid), "{what}");
    }
}

#[test]
fn parameters_whose_order_counts_are_not_repeated_under_a_signature() {
    for (query, expected) in [
        ("tag=a&tag=b", None),
        ("tag=b&tag=a&tag_type=and", None),
        ("max_msgs=1&max_msgs=10", Some(ErrorKind::TokenInvalid)),
        ("max_msgs=1&max%5fmsgs=1", Some(ErrorKind::TokenInvalid)),
        ("a&a=", Some(ErrorKind::TokenInvalid)),
    ] {
        let request = SignedRequest { query: query.into(), ..get() };
        assert_eq!(refusal(&signed(&request, &USUAL), &request), expected, "{query}");
    }
}

#[test]
fn dates_are_whole_and_real() {
    for date in [
        "20200608T023900",
        "20200608T023900z",
        "20200608t023900Z",
        "20200608T023900.5Z",
        "2020-06-08T02:39:00Z",
        "20200608T023960Z",
        "20200608T240000Z",
        "20201308T023900Z",
        "-0200608T023900Z",
        "99999999T999999Z",
        "\u{662}0200608T023900Z",
    ] {
        let mut request = get();
        request.headers[2].1 = date.as_bytes().to_vec();
        assert_eq!(refusal(&signed(&request, &USUAL), &request), Some(ErrorKind::TokenInvalid), "{date}");
    }
    let mut request = get();
    request.headers.remove(2);
    request.headers.push(("X-Sdk-Date".into(), b"20200608T023900Z".to_vec()));
    assert_eq!(
        refusal(&authorization(GET_SIGNATURE), &request),
        Some(ErrorKind::TokenInvalid),
        "names are in lower case"
    );
}

#[test]
fn a_request_may_have_to_be_signed_for_this_host() {
    let signatures = |hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Signatures::new(SignatureRules { hosts, ..SignatureRules::default() })
    };
    for (hosts, named, expected) in [
        (&[][..], "anywhere.example", true),
        (&["dms.example"], "dms.example", true),
        (&["dms.example"], "DMS.example:8080", true),
        (&["dms.example:8080", "other"], "dms.example:8080", true),
        (&["dms.example:8080"], "dms.example", false),
        (&["dms.example"], "dms.example.evil.example", false),
        (&["dms.example"], "evil.example", false),
        (&["dms.example"], "", false),
    ] {
        let mut request = get();
        request.headers[0].1 = named.as_bytes().to_vec();
        let verified = signatures(hosts).verify(&keys(), &signed(&request, &USUAL), &request, received(0));
        assert_eq!(verified.is_ok(), expected, "{hosts:?} {named}");
    }
}

#[test]
fn a_recorded_send_cannot_be_sent_without_number_within_its_moment() {
    for (method, expected) in [("POST", 10), ("DELETE", 10), ("PUT", 10), ("GET", 1000)] {
        let (signatures, now) = (signatures(), received(0));
        let request = request(method, "{}");
        let header = signed(&request, &USUAL);
        let keys = keys();
        let taken = (0..1576).filter(|_| signatures.verify(&keys, &header, &request, now).is_ok()).count();
        assert_eq!(taken, expected, "{method}");
    }
}
