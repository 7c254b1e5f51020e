//! The README's tour with curl, run as it is printed, and once more. `scripts/test` says so before it builds when there is no curl.

use std::process::Command;

use crate::support::service::TestService;

/// The first shell block below a heading.
fn block(heading: &str) -> String {
    let readme = include_str!("../../../README.md");
    let section = readme.split_once(heading).unwrap().1;
    section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_tour_ends_with_an_acknowledged_dead_letter() {
    let service = TestService::start().await;
    let script = block("## Five minutes with REST").replace("http://127.0.0.1:8080", service.replica.rest());
    assert!(script.contains(service.replica.rest()), "the tour names the service");
    for times in 1..=2 {
        let text = run(&script);
        let count = |part: &str| text.matches(part).count();
        assert_eq!(count(r#""state":0"#), 2, "{text}");
        assert_eq!(count(r#"{"success":1,"fail":0}"#), 2, "{text}");
        assert_eq!(count(r#"{"success":0,"fail":1}"#), 2, "{text}");
        for counter in ["consumed_messages", "produced_deadletters"] {
            assert_eq!(count(&format!(r#""{counter}":{times},"#)), 1, "{counter}: {text}");
        }
        assert_eq!(count(r#""available_deadletters":0"#), 1, "{text}");
    }
}

/// What a script prints that ends well.
fn run(script: &str) -> String {
    let output = Command::new("sh").args(["-eu", "-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
