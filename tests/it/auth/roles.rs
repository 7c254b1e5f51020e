//! Who may do what: every role against every method, through both doors.

use dms::auth::rights::{NEEDED, Right, Role, needed};
use dms::auth::{AuthOptions, Authenticator, Credentials, Methods, SignatureOptions, SignatureRules};
use dms::reload::Source;
use reqwest::Method;
use uuid::Uuid;

use crate::rest::paths::TABLE;
use crate::support::credentials::{by_token, methods, refusal};
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService};

/// Codes of calls that were not let in.
const REFUSALS: [&str; 7] =
    ["DMS.10240101", "DMS.10240102", "DMS.10240103", "DMS.10240104", "DMS.10240309", "DMS.10240310", "DMS.10240311"];

/// A service with a token for each role, named like the role.
async fn service() -> TestService {
    let roles: Vec<_> = Role::ALL.map(|role| [role.name()]).to_vec();
    let tokens: Vec<_> = roles.iter().map(|role| (role[0], &[PROJECT][..], &role[..])).collect();
    TestService::guarded(by_token(&tokens)).await
}

/// How a role is refused a right that it has not.
fn expected(role: Role, right: Right) -> Option<&'static str> {
    match role {
        _ if role.rights().has(right) => None,
        Role::ReadOnly => Some("DMS.10240310"),
        _ => Some("DMS.10240311"),
    }
}

#[test]
fn the_table_of_rights_has_every_method_of_the_api_and_no_other() {
    let methods = methods();
    for method in &methods {
        assert!(needed(method).is_some(), "{method}");
    }
    assert_eq!(NEEDED.len(), methods.len());
}

#[test]
fn the_page_on_security_has_the_same_table() {
    let page = include_str!("../../../docs/security.md");
    for (method, right) in NEEDED {
        let name = method.rsplit('/').next().unwrap();
        let row = page.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
        let marks: Vec<_> = row.unwrap_or_else(|| panic!("{name}")).split('|').skip(2).map(str::trim).collect();
        let has = Role::ALL.map(|role| role.rights().has(right));
        assert_eq!(marks[..4], has.map(|has| if has { "yes" } else { "" }), "{name}");
    }
}

#[tokio::test]
async fn the_examples_of_the_page_on_security_are_good() {
    let page = include_str!("../../../docs/security.md");
    let examples: Vec<_> = page.split("```json").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [tokens, keys] = examples[..] else { panic!("{examples:?}") };
    let keys = Source::Text(keys.into());
    let methods = Methods {
        tokens: Some(Source::Text(tokens.into())),
        signatures: Some(SignatureOptions { keys, rules: SignatureRules::default() }),
        ..Methods::default()
    };
    let auth = Authenticator::load(AuthOptions::Required(methods)).await.unwrap();
    for (token, name) in [("example", "shop"), ("operator", "operator")] {
        assert_eq!(auth.authenticate(&Credentials::Token(token)).unwrap().name(), name);
    }
}

#[tokio::test]
async fn each_role_may_call_what_it_needs_over_grpc() {
    let service = service().await;
    for method in methods() {
        let right = needed(&method).unwrap();
        for role in Role::ALL {
            let refused = refusal(&service.replica.channel, &method, PROJECT, role.name()).await;
            let refused = refused.filter(|code| REFUSALS.contains(&code.as_str()));
            assert_eq!(refused.as_deref(), expected(role, right), "{role:?} {method}");
        }
    }
}

#[tokio::test]
async fn nobody_may_call_anything_for_another_project() {
    let service = service().await;
    for method in methods() {
        for role in Role::ALL {
            let refused = refusal(&service.replica.channel, &method, "other", role.name()).await;
            assert_eq!(refused.as_deref(), Some("DMS.10240104"), "{role:?} {method}");
        }
        let refused = refusal(&service.replica.channel, &method, PROJECT, "unknown").await;
        assert_eq!(refused.as_deref(), Some("DMS.10240101"), "{method}");
    }
}

/// What a row of the table of REST paths asks of its caller.
fn right_of(row: u8) -> Right {
    match row {
        2 | 3 | 6 | 11 | 17 | 18 | 19 => Right::Read,
        8 => Right::Produce,
        9 | 10 | 12 | 13 => Right::Consume,
        _ => Right::Administer,
    }
}

#[tokio::test]
async fn each_role_may_call_what_it_needs_over_rest() {
    let service = service().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = (Uuid::new_v4().to_string(), format!("g-{}", Uuid::new_v4()));
    for role in Role::ALL {
        let caller = rest.showing("x-auth-token", role.name());
        let stranger = caller.at("v2", "other");
        for (row, method, path, body, _) in TABLE {
            let path = path.replace("{queue}", &queue).replace("{group}", &group).replace("{quotas}", "/quotas");
            let body = (!body.is_empty()).then(|| body.as_bytes().to_vec());
            let method: Method = method.parse().unwrap();
            let answer = caller.call(method.clone(), &path, body.clone()).await;
            match expected(role, right_of(row)) {
                Some(code) => assert_eq!(answer.code(), (403, code.into()), "{role:?} {method} {path}"),
                None => assert!(![401, 403].contains(&answer.status), "{role:?} {method} {path}: {}", answer.text),
            }
            let foreign = stranger.call(method.clone(), &path, body).await;
            assert_eq!(foreign.code(), (401, "DMS.10240104".into()), "{role:?} {method} {path}");
        }
    }
}

#[tokio::test]
async fn without_good_credentials_nothing_can_be_called_over_rest() {
    let service = service().await;
    let rest = Rest::new(&service.replica);
    let callers = [
        (rest.at("v2", PROJECT), "DMS.10240103"),
        (rest.showing("x-auth-token", "unknown"), "DMS.10240101"),
        (rest.showing("x-auth-token", ""), "DMS.10240101"),
        (rest.showing("authorization", "Bearer"), "DMS.10240101"),
        (rest.showing("authorization", "Basic YWRtaW46YWRtaW4="), "DMS.10240101"),
    ];
    for (caller, expected) in callers {
        for (_, method, path, body, _) in TABLE {
            let (queue, group) = (Uuid::new_v4().to_string(), format!("g-{}", Uuid::new_v4()));
            let path = path.replace("{queue}", &queue).replace("{group}", &group).replace("{quotas}", "/quotas");
            let body = (!body.is_empty()).then(|| body.as_bytes().to_vec());
            let answer = caller.call(method.parse().unwrap(), &path, body).await;
            assert_eq!(answer.code(), (401, expected.into()), "{method} {path}");
        }
    }
}
