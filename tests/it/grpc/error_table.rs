//! The generated page of errors, and what holds for the whole table.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use dms::domain::ErrorKind;

fn page() -> String {
    let mut page = String::from(
        "# Errors

REST answers `{\"error_code\":\"DMS.xxxxxxxx\",\"error_msg\":\"...\"}` with the HTTP status of this table. gRPC answers with the status and
`google.rpc.ErrorInfo`: `domain` \"dms\", `reason` as below, and the code in metadata `dms_code`; `BadRequest` names the field,
`RetryInfo` says when to try again. This page is generated from `src/domain/error.rs`:
`DMS_WRITE_REFERENCE=1 cargo test page_is_fresh` writes it again.

| HTTP | code | gRPC | reason | meaning |
|---|---|---|---|---|
",
    );
    for kind in ErrorKind::ALL {
        let row = kind.row();
        let meaning = row.meaning.replace('|', "\\|");
        writeln!(page, "| {} | DMS.{} | {:?} | {} | {meaning} |", row.http, row.code, row.rpc, row.reason).unwrap();
    }
    page
}

#[test]
fn error_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    if std::env::var_os("DMS_WRITE_REFERENCE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), page(), "run: DMS_WRITE_REFERENCE=1 cargo test page_is_fresh");
}

#[test]
fn every_code_and_reason_is_there_once() {
    let mut codes = HashSet::new();
    let mut reasons = HashSet::new();
    for kind in ErrorKind::ALL {
        let row = kind.row();
        assert!(codes.insert(row.code), "{}", row.code);
        assert!(reasons.insert(row.reason), "{}", row.reason);
        assert_eq!(ErrorKind::from_reason(row.reason), Some(*kind));
        assert!(row.code.len() == 8 && row.code.bytes().all(|byte| byte.is_ascii_digit()));
    }
}

#[test]
fn documented_http_statuses_that_no_general_rule_gives() {
    for (kind, http) in [
        (ErrorKind::QueueExists, 400),
        (ErrorKind::Overloaded, 404),
        (ErrorKind::TagTypeInvalid, 500),
        (ErrorKind::QueueQuota, 400),
        (ErrorKind::TokenMissing, 401),
        (ErrorKind::AccessDenied, 403),
        (ErrorKind::MethodNotAllowed, 405),
    ] {
        assert_eq!(kind.row().http, http, "{kind:?}");
    }
}
