//! Silencing the log of a running process leaves a trace in it.

use crate::support::calls::eventually;
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_filter_a_change_of_it_is_logged() {
    let database = TestDatabase::create().await;
    let service = Logged::serve(&database, ["--auth=none", "--log=off", "--log-format=json"]).await;
    assert_eq!(service.text(), "", "nothing is logged at first");
    let set = async |filter: &'static str| {
        let url = format!("{}/log", service.admin);
        let answer = reqwest::Client::new().put(url).body(filter).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{filter}");
    };
    let mut changes = 0;
    for filter in ["info", "off", "sqlx=error", "off", "dms::audit=off", "off"] {
        set(filter).await;
        changes += 1;
        let lines = |words: &str| service.text().lines().filter(|line| line.contains(words)).count();
        eventually("the change is logged", async || lines("the filter of the log was changed") == changes).await;
        assert_eq!(lines("the filter of the log is about to be changed"), changes, "{filter}");
    }
    let text = service.text();
    for line in text.lines().filter(|line| line.contains("the filter of the log")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert_ne!((&line["before"], line["before"].is_string()), (&line["after"], false), "{line}");
    }
}
